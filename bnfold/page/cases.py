"""What was judged, case by case: the plain value behind annotations, test reports and findings of an analysis.

Which demands there are is for the verbs to say. Each is escaped where it takes its form.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import Enum


class Level(Enum):
    """How a case came out, the best first."""

    PASSED = "passed"
    NOTE = "note"  # passed, and there is something to know about it
    WARNING = "warning"  # it could not be decided, or somebody should look
    ERROR = "error"


@dataclass(frozen=True)
class Demand:
    """What a case is about.

    Attributes:
        name: A stable word, which filters of other tools refer to.
        broken: What does not meet it, as a plural: `BatchNormalizations that could fold`.
    """

    name: str
    broken: str


@dataclass(frozen=True)
class Case:
    """One answer.

    Attributes:
        file: The path of the model, as it was given.
        demand: What was asked.
        name: Of what: a node, an output, or a word for all of it.
        level: How it came out.
        message: Why, in a sentence; may be empty if it passed.
        details: What else helps to see it, a line each.
    """

    file: str
    demand: Demand
    name: str
    level: Level
    message: str = ""
    details: tuple[str, ...] = ()

    @property
    def is_open(self) -> bool:
        """Whether somebody has to look at it."""
        return self.level in (Level.WARNING, Level.ERROR)


def grouped(cases: Iterable[Case]) -> list[list[Case]]:
    """Those that share file, demand and level together, in the order of the first of each."""
    groups: dict[tuple[str, Demand, Level], list[Case]] = {}
    for case in cases:
        groups.setdefault((case.file, case.demand, case.level), []).append(case)
    return list(groups.values())
