"""What the verbs return: frozen data that prints as a report."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from bnfold import escape
from bnfold.folding.plain import plan_dict
from bnfold.folding.record import Entry, Plan
from bnfold.folding.told import headline, table
from bnfold.model_io import Holder, Model
from bnfold.optimization import cases
from bnfold.optimization.gate import Gate
from bnfold.page import Case, Page, html, text

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
    """

    source: str
    plan: Plan
    gate: Gate = field(default_factory=Gate)

    @property
    def ok(self) -> bool:
        """Whether there is nothing that the gate does not let pass."""
        return not self.stopped

    @cached_property
    def stopped(self) -> tuple[Entry, ...]:
        """What the gate does not let pass."""
        return self.gate.stopped(self.plan)

    def page(self, *, verbose: bool = False) -> Page:
        line = headline(self.plan, "would fold")
        return Page(f"{self.source}: {line}", table=table(self.plan, verbose=verbose))

    def to_dict(self) -> dict[str, object]:
        stopped = [entry.node for entry in self.stopped]
        return {"model": self.source, "error": None, "ok": self.ok, "stopped": stopped, **plan_dict(self.plan)}

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
    """

    source: str
    plan: Plan
    output: Path | None
    bytes_before: int
    bytes_after: int
    verification: Verification | None = None
    calibration: Calibration | None = None

    @property
    def ok(self) -> bool:
        """Whether nothing speaks against the folded model; it need not have been verified."""
        return self.verification is None or not self.verification.is_different

    @property
    def _held(self) -> Model:
        return self.plan.model

    def page(self, *, verbose: bool = False) -> Page:
        parts = [headline(self.plan, "folded"), sizes(self.bytes_before, self.bytes_after), self._verified()]
        notes = [*self._calibrated(verbose=verbose), *([f"written to {self.output}"] if self.output else [])]
        if self.verification is not None and self.verification.counterexample:
            notes.append(f"a counterexample is in {self.verification.counterexample}: run its replay.py")
        head = f"{self.source}: {'; '.join(parts)}"
        return Page(head, table=table(self.plan, verbose=verbose), notes=tuple(notes))

    def to_dict(self) -> dict[str, object]:
        return {
            "model": self.source,
            "error": None,
            "output": str(self.output) if self.output else None,
            "bytes": {"before": self.bytes_before, "after": self.bytes_after},
            "verification": self.verification.to_dict() if self.verification is not None else None,
            "calibration": self.calibration.to_dict() if self.calibration is not None else None,
            **plan_dict(self.plan),
        }

    def cases(self) -> tuple[Case, ...]:
        return tuple(cases.optimized(self.source, self.plan, self.verification))

    def _calibrated(self, *, verbose: bool) -> tuple[str, ...]:
        return tuple(text(self.calibration.page(verbose=verbose)).splitlines()) if self.calibration else ()

    def _verified(self) -> str:
        if not self.plan.changes:
            return f"nothing to fold, the model is {'calibrated' if self.calibration else 'as it was'}"
        if self.verification is None:
            return "not verified"
        return f"verified {self.verification}" if self.verification.passed else str(self.verification)


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
        return Page(f"{self.source}: {self._told}")

    def to_dict(self) -> dict[str, object]:
        return {"model": self.source, "error": self.error}

    def cases(self) -> tuple[Case, ...]:
        return (cases.failed(self.source, self._told),)

    @property
    def _told(self) -> str:
        """The error, which may begin with the path itself."""
        return self.error.removeprefix(f"{self.source}: ").removeprefix(f"{escape.line(self.source)}: ")


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
    power, unit = next((p, u) for p, u in ((3, "GB"), (2, "MB"), (1, "KB"), (0, "bytes")) if before >= 1000**p or not p)
    digits = 1 if power else 0
    grown = f" ({100 * after / before - 100:.1f} % larger)" if after > before else ""
    return f"{before / 1000**power:.{digits}f} → {after / 1000**power:.{digits}f} {unit}{grown}"
