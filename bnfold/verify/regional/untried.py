"""What no trial of a region has shown: two sides that were equal so far need not be equal there."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from bnfold.graph import Op
from bnfold.verify.regional.hints import UNIFORM
from bnfold.verify.regional.numbering import Number, effective_attributes
from bnfold.verify.regional.regions import all_ops
from bnfold.verify.regional.side import Side

_BRANCHES = ("then_branch", "else_branch")


def untried(left: Side, right: Side, *, is_exact: bool) -> str:
    """Why nothing can be said of a region whose sides were equal in all trials; empty if nothing was left out.

    Args:
        left: The side of BEFORE.
        right: The side of AFTER.
        is_exact: Whether the sides were equal to the last bit.
    """
    if right.evaluator.refused:
        return f"AFTER does not take something that BEFORE takes: {right.evaluator.refused}"
    if _forced_conditions(left) != _forced_conditions(right):
        return "what an If goes by is not the same, and nothing that was tried takes both branches"
    for op, branch in [*_untaken(left), *_untaken(right)]:
        return f"nothing that was tried takes the {branch} of If {op.label!r}"
    if is_exact and _are_alike(left, right) and (names := _without_effect(left, right)):
        return f"{names} differ, and had no effect on what was tried"
    return ""


def has_untaken(left: Side, right: Side) -> bool:
    """Whether a branch was not taken."""
    return any(True for side in (left, right) for _ in _untaken(side))


def force_others(left: Side, right: Side) -> bool:
    """Lets both sides take the branches that they have not taken, whatever the conditions say, where both have some.

    Returns:
        Whether there is something to try.
    """
    untaken = [dict(_untaken(side)) for side in (left, right)]
    if not all(untaken):
        return False
    left.evaluator.forced, right.evaluator.forced = untaken
    return True


def _forced_conditions(side: Side) -> Counter[Number | None]:
    return Counter(side.conditions.get(op) for op in side.evaluator.forced)


def _untaken(side: Side) -> Iterator[tuple[Op, str]]:
    for op in all_ops(side.region.ops):
        if op.type == "If" and op in side.evaluator.taken and op not in side.decided:
            yield from ((op, branch) for branch in _BRANCHES if branch not in side.evaluator.taken[op])


def _are_alike(left: Side, right: Side) -> bool:
    """Whether both sides have the same operators, so that a setting that differs has nothing to make up for it."""
    before, after = (Counter(op.type for op in side.region.ops) for side in (left, right))
    return before == after


def _without_effect(left: Side, right: Side) -> str:
    """Attributes by which the two sides differ, of operators that onnx.reference evaluated.

    It passes over attributes that it does not know; in our own kernels none goes unread.
    """
    before, after = _settings(left), _settings(right)
    differing = set()
    for op_type in before.keys() & after.keys():
        first, second = before[op_type], after[op_type]
        differing |= {f"{name} of {op_type}" for name, _ in [*(first - second), *(second - first)]}
    return ", ".join(sorted(differing))


def _settings(side: Side) -> dict[str, Counter[tuple[str, bytes]]]:
    """By type, the attributes of the operators that onnx.reference evaluated."""
    found: dict[str, Counter[tuple[str, bytes]]] = {}
    for op in side.region.ops:
        if op in side.evaluator.referred and op.type not in UNIFORM:
            found.setdefault(op.type, Counter()).update(effective_attributes(op).items())
    return found
