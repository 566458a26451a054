"""The ways that are tried for one affine node, in order, and what becomes of the node on each.

With ``y = s x + t`` the whole affine goes up or down, or it is split: ``y = s x + t`` with the scale going first, or
``y = s (x + t / s)`` with the shift going first. Where only one half of a BatchNormalization finds a place, the other
half stays as a single Add or Mul.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from enum import Enum, auto
from functools import partial

import numpy as np

from bnfold.affine import Affine
from bnfold.folding.names import refuse_shadowed
from bnfold.folding.options import SMALL_TENSOR
from bnfold.folding.representable import refuse_unrepresentable
from bnfold.folding.sums import beside
from bnfold.folding.underflow import Scaling
from bnfold.folding.walk import (
    Walk,
    Way,
    data_readers,
    malformed_is_refused,
    refusal_of,
    refuse_change_of_kept,
    refuse_if_shared,
    towards,
)
from bnfold.graph import Op, Value
from bnfold.ops import AddBehind, Assign, Detach, Edit, Moved, Retype
from bnfold.ops.quantized import requantized
from bnfold.ops.weights import Exact
from bnfold.reasons import Reason, Refusal, Refused

_BROADCAST_IS_NUMPYS_FROM = 7
_MOST_SHIFT = 1024  # of a shift that is done before a small scale: x + t / s must stay in range, of float16 too


class Rest(Enum):
    """What becomes of the affine node itself."""

    GIVES_NAME = auto()  # it goes; its input now means what its output meant, and takes that name
    GOES = auto()  # it goes; its readers read its input
    STAYS = auto()  # it is now a single Add or Mul


@dataclass(frozen=True, eq=False)
class Choice:
    """A way that can be gone, and its price."""

    way: Way
    rest: Rest
    bytes_more: int = 0

    @property
    def nodes_left(self) -> int:
        """How many nodes stand for the affine node afterwards."""
        return sum(isinstance(edit, AddBehind) for edit in self.way.edits) + (self.rest is Rest.STAYS)


def choose(
    op: Op, source: Value, affine: Affine, most_left: int, price: Callable[[Sequence[Edit]], int]
) -> tuple[Choice | None, list[Refusal]]:
    """The cheapest way: fewest nodes left, then fewest bytes more, then the first. Else why each one ended.

    Args:
        op: The affine node.
        source: The value it reads.
        affine: What it does to that.
        most_left: How many nodes may stand in its place.
        price: How many bytes larger edits make the model; it refuses what may not be done.
    """
    refusals: list[Refusal] = []
    found: list[Choice] = []
    for choice in choices(op, source, affine, most_left, price, refusals):
        found.append(choice)
        if not choice.nodes_left and not choice.bytes_more:
            break
    return min(found, key=lambda choice: (choice.nodes_left, choice.bytes_more), default=None), refusals


def choices(
    op: Op,
    source: Value,
    affine: Affine,
    most_left: int,
    price: Callable[[Sequence[Edit]], int],
    refusals: list[Refusal],
) -> Iterator[Choice]:
    """Every way that can be gone, in order; why the others ended is added to ``refusals``."""
    for attempt in _attempts(op, source, affine, most_left):
        try:
            with malformed_is_refused(op):
                choice = _on_grids(attempt())
            edits = [*choice.way.edits, *_end_of(op, source, choice.rest)]
            refuse_shadowed(edits)
            refuse_unrepresentable(choice.way.edits, Scaling.of(op, choice.way))
            refuse_change_of_kept(edits)
            choice = replace(choice, bytes_more=max(price(edits), 0))
            if choice.nodes_left > most_left or (choice.nodes_left and choice.bytes_more > SMALL_TENSOR):
                raise Refused(Reason.NO_GAIN)
        except Refused as refused:
            refusal = refusal_of(refused, op)
            refusals += [refusal] if refusal not in refusals else []
            continue
        yield choice


def _end_of(op: Op, source: Value, rest: Rest) -> list[Edit]:
    """What becomes of the affine node, as an edit."""
    is_gone = rest is not Rest.STAYS
    return [Detach(op, op.inputs.index(source), keeps_name=rest is Rest.GIVES_NAME)] if is_gone else []


def _on_grids(choice: Choice) -> Choice:
    return replace(choice, way=replace(choice.way, edits=requantized(choice.way.edits)))


def _attempts(op: Op, source: Value, affine: Affine, most_left: int) -> Iterator[Callable[[], Choice]]:
    if (affine.is_identity or _vanishes(op)) and not op.output.is_output:
        yield lambda: Choice(Way(), Rest.GOES)
    yield lambda: Choice(_up(op, source, affine), Rest.GIVES_NAME)
    yield lambda: Choice(_down(op, affine), Rest.GOES)
    if data_readers(op.output) and all(use.op.type in ("Add", "Sub") for use in data_readers(op.output)):
        yield lambda: Choice(_beside(op, source, affine), Rest.GOES)
    if not (affine.has_scale and affine.has_shift):
        return
    halves = [(affine.only_scale(), affine.only_shift())]
    if affine.scale.all() and np.abs(affine.shift / affine.scale).max() <= _MOST_SHIFT:
        halves.append((Affine(np.ones_like(affine.scale), affine.shift / affine.scale), affine.only_scale()))
    for first, second in halves:
        yield partial(_split, op, source, first, second)
    if most_left and op.opset >= _BROADCAST_IS_NUMPYS_FROM:
        for first, second in halves:
            yield partial(_second_half_stays, op, source, first, second)
            yield partial(_first_half_stays, op, source, first, second)


def _vanishes(op: Op) -> bool:
    """Whether a shift that a fold has left is nothing in the type that it is stored in."""
    constants = [op.graph.constant(value) for value in op.inputs if value is not None]
    made = [constant for constant in constants if isinstance(constant, Exact)]
    return op.type == "Add" and len(made) == 1 and not made[0].array().any()


@towards("up")
def _up(op: Op, source: Value, affine: Affine) -> Way:
    refuse_if_shared(source, op, affine)
    if affine.is_identity and source.producer is not None:
        return Way()
    return Walk(op).up(source, affine)


@towards("down")
def _down(op: Op, affine: Affine) -> Way:
    return Walk(op).down(op.output, affine)


@towards("beside")
def _beside(op: Op, source: Value, affine: Affine) -> Way:
    return beside(op, source, affine)


def _split(op: Op, source: Value, first: Affine, second: Affine) -> Choice:
    """The half that is done first goes up, the other down."""
    way = _up(op, source, first)
    return Choice(way.join(_down(op, second)), Rest.GOES)


def _second_half_stays(op: Op, source: Value, first: Affine, second: Affine) -> Choice:
    return _reduced(op, _up(op, source, first), source, second)


def _first_half_stays(op: Op, source: Value, first: Affine, second: Affine) -> Choice:
    way = _down(op, second)
    return _reduced(op, replace(way, edits=[*way.edits, Moved(op.output)]), source, first)


def _reduced(op: Op, way: Way, source: Value, left: Affine) -> Choice:
    """One half has found a place; the node stays as the other."""
    op_type, values = ("Mul", left.scale) if left.has_scale else ("Add", left.shift)
    dtype = op.graph.dtype(source)
    if dtype is None:
        raise Refused(Reason.SHAPE_UNKNOWN, value=source.name)
    constant = Exact(np.array(values), dtype, multiplies=op_type == "Mul")
    edits: list[Edit] = [Retype(op, op_type), Assign(op, 1, constant)]
    return Choice(replace(way, edits=[*edits, *way.edits]), Rest.STAYS)
