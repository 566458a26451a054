"""What a check does not let pass."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from enum import StrEnum
from fnmatch import fnmatchcase

from bnfold.folding.record import Entry, Outcome, Plan
from bnfold.reasons import Reason

_TRAINING = (Reason.TRAINING_MODE, Reason.EXTRA_OUTPUTS)


class FailOn(StrEnum):
    """What there may not be. A BatchNormalization is one also where Mul and Add spell it out."""

    FOLDABLE = "foldable"  # a BatchNormalization that could go, or of which that was not found out
    TRAINING = "training"  # one in training mode, which could go once it is calibrated
    AFFINES = "affines"  # another affine, such as a Mul by a constant, that could go
    ANY = "any"  # a BatchNormalization, whatever would become of it


@dataclass(frozen=True)
class Gate:
    """What a check does not let pass.

    Attributes:
        fail_on: What there may not be.
        allow: Known exceptions: names of nodes, or globs of them; and names of reasons, for nodes that stay or leave
            something behind for one of these.
    """

    fail_on: Collection[FailOn | str] = (FailOn.FOLDABLE, FailOn.TRAINING)
    allow: Sequence[str] = ()

    def __post_init__(self) -> None:
        """Checks both.

        Raises:
            TypeError: One of them is a text, whose letters would be taken for a list.
            ValueError: There is no such thing to fail on.
        """
        for name, given in (("fail_on", self.fail_on), ("allow", self.allow)):
            if isinstance(given, str):
                raise TypeError(f"{name} is a list, not a text: [{given!r}]")
        object.__setattr__(self, "fail_on", frozenset(map(FailOn, self.fail_on)))
        object.__setattr__(self, "allow", tuple(self.allow))

    def stopped(self, plan: Plan) -> tuple[Entry, ...]:
        """What does not pass, in the order of the plan."""
        return tuple(entry for entry in plan.entries if self.broken_by(entry) is not None)

    def broken_by(self, entry: Entry) -> FailOn | None:
        """What keeps an entry from passing, the first of several; None if it passes."""
        kinds = _kinds(entry)
        broken = next((kind for kind in FailOn if kind in kinds and kind in self.fail_on), None)
        return None if broken is None or self._allows(entry) else broken

    def _allows(self, entry: Entry) -> bool:
        names = {entry.node, entry.part_of or entry.node}
        reasons = {refusal.reason.name for refusal in entry.refusals}
        return any(
            pattern in names | reasons or any(fnmatchcase(name, pattern) for name in names) for pattern in self.allow
        )


def _kinds(entry: Entry) -> set[FailOn]:
    """All that is wrong with an entry."""
    reasons = {refusal.reason for refusal in entry.refusals}
    goes = entry.outcome is not Outcome.KEPT or Reason.OUT_OF_TIME in reasons
    if entry.is_norm:
        return set()
    if entry.is_other:
        return {FailOn.AFFINES} if goes and entry.outcome is not Outcome.MERGED else set()
    kinds = {FailOn.ANY}
    if goes:
        kinds.add(FailOn.FOLDABLE)
    if not reasons.isdisjoint(_TRAINING) and entry.outcome is Outcome.KEPT:
        kinds.add(FailOn.TRAINING)
    return kinds
