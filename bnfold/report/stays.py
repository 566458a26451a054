"""What stays and why, by case: what stands above it, what below, and what would have to change."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from bnfold.folding import Entry, Outcome, Plan
from bnfold.folding.stays import kind_of
from bnfold.graph import Op
from bnfold.reasons import Refusal
from bnfold.report.bounds import MOST_DRAWINGS, Bounded, bounded
from bnfold.report.pictures import MOST_DRAWN, Part, Picture, makers, picture, readers
from bnfold.report.twins import Twins

_SIDES = {"": "the node itself", "up": "above", "down": "below", "beside": "beside it"}
_MOST_REASONS = 12
_FARTHEST = 12  # operators between a node and what stops it, in a drawing
_LOOKED_AT = 200


@dataclass(frozen=True)
class Obstacle:
    """What one way met.

    Attributes:
        side: Where it led.
        reason: The name of the reason.
        text: The same as a sentence.
    """

    side: str
    reason: str
    text: str


@dataclass(frozen=True)
class Staying:
    """Nodes that stay for the same reasons.

    Attributes:
        outcome: Kept, or what was left of them.
        type: Their operator.
        case: What the case is called; empty if it has no name.
        remedy: What would have to change.
        obstacles: What the first of them met.
        first: The name of the first.
        nodes: Their names, and what is left of each.
        picture: The graph around the first; None if it is not drawn.
    """

    outcome: str
    type: str
    case: str
    remedy: str
    obstacles: tuple[Obstacle, ...]
    first: str
    nodes: Bounded[str]
    picture: Picture | None


@dataclass(frozen=True)
class Stays:
    """All that stays.

    Attributes:
        batchnorms: BatchNormalizations, those that are spelt out among them.
        others: Other affine nodes, of which most models have many that cost little.
    """

    batchnorms: tuple[Staying, ...] = ()
    others: tuple[Staying, ...] = ()


def stays(plan: Plan, twins: Twins) -> Stays:
    """Why nodes stay, the most frequent case first."""
    groups: dict[object, list[Entry]] = {}
    for entry in plan.entries:
        if entry.outcome not in (Outcome.FOLDED, Outcome.MERGED) and entry.refusals:
            reasons = frozenset((refusal.reason, refusal.towards) for refusal in entry.refusals)
            groups.setdefault((entry.is_other, entry.op_type, entry.outcome, kind_of(entry) or reasons), []).append(
                entry
            )
    ordered = sorted(groups.values(), key=len, reverse=True)
    told = [
        (group[0].is_other, _staying(group, twins, is_drawn=place < MOST_DRAWINGS))
        for place, group in enumerate(ordered)
    ]
    return Stays(
        tuple(staying for is_other, staying in told if not is_other),
        tuple(staying for is_other, staying in told if is_other),
    )


def _staying(group: Sequence[Entry], twins: Twins, *, is_drawn: bool) -> Staying:
    first = group[0]
    kind = kind_of(first)
    return Staying(
        first.outcome.value,
        first.op_type,
        kind.name if kind else "",
        kind.remedy if kind else "",
        tuple(map(_obstacle, first.refusals[:_MOST_REASONS])),
        first.node,
        bounded([_named(entry) for entry in group]),
        _picture(first, twins) if is_drawn else None,
    )


def _named(entry: Entry) -> str:
    left = ", ".join(f"{left.op_type} {left.node}" for left in entry.left)
    return f"{entry.node}: leaves {left}" if left else entry.node


def _obstacle(refusal: Refusal) -> Obstacle:
    return Obstacle(_SIDES.get(refusal.towards, refusal.towards), refusal.reason.name, refusal.text)


def _picture(entry: Entry, twins: Twins) -> Picture | None:
    """The node, what stopped it on each side, and what lies between."""
    op = twins.before(entry.node, entry.op_type)
    if op is None:
        return None
    parts = {op: Part.HALF if entry.outcome is Outcome.REDUCED else Part.STAYS}
    parts |= dict.fromkeys(makers(op), Part.BESIDE)  # so that their other readers are seen
    stopped = {refusal.node for refusal in entry.refusals} - {op.label}
    for towards in (makers, readers):
        for way in _ways(op, stopped, towards):
            for passed in way[:-1]:
                parts[passed] = Part.PASSED
            parts[way[-1]] = Part.STOPS
    return picture(dict(list(parts.items())[:MOST_DRAWN]))


def _ways(op: Op, ends: set[str], towards: Callable[[Op], Iterator[Op]]) -> Iterator[tuple[Op, ...]]:
    """The shortest way to each of the ends that are not far."""
    met = {op}
    ways: list[tuple[Op, ...]] = [()]
    for way in ways:  # it grows meanwhile
        for other in towards(way[-1] if way else op):
            if other in met or len(met) > _LOOKED_AT or len(way) >= _FARTHEST:
                continue
            met.add(other)
            if other.label in ends:
                yield (*way, other)
            else:
                ways.append((*way, other))
