"""What was judged of a model, case by case."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING

from bnfold.folding.record import Entry, Outcome, Plan
from bnfold.optimization.gate import FailOn, Gate
from bnfold.page import Case, Demand, Level

if TYPE_CHECKING:
    from bnfold.verification.result import Verification

_GATE = {
    FailOn.FOLDABLE: Demand("foldable", "BatchNormalizations that could fold"),
    FailOn.TRAINING: Demand("training", "BatchNormalizations in training mode"),
    FailOn.AFFINES: Demand("affines", "other affines that could fold"),
    FailOn.ANY: Demand("any", "BatchNormalizations"),
}
_READ = Demand("model", "models that cannot be read")
_WRITTEN = Demand("written", "models that were not written")
_GONE = Demand("folded", "BatchNormalizations that stay")
_VERIFIED = Demand("verified", "folded models that are not verified")
_WOULD = {
    Outcome.FOLDED: "would fold",
    Outcome.REDUCED: "would be reduced to one node",
    Outcome.REPLACED: "would be replaced",
    Outcome.CLEARED: "would have a scale of 1 and no bias",
    Outcome.MERGED: "would be merged",
    Outcome.KEPT: "stays",
}


def checked(source: str, plan: Plan, gate: Gate) -> Iterator[Case]:
    """Each BatchNormalization of a model, and what else the gate does not let pass."""
    yield Case(source, _READ, "is read", Level.PASSED)
    for parts in _each(plan):
        entry = next((part for part in parts if gate.broken_by(part)), _worst(parts))
        broken = gate.broken_by(entry)
        if broken is not None or not entry.is_other:
            level = _level(entry) if broken is None else Level.ERROR
            yield Case(source, _GATE[broken or FailOn.FOLDABLE], parts[0].node, level, *_why(entry))


def optimized(source: str, plan: Plan, verification: Verification | None) -> Iterator[Case]:
    """Each BatchNormalization of a model, and whether the folded model is what it was."""
    yield Case(source, _READ, "is read", Level.PASSED)
    for parts in _each(plan):
        entry = _worst(parts)
        if not entry.is_other:
            why = ("",) if entry.outcome is Outcome.FOLDED else _why(entry)
            yield Case(source, _GONE, parts[0].node, _level(entry), *why)
    if verification is not None:
        undecided = Level.ERROR if verification.is_different else Level.WARNING
        level = Level.PASSED if verification.passed else undecided
        yield Case(source, _VERIFIED, "verdict", level, str(verification), verification.reasons)


def failed(source: str, error: str) -> Case:
    """A model that could not be read, or that something else went wrong with."""
    return Case(source, _READ, "is read", Level.ERROR, error)


def not_written(source: str, error: str) -> Case:
    """A model of which the result was not good enough to be written."""
    return Case(source, _WRITTEN, "is written", Level.ERROR, error)


def _each(plan: Plan) -> Iterable[list[Entry]]:
    """The entries of each affine node; those of a BatchNormalization that is spelt out together."""
    groups: dict[object, list[Entry]] = {}
    for entry in plan.entries:
        groups.setdefault(entry.part_of or id(entry), []).append(entry)
    return groups.values()


def _worst(parts: Sequence[Entry]) -> Entry:
    return next((part for part in parts if part.outcome is not Outcome.FOLDED), parts[0])


def _level(entry: Entry) -> Level:
    return Level.PASSED if entry.outcome is Outcome.FOLDED else Level.NOTE


def _why(entry: Entry) -> tuple[str, tuple[str, ...]]:
    """A message and details: where it would go, or why it stays."""
    refusals = tuple(f"{refusal.reason.name}: {refusal}" for refusal in entry.refusals)
    if entry.outcome is Outcome.KEPT and refusals:
        return f"{_WOULD[entry.outcome]}: {refusals[0]}", refusals[1:]
    into = f" into {', '.join(entry.into)}" if entry.into else ""
    return f"{_WOULD[entry.outcome]}{into}", refusals
