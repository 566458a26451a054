"""What was folded, drawn before and after: folds that went the same way stand together."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice

from bnfold.folding import Entry, Outcome, Plan
from bnfold.folding.record import Ability, Answer
from bnfold.graph import Op
from bnfold.ops.rule import equation_of
from bnfold.report.bounds import MOST_DRAWINGS, MOST_SHOWN, Bounded, bounded
from bnfold.report.pictures import MOST_DRAWN, Part, Picture, makers, picture, readers
from bnfold.report.twins import Twins

_ALIKE_DRAWN = 4
"""Drawings of folds that went the same way: they look alike, but for the names."""
_TOOK = (Ability.TOOK_OUTPUT, Ability.TOOK_INPUT, Ability.TOOK_BESIDE)


@dataclass(frozen=True)
class Step:
    """What one operator did with an affine.

    Attributes:
        node: The operator's name.
        type: Its type.
        did: What it did.
        equation: The rule that says so; empty where there is none.
        affine: The range of what was asked of it.
    """

    node: str
    type: str
    did: str
    equation: str
    affine: str


@dataclass(frozen=True)
class Fold:
    """One affine node and where it went.

    Attributes:
        node: Its name.
        steps: What each operator on the way did.
        before: The graph around it; None if it is not drawn.
        after: The same once it is folded.
    """

    node: str
    steps: tuple[Step, ...]
    before: Picture | None = None
    after: Picture | None = None


@dataclass(frozen=True)
class Kind:
    """Folds that went the same way.

    Attributes:
        outcome: What became of the nodes.
        type: Their operator.
        way: Where they went, by operator.
        drawn: The first of them.
        others: The names of the rest.
        count: How many there are.
    """

    outcome: str
    type: str
    way: str
    drawn: tuple[Fold, ...]
    others: Bounded[str]
    count: int


def kinds(plan: Plan, twins: Twins) -> Bounded[Kind]:
    """All that went somewhere, the most frequent way first; of a model with hundreds, not all are drawn."""
    groups: dict[object, list[Entry]] = {}
    for entry in plan.entries:
        if entry.outcome is not Outcome.KEPT:
            groups.setdefault(_likeness(entry), []).append(entry)
    found = []
    left = MOST_DRAWINGS
    for group in sorted(groups.values(), key=lambda group: (not group[0].is_batchnorm, -len(group))):
        drawn = min(left, _ALIKE_DRAWN, len(group))
        left -= drawn
        folds = tuple(_fold(entry, twins) for entry in group[:drawn])
        names = bounded([entry.node for entry in group[drawn:]])
        first = group[0]
        found.append(Kind(first.outcome.value, first.op_type, _way(first), folds, names, len(group)))
    return bounded(found, MOST_SHOWN)


def _likeness(entry: Entry) -> object:
    """Equal for folds whose drawings differ by names only."""
    steps = tuple((answer.op_type, answer.ability) for answer in entry.answers)
    return entry.op_type, entry.outcome, steps, tuple(left.op_type for left in entry.left)


def _way(entry: Entry) -> str:
    types = {answer.node: answer.op_type for answer in entry.answers}
    into, through = (
        ", ".join(dict.fromkeys(types.get(node, node) for node in nodes)) for nodes in (entry.into, entry.through)
    )
    left = ", ".join(dict.fromkeys(left.op_type for left in entry.left))
    told = [f"into {into}" if into else "", f"through {through}" if through else "", f"leaves {left}" if left else ""]
    return ", ".join(filter(None, told))


def _fold(entry: Entry, twins: Twins) -> Fold:
    before = dict(_before(entry, twins))
    after = dict(_after(entry, twins)) or dict(_beside(entry, twins))
    return Fold(
        entry.node,
        tuple(map(_step, entry.answers[:MOST_DRAWN])),
        picture(before) if before else None,
        picture(after) if after else None,
    )


def _before(entry: Entry, twins: Twins) -> Iterator[tuple[Op, Part]]:
    if (op := twins.before(entry.node, entry.op_type)) is None:
        return
    yield op, Part.HALF if entry.outcome in (Outcome.REDUCED, Outcome.CLEARED) else Part.GONE
    for answer in _others(entry):
        if (other := twins.before(answer.node, answer.op_type)) is not None:
            yield other, Part.TOOK if answer.ability in _TOOK else Part.PASSED


def _after(entry: Entry, twins: Twins) -> Iterator[tuple[Op, Part]]:
    for answer in _others(entry):
        if (op := twins.heir(answer.node, answer.op_type)) is not None:
            yield op, Part.CHANGED if answer.ability in _TOOK else Part.PASSED
    for left in entry.left:
        if (op := twins.left(left.node, left.op_type)) is not None:
            yield op, Part.LEFT


def _beside(entry: Entry, twins: Twins) -> Iterator[tuple[Op, Part]]:
    """What stood around a node of which nothing is left."""
    if (op := twins.before(entry.node, entry.op_type)) is not None:
        for other in islice((*makers(op), *readers(op)), MOST_DRAWN):
            if (twin := twins.after(other.label, other.type)) is not None:
                yield twin, Part.BESIDE


def _others(entry: Entry) -> Sequence[Answer]:
    """The operators on the way, those that took the affine in first: of a long way, not all are drawn."""
    asked = [answer for answer in entry.answers if answer.node != entry.node]
    asked.sort(key=lambda answer: answer.ability not in _TOOK)
    return asked[: MOST_DRAWN - 1]


def _step(answer: Answer) -> Step:
    upwards = answer.ability is Ability.LIFTED
    equation = equation_of(answer.rule, upwards=upwards) if answer.rule is not None else ""
    return Step(answer.node, answer.op_type, answer.ability.value, equation, _range(answer))


def _range(answer: Answer) -> str:
    ends = (("scale", answer.extent.scale, 1.0), ("shift", answer.extent.shift, 0.0))
    return ", ".join(f"{name} {_between(*range_)}" for name, range_, none in ends if set(range_) != {none})


def _between(low: float, high: float) -> str:
    return f"{low:.3g}" if low == high else f"{low:.3g} … {high:.3g}"
