"""What the verbs return: frozen data that prints as a report."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from bnfold import escape
from bnfold.folding.asked import Reply
from bnfold.folding.asked import table as asked_table
from bnfold.folding.plain import plan_dict
from bnfold.folding.record import Entry, Plan
from bnfold.folding.told import besides, headline, some, table
from bnfold.model_io import Holder, Model
from bnfold.optimization import cases
from bnfold.optimization.difference import NodeChange, difference_table
from bnfold.optimization.gate import FailOn, Gate
from bnfold.optimization.inventory import Change
from bnfold.optimization.status import Status, status_of
from bnfold.optimization.summary import summary, unit_of
from bnfold.page import Case, Page, html, plural, text

if TYPE_CHECKING:  # `optimize --no-verify` does without what verification imports
    from bnfold.calibration.result import Calibration
    from bnfold.verification.result import Verification


class Result:
    """Prints as its page, in a terminal and in a notebook."""

    def page(self, *, verbose: bool = False) -> Page:
        """The result in a form to print; if verbose, with a row for each node."""
        raise NotImplementedError

    def to_dict(self) -> dict[str, object]:
        """The result as plain data: a member of `models` in docs/json.md."""
        raise NotImplementedError

    def cases(self) -> tuple[Case, ...]:
        """The result as answers, one by one."""
        raise NotImplementedError

    @property
    def ok(self) -> bool:
        """The answer; `bool(result)` is the same."""
        raise NotImplementedError

    def __bool__(self) -> bool:
        return self.ok

    def __str__(self) -> str:
        return text(self.page())

    def _repr_html_(self) -> str:
        return html(self.page())


@dataclass(frozen=True)
class Checked(Result):
    """What would become of each affine node of a model.

    Attributes:
        source: The model's path as it was given, or `model` if it had none.
        plan: What was found.
        gate: What there may not be.
        change: What the model is made of, and what it would be made of; None if that was not counted.
        asked: What operators said to some of the nodes; None if that was not asked for.
    """

    source: str
    plan: Plan
    gate: Gate = field(default_factory=Gate)
    change: Change | None = None
    asked: tuple[Reply, ...] | None = None

    @property
    def ok(self) -> bool:
        """Whether there is nothing that the gate does not let pass."""
        return not self.stopped

    @cached_property
    def stopped(self) -> tuple[Entry, ...]:
        """What the gate does not let pass."""
        return self.gate.stopped(self.plan)

    def page(self, *, verbose: bool = False) -> Page:
        status = self.status
        return Page(
            headline(self.plan, "would fold"),
            besides(self.plan),
            table(self.plan, verbose=verbose) if self.asked is None else asked_table(self.asked),
            self._stopped_by(verbose=verbose),
            subject=self.source,
            word=status.value,
            tone=status.tone,
            summary=summary(self.change, (self.plan.nodes_before, self.plan.nodes_after)),
        )

    def _stopped_by(self, *, verbose: bool) -> tuple[str, ...]:
        """What the gate does not let pass, by name."""
        names = [entry.node for entry in self.stopped]
        kinds = ",".join(kind.value for kind in FailOn if kind in self.gate.fail_on)
        told = ", ".join(names) if verbose else some(names)
        return (f"--fail-on {kinds} stops {plural(len(names), 'node')}: {told}",) if names else ()

    @property
    def status(self) -> Status:
        """What it comes to, in a word."""
        return Status.CLEAN if self.ok else Status.FOUND

    def to_dict(self) -> dict[str, object]:
        return {
            "model": self.source,
            "error": None,
            "status": self.status.value,
            "ok": self.ok,
            "stopped": [entry.node for entry in self.stopped],
            "asked": None if self.asked is None else [asdict(reply) for reply in self.asked],
            **plan_dict(self.plan),
            **(self.change.to_dict() if self.change else {}),
        }

    def cases(self) -> tuple[Case, ...]:
        return tuple(cases.checked(self.source, self.plan, self.gate))


@dataclass(frozen=True)
class Optimized(Holder, Result):
    """What became of each affine node of a model, and where the folded model is.

    Attributes:
        source: The model's path as it was given, or `model` if it had none.
        plan: What was done.
        output: Where the folded model was written; None if it was not written to a file.
        bytes_before: Size of the model, data files included.
        bytes_after: Size of the folded model, data files included.
        verification: How the two compare; None if they were not compared, or nothing folded.
        calibration: What was measured first; None if it was not asked for.
        change: What the model was and is made of; None if that was not counted.
        seconds: What it took; None if that was not measured.
        stopped: What stays although nothing may; then nothing was written.
        is_dry: Whether nothing was to be written.
        difference: What became of each node; None if that was not asked for.
    """

    source: str
    plan: Plan
    output: Path | None
    bytes_before: int
    bytes_after: int
    verification: Verification | None = None
    calibration: Calibration | None = None
    change: Change | None = None
    seconds: float | None = None
    stopped: tuple[Entry, ...] = ()
    is_dry: bool = False
    difference: tuple[NodeChange, ...] | None = None

    @property
    def ok(self) -> bool:
        """Whether nothing speaks against the folded model; it need not have been verified."""
        return self.verification is None or not self.verification.is_different

    @property
    def _held(self) -> Model:
        return self.plan.model

    def page(self, *, verbose: bool = False) -> Page:
        status = self.status
        size = self.bytes_before, self.bytes_after
        nodes = self.plan.nodes_before, self.plan.nodes_after
        return Page(
            f"{headline(self.plan, 'would fold' if self.is_dry else 'folded')}, {self._comes_to}",
            besides(self.plan),
            table(self.plan, verbose=verbose),
            tuple(self._notes(verbose=verbose)),
            subject=self.source,
            word=status.value,
            tone=status.tone,
            summary=summary(self.change, nodes, size),
            appendix=difference_table(self.difference or ()),
        )

    @property
    def status(self) -> Status:
        """What it comes to, in a word."""
        return Status.STAYS if self.stopped else status_of(self.plan, self.verification)

    @property
    def _comes_to(self) -> str:
        """The end of the headline."""
        if self.stopped:
            return "not written"
        if not self.plan.changes:
            return "calibrated" if self.calibration else "unchanged"
        return "not verified" if self.verification is None else _VERDICTS[self.status]

    def _notes(self, *, verbose: bool) -> Iterator[str]:
        if self.verification is not None:
            yield f"verified {self.verification}" if self.verification.passed else str(self.verification)
        if self.seconds is not None:
            yield f"took {self.seconds:.1f} s"
        if self.calibration is not None:
            yield from text(self.calibration.page(verbose=verbose)).splitlines()
        if self.is_dry:
            yield "nothing was written: --dry-run"
        if self.output:
            yield f"written to {self.output}"
        if self.verification is not None and self.verification.counterexample:
            yield f"a counterexample is in {self.verification.counterexample}: run its replay.py"

    def to_dict(self) -> dict[str, object]:
        return {
            "model": self.source,
            "error": None,
            "status": self.status.value,
            "output": str(self.output) if self.output else None,
            "bytes": {"before": self.bytes_before, "after": self.bytes_after},
            "verification": self.verification.to_dict() if self.verification is not None else None,
            "calibration": self.calibration.to_dict() if self.calibration is not None else None,
            **plan_dict(self.plan),
            **(self.change.to_dict() if self.change else {}),
            "seconds": self.seconds,
            "dry_run": self.is_dry,
            "diff": None if self.difference is None else [asdict(each) for each in self.difference],
        }

    def cases(self) -> tuple[Case, ...]:
        return tuple(cases.optimized(self.source, self.plan, self.verification))


_VERDICTS = {
    Status.OK: "verified",
    Status.PARTLY: "verified",
    Status.UNVERIFIED: "not verified",
    Status.DIFFERENT: "not equivalent, not written",
}


@dataclass(frozen=True)
class Failed(Result):
    """A model that could not be read, why, and the exit code that says so."""

    source: str
    error: str
    exit_code: int = 2

    @property
    def ok(self) -> bool:
        return False

    def page(self, *, verbose: bool = False) -> Page:  # noqa: ARG002 -- there is nothing to say of its nodes
        return Page(self._told, subject=self.source, word=Status.FAILED.value, tone=Status.FAILED.tone)

    def to_dict(self) -> dict[str, object]:
        return {"model": self.source, "error": self.error}

    def cases(self) -> tuple[Case, ...]:
        return (cases.failed(self.source, self._told),)

    @property
    def _told(self) -> str:
        """The error, which may begin with the path itself."""
        return self.error.removeprefix(f"{self.source}: ").removeprefix(escape.line(f"{self.source}: "))


@dataclass(frozen=True)
class Told(Result):
    """What there is to say of a result: plain data, which one process can send to another.

    Attributes:
        source: The model's path as it was given.
        told: Its report.
        data: The same for programs.
        judged: The same case by case.
        error: Why nothing was written; empty if it was.
    """

    source: str
    told: Page
    data: dict[str, object]
    judged: tuple[Case, ...] = ()
    error: str = ""

    @classmethod
    def of(cls, result: Optimized, *, verbose: bool, error: str = "") -> Told:
        judged = (*result.cases(), *([cases.not_written(result.source, error)] if error else []))
        return cls(result.source, result.page(verbose=verbose), result.to_dict(), judged, error)

    @property
    def ok(self) -> bool:
        return not self.error

    @property
    def exit_code(self) -> int:
        return int(not self.ok)

    def page(self, *, verbose: bool = False) -> Page:  # noqa: ARG002 -- that was decided where it was made
        return self.told

    def to_dict(self) -> dict[str, object]:
        return self.data

    def cases(self) -> tuple[Case, ...]:
        return self.judged


def sizes(before: int, after: int) -> str:
    """Two sizes of a model, both in the unit that suits the larger one."""
    divisor, unit, decimals = unit_of(before)
    grown = f" ({100 * after / before - 100:.1f} % larger)" if after > before else ""
    return f"{before / divisor:.{decimals}f} → {after / divisor:.{decimals}f} {unit}{grown}"
