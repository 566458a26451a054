"""How large inputs have to be to tell two regions apart: beyond what sizes and places are held against."""

from __future__ import annotations

import itertools
import math
from collections.abc import Container, Iterable, Iterator

import numpy as np

from bnfold.graph import Op, Value
from bnfold.verification.regions.scenes import SHORT
from bnfold.verification.regions.side import COMPARING, Side, is_made_of_constants

ENDLESS = 1 << 30
"""Integers from here on stand for the end of an axis."""
_PLACING = COMPARING | {"Slice", "Trilu", "Min", "Max", "Mod", "Clip", "Range", "ReverseSequence", "LSTM", "GRU", "RNN"}
_AS_DECLARED = 0, False
_PICKING = frozenset({"Cast", "Gather", "Slice", "Squeeze", "Unsqueeze", "Reshape"})
_COMPUTING = _PICKING | {"Add", "Sub", "Neg"}
_CONDITIONS = frozenset({"If", "Not", "And", "Or", "Cast", "Squeeze", "Reshape"})
_NEAR = 4  # places up to here are met anyway
MET = 32
"""Steps of sizes up to here are met anyway, too."""
_DIVIDED = 64
_MOST_NUMBERS = 32  # of a constant


def lengths(left: Side, right: Side) -> list[tuple[int, bool]]:
    """Beyond the largest place that only one side knows, or where both cut what the model leaves open.

    A place is where a Slice ends, or what places are held against. In length, and (with True) in samples.
    """
    far = max(map(abs, _places(left, right)), default=0)
    return [(far + 1, False), (far, True), (far + 1, True)] if far else []


def telling_lengths(left: Side, right: Side) -> list[tuple[int, bool]]:
    """Those of them that are needed: no samples where all such places are along other axes."""
    counts_samples = any(_places(left, right).values())
    return [(length, samples) for length, samples in lengths(left, right) if counts_samples or not samples]


def _places(left: Side, right: Side) -> dict[int, bool]:
    """Far places, and whether they may be among samples."""
    reads = [(side, read) for side in (left, right) for read in side.sizes if read.op.type in _PLACING]
    found = [
        (int(place), read.op.type != "Slice")  # of which `_cuts` knows the axes
        for side, read in reads
        if is_made_of_constants(read.value) and (array := side.weight(read.value)).dtype.kind in "iu"
        for place in array.ravel()[:_MOST_NUMBERS]
    ]
    ours, theirs = set(_cuts(left)), set(_cuts(right))
    found += [(cut[0], cut[2]) for cut in ours | theirs if cut[1] or cut not in ours & theirs]
    far = [(place, samples) for place, samples in found if _NEAR < abs(place) < ENDLESS]
    return {place: (place, True) in far for place, _ in far}


def compared_sizes(left: Side, right: Side) -> list[tuple[int, bool]]:
    """The declared sizes, and some beyond the numbers that sizes are held against, unless those are met anyway."""
    return _beyond((side, op) for side in (left, right) for op in side.compared | side.counting)


def telling_sizes(left: Side, right: Side) -> list[tuple[int, bool]]:
    """Those of them that are needed: both sides can be forced into a branch that none of them takes."""
    return _beyond((side, op) for side in (left, right) for op in side.compared if not _decides(op))


