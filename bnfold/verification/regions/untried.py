"""What no trial of a region has shown: two sides that were equal so far need not be equal there."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace

from bnfold.graph import Op, Value
from bnfold.verification.float64.evaluate import ORDERING
from bnfold.verification.float64.how import NOTHING, Coverage
from bnfold.verification.regions.exercise import Rival
from bnfold.verification.regions.hints import UNIFORM
from bnfold.verification.regions.numbering import Number, effective_attributes, known_attributes
from bnfold.verification.regions.regions import named
from bnfold.verification.regions.side import Side
from bnfold.verification.regions.sizes import turns

_BRANCHES = ("then_branch", "else_branch")


@dataclass(frozen=True)
class Seen:
    """What the trials of a region have shown.

    Attributes:
        left: What was met on the side of BEFORE.
        right: What was met on the side of AFTER.
        idle: Constants that no trial has told apart yet.
        refused: Why AFTER did not take values that BEFORE took.
        tells: Whether a difference would have shown in some trial.
        shows: Whether anything but zeros came of some trial.
        filled: Values at the border that had elements.
        is_exact: Whether the sides were equal to the last bit.
        tried: What trials were for, by the names of obligations.
        beyond: Of the lengths that obligations ask for, those that are more than can be tried.
    """

    left: Coverage = NOTHING
    right: Coverage = NOTHING
    idle: tuple[Rival, ...] = ()
    refused: str = ""
    tells: bool = False
    shows: bool = False
    filled: frozenset[Number] = frozenset()
    is_exact: bool = True
    tried: tuple[str, ...] = ()
    beyond: frozenset[tuple[int, bool]] = frozenset()


def unfilled(left: Side, right: Side, seen: Seen) -> str:
    """Values at the border that had no elements, and may have some."""
    border = (
        (side, value)
        for side in (left, right)
        for value, number in side.region.border.items()
        if number not in seen.filled
    )
    return ", ".join(sorted({repr(value.name) for side, value in border if not _is_always_empty(side, value)}))


def _is_always_empty(side: Side, value: Value) -> bool:
    return any(0 in (op.graph.shape(value) or ()) for op in side.region.ops[:1])


def odd_conditions(left: Side, right: Side, seen: Seen) -> str:
    """Ifs of which branches were forced, and that do not go by the same on both sides."""
    ours, theirs = (Counter(side.conditions.get(op) for op in side.how.forced) for side in (left, right))
    return ", ".join(repr(op.label) for op in right.how.forced) if ours != theirs else ""


def untaken(left: Side, right: Side, seen: Seen) -> str:
    """A branch that was not taken."""
    branches = [*_untaken(left, seen.left), *_untaken(right, seen.right)]
    return next((f"{branch} of If {op.label!r}" for op, branch in branches), "")


def unturned(left: Side, right: Side, seen: Seen) -> str:
    """A number of an iteration that no Loop came to, and that others are held against."""
    asked = turns(left, right)
    return f"{asked[0] - 1}" if asked and min(seen.left.turns, seen.right.turns) < asked[0] else ""


def untied(left: Side, right: Side, seen: Seen) -> str:
    """Comparisons of numbers that were never equal, where the two sides have as many, but of other kinds."""
    ours, theirs = ([op for op in side.region.all_ops if op.type in ORDERING] for side in (left, right))
    kinds = [Counter("Equal" in op.type for op in ops) for ops in (ours, theirs)]
    if len(ours) != len(theirs) or kinds[0] == kinds[1]:
        return ""
    met = seen.left.tied | seen.right.tied
    return ", ".join(named(op) for op in (*ours, *theirs) if op not in met)


def without_effect(left: Side, right: Side, seen: Seen) -> str:
    """Attributes by which sides differ that are equal to the last bit, of operators that onnx.reference evaluated.

    It passes over attributes that it does not know; in our own kernels none goes unread.
    """
    if not seen.is_exact or not _are_alike(left, right):
        return ""
    before, after = _settings(left, seen.left, right), _settings(right, seen.right, left)
    differing = set()
    for op_type in before.keys() & after.keys():
        first, second = before[op_type], after[op_type]
        differing |= {f"{name} of {op_type}" for name, _ in [*(first - second), *(second - first)]}
    return ", ".join(sorted(differing))


def forced(left: Side, right: Side, seen: Seen) -> tuple[Side, Side] | None:
    """Both sides, so that they take branches that they have not taken, whatever the conditions say; None if one has."""
    untaken = dict(_untaken(left, seen.left)), dict(_untaken(right, seen.right))
    if not all(untaken):
        return None
    return tuple(  # type: ignore[return-value]
        replace(side, how=replace(side.how, forced=branches))
        for side, branches in zip((left, right), untaken, strict=True)
    )


def _untaken(side: Side, met: Coverage) -> Iterator[tuple[Op, str]]:
    reached = {op for op, _ in met.taken}
    for op in side.region.all_ops:
        if op in reached and op not in side.decided:
            yield from ((op, branch) for branch in _BRANCHES if (op, branch) not in met.taken)


def _are_alike(left: Side, right: Side) -> bool:
    """Whether both sides have the same operators in the same places, so that nothing makes up for another setting."""
    before, after = (Counter(map(_place, side.region.all_ops)) for side in (left, right))
    return before == after


def _place(op: Op) -> tuple[str, ...]:
    """The type of an operator, and those of what makes the data that it reads."""
    makers = [value.producer for value in op.inputs if value is not None]
    return op.type, *(maker.type for maker in makers if maker is not None and maker.type != "Constant")


def _settings(side: Side, met: Coverage, other: Side) -> dict[str, Counter[tuple[str, bytes]]]:
    """By type, the attributes of the operators that onnx.reference evaluated; those that both sides' versions know."""
    found: dict[str, Counter[tuple[str, bytes]]] = {}
    for op in side.region.all_ops:
        if op in met.referred and op.type not in UNIFORM:
            known = [known_attributes(twin) for twin in other.region.all_ops if twin.type == op.type]
            # of recurrent operators, onnx.reference is left those with the usual activations
            attributes = (item for item in effective_attributes(op).items() if item[0] != "activations")
            common = (item for item in attributes if all(not names or item[0] in names for names in known))
            found.setdefault(op.type, Counter()).update(common)
    return found
