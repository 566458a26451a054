"""How operators are evaluated, and what comes of it beside their values."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from bnfold.graph import Op, Value
from bnfold.verification.float64.carried import Num, Rounding


@dataclass(frozen=True)
class How:
    """How operators are evaluated.

    Attributes:
        rounds: Whether data is rounded where it is quantised and dequantised again at once.
        forced: Branches that are taken whatever the condition says.
        rounded: Constants that may be off by a rounding; so is what is made of them.
        retuned: Operators of which the floating-point attributes may be, too.
        folds: Whether all that is computed from constants is off by a rounding to its type.
        unit: How far a result of float64 is off for its own rounding, relative to it; 0 if that does not count.
    """

    rounds: bool = True
    forced: Mapping[Op, str] = field(default_factory=dict)
    rounded: Mapping[Value, Rounding] = field(default_factory=dict)
    retuned: frozenset[Op] = frozenset()
    folds: bool = False
    unit: float = 0.0

    def of(self, op: Op) -> Hashable:
        """All of it that matters to an operator without bodies, given its inputs."""
        roundings = (self.rounded.get(output) for output in op.outputs if output is not None)
        return self.rounds, op in self.retuned, self.folds, self.unit, *roundings


@dataclass(frozen=True)
class Coverage:
    """What was met on the way.

    Attributes:
        taken: Branches of Ifs that were taken.
        referred: The operators that onnx.reference evaluated on data.
        estimated: Those without a rule for their error, which had one.
        tied: Comparisons of numbers that were equal, and not off.
        blind: Whether a part of some weight met nothing but padding.
        turns: The largest number of an iteration of a Loop.
    """

    taken: frozenset[tuple[Op, str]] = frozenset()
    referred: frozenset[Op] = frozenset()
    estimated: frozenset[str] = frozenset()
    tied: frozenset[Op] = frozenset()
    blind: bool = False
    turns: int = 0

    def __or__(self, other: Coverage) -> Coverage:
        return Coverage(
            self.taken | other.taken,
            self.referred | other.referred,
            self.estimated | other.estimated,
            self.tied | other.tied,
            self.blind or other.blind,
            max(self.turns, other.turns),
        )


class Result(NamedTuple):
    """A value with its error, and what was met on the way to it."""

    num: Num
    coverage: Coverage


AS_IT_IS = How()
NOTHING = Coverage()