def _beyond(compared: Iterable[tuple[Side, Op]]) -> list[tuple[int, bool]]:
    found: set[tuple[int, bool]] = set()
    for side, op in compared:
        near = MET if op.type in ("Div", "Mod") else _NEAR
        numbers = [] if op.type == "Squeeze" else list(map(int, size_numbers(side, op)))
        far = {number for number in numbers if near < number < ENDLESS}
        if far or _is_of_two_sizes(op):
            # a size may be held against a number, or places up to a size
            beyond = far | {number + 2 for number in far}
            found |= {_AS_DECLARED, *itertools.product(beyond, (False, True))}
        if op.type in ("Div", "Mod"):
            found |= {(-(-_DIVIDED // step) * step, False) for step in numbers if _NEAR < step <= near}
        if short := _short(side, op):
            found |= {_AS_DECLARED, *itertools.product(short, (False, True))}
    return sorted(found)


def _short(side: Side, op: Op) -> set[int]:
    """Sizes below the usual ones that decide otherwise, as a single one."""
    if op.type == "Squeeze":
        return {1}
    near = (int(n) for n in size_numbers(side, op, _COMPUTING) if 0 < n < SHORT)
    return {size for number in near for size in (number - 1, number, number + 1) if size > 0}


def _decides(op: Op) -> bool:
    """Whether it says which branch is taken, and nothing else."""
    uses = [use.op for value in op.outputs if value is not None and not value.is_output for use in value.readers]
    return op.type == "If" or (bool(uses) and all(use.type in _CONDITIONS and _decides(use) for use in uses))


def turns(left: Side, right: Side) -> list[int]:
    """The largest number that the number of an iteration is held against, and those beyond it."""
    counting = ((side, op) for side in (left, right) for op in side.counting)
    far = [int(number) for side, op in counting for number in size_numbers(side, op) if number < ENDLESS]
    return [max(far) + 1, max(far) + 2] if max(far, default=0) > _NEAR else []


def _is_of_two_sizes(op: Op) -> bool:
    """Whether sizes are held against each other, or decide which branch is taken."""
    reads = [op.graph.constant(value) for value in op.inputs if value is not None and op.type != "If"]
    bounds = (float(np.abs(known.float64()).max(initial=0)) for known in reads if known is not None)
    return op.type in COMPARING | {"If"} and min(bounds, default=math.inf) > _NEAR


def size_numbers(side: Side, op: Op, through: Container[str] | None = None) -> Iterator[float]:
    """What an operator holds sizes against: the constants that it reads, and those that its sizes are computed with.

    With ``through``, as far as these operators compute them, and with their signs.
    """
    seen, stack = set[Value](), list(op.inputs)
    while stack:
        value = stack.pop()
        if value is None or value in seen:
            continue
        seen.add(value)
        if is_made_of_constants(value):
            numbers = side.weight(value)
            if numbers.size <= _MOST_NUMBERS and numbers.dtype.kind in "iuf":
                numbers = numbers[np.isfinite(numbers)]
                yield from (np.abs(numbers) if through is None else numbers).tolist()
        elif value.producer is None or value.producer.type in ("Shape", "Size"):
            continue
        elif through is None:
            stack += value.producer.reads()
        elif value.producer.type in through:
            stack += value.producer.inputs[: 1 if value.producer.type in _PICKING else None]


def _cuts(side: Side) -> Iterator[tuple[int, bool, bool]]:
    """Where a Slice begins and ends, or a diagonal is; whether that axis may be longer than is known, or the first."""
    for op in side.active:
        if op.type not in ("Slice", "Trilu", "EyeLike"):
            continue
        if op.type == "Slice":
            places = [_setting(side, op, index, name) for index, name in ((1, "starts"), (2, "ends"))]
            axes = _setting(side, op, 3, "axes") or list(range(max(map(len, places))))
            pairs = [pair for some in places for pair in zip(some, axes, strict=False)]
        else:
            pairs = list(itertools.product(_setting(side, op, 1, "k"), (-2, -1)))
        shape = op.graph.shape(op.data(0))
        for place, axis in pairs:
            size = shape[axis] if shape is not None and -len(shape) <= axis < len(shape) else None
            yield place, not isinstance(size, int), axis in (0, -len(shape or ()))


def slice_steps(side: Side, op: Op) -> list[int]:
    """The steps of a Slice, as far as they are stored."""
    return _setting(side, op, 4, "steps")


def _setting(side: Side, op: Op, index: int, name: str) -> list[int]:
    """Integers that an operator reads, or has as an attribute; none if they are computed."""
    value = op.input(index)
    if value is None:
        stated = op.attribute(name, [])
        return [stated] if isinstance(stated, int) else list(stated)
    return list(map(int, side.weight(value).ravel())) if is_made_of_constants(value) else []
