"""Operators that join values along an axis and cut them apart: Concat and Split.

An affine that varies along that axis is cut where the parts meet. One that belongs to a single part becomes an affine
of the whole by the identity on all other parts: ``A'(concat(x, y)) = concat(A(x), y)``.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from bnfold.affine import WIDE, Affine
from bnfold.graph import Op, Shape
from bnfold.ops.rule import Assign, Edit, Moved, OpRule, Step, along
from bnfold.ops.weights import Exact
from bnfold.reasons import Reason, Refused

_CONCAT_NAMES_ITS_AXIS_FROM = 4


# --- Concat --------------------------------------------------------------------------------------------------


def concat_lifts(op: Op, output: int, affine: Affine) -> Sequence[Step]:
    """A(concat(x, y)) = concat(A₁(x), A₂(y)), where A₁ and A₂ are A on the stretches of x and y"""
    axis = _concat_axis(op, affine)
    inputs = range(len(op.inputs))
    if affine.shape[axis] == 1:
        return [Step(dict.fromkeys(inputs, affine))]
    return [Step(dict(enumerate(_cut(op, affine, axis, _sizes(op, axis)))))]


def concat_sinks(op: Op, index: int, affine: Affine) -> Sequence[Step]:
    """concat(A(x), y) = A'(concat(x, y)), where A' is the identity on y; for constant y also A(concat(x, A⁻¹(y)))"""
    return concat_meets(op, {index: affine})


def concat_meets(op: Op, affines: Mapping[int, Affine]) -> Sequence[Step]:
    """concat(A(x), B(y), z) = C(concat(x, y, z)), where C is A on x, B on y and the identity on z

    Along another axis than the affines vary on, they have to be the same: concat(A(x), A(y)) = A(concat(x, y)).
    """
    first, *others = affines.values()
    axis = _concat_axis(op, first)
    if first.shape[axis] == 1 and all(map(first.agrees_with, others)):
        rest = [index for index in range(len(op.inputs)) if index not in affines]
        edits = _constants_adapt(op, rest, first)
        if edits or not rest:
            return [Step({0: first}, edits)]
    return [Step({0: _between_identities(op, affines, axis, _sizes(op, axis))})]


def _concat_axis(op: Op, affine: Affine) -> int:
    default = 1 if op.opset < _CONCAT_NAMES_ITS_AXIS_FROM else None
    return _axis(op, affine, op.attribute("axis", default))


def _sizes(op: Op, axis: int) -> Sequence[int]:
    """The sizes of all inputs; no fold changes them, and each affine that comes to one of them asks."""
    known = op.graph.part_sizes.setdefault(op, [])
    for part in range(len(known), len(op.inputs)):  # one that is not known refuses, and the next affine asks from there
        known.append(_size(op, op.shape(part), axis, part))
    return known


def _constants_adapt(op: Op, others: Iterable[int], affine: Affine) -> list[Edit]:
    """Other inputs as A⁻¹ of what they are; nothing where one is computed or A has no inverse."""
    if not affine.scale.all():
        return []
    edits: list[Edit] = []
    for other in others:
        constant = op.graph.constant(op.data(other))
        if constant is None or len(constant.shape) != affine.rank:
            return []
        values = affine.inverse()(constant.float64())
        if values.shape != constant.shape:
            return []
        edits.append(Assign(op, other, Exact(values, constant.dtype)))
    return edits


# --- Split ---------------------------------------------------------------------------------------------------


def split_lifts(op: Op, output: int, affine: Affine) -> Sequence[Step]:
    """A on one part is A' on the whole, where A' is the identity on the other parts"""
    axis = _axis(op, affine, op.attribute("axis", 0))
    return [Step({0: _between_identities(op, {output: affine}, axis, _split_sizes(op, axis))})]


def split_sinks(op: Op, index: int, affine: Affine) -> Sequence[Step]:
    """Each part that is read gets its stretch of A."""
    axis = _axis(op, affine, op.attribute("axis", 0))
    whole = affine.shape[axis] == 1
    parts = [affine] * len(op.outputs) if whole else _cut(op, affine, axis, _split_sizes(op, axis))
    read = [value is not None and bool(value.readers or value.is_output) for value in op.outputs]
    unread = [
        Moved(value) for value, is_read in zip(op.outputs, read, strict=True) if value is not None and not is_read
    ]
    return [Step({part: affine for part, affine in enumerate(parts) if part < len(read) and read[part]}, unread)]


def _split_sizes(op: Op, axis: int) -> list[int]:
    """The sizes of the parts: an input (opset 1, and 13 on), an attribute (before 13), or else equal.

    Equal parts may leave a smaller one at the end (opset 18 on).
    """
    given = op.attribute("split")
    if op.input(1) is not None:
        given = op.constant(1).array().tolist()
    if given:
        if len(given) < len(op.outputs):
            raise Refused(Reason.MALFORMED, op_type=op.type, detail=f"{len(given)} sizes, {len(op.outputs)} outputs")
        return [int(size) for size in given]
    size = _size(op, op.shape(0), axis, 0)
    count = max(op.attribute("num_outputs", len(op.outputs)), len(op.outputs))
    part = -(-size // count)
    return [max(min(part, size - start * part), 0) for start in range(count)]


# --- both ----------------------------------------------------------------------------------------------------


def _axis(op: Op, affine: Affine, axis: int | None) -> int:
    if axis is None or not -affine.rank <= axis < affine.rank:
        raise Refused(Reason.MALFORMED, op_type=op.type, detail=f"axis {axis} of a value of rank {affine.rank}")
    return axis % affine.rank


def _size(op: Op, shape: Shape, axis: int, index: int) -> int:
    size = shape[axis] if axis < len(shape) else None
    if not isinstance(size, int):
        raise Refused(Reason.SHAPE_UNKNOWN, value=op.data(index).name)
    return size


def _cut(op: Op, affine: Affine, axis: int, sizes: Sequence[int]) -> list[Affine]:
    """The stretches of an affine that varies along the axis."""
    if affine.shape[axis] != sum(sizes):
        raise Refused(Reason.WRONG_SIZE, value=op.label, size=affine.shape[axis], expected=sum(sizes))
    stops = np.cumsum(sizes)
    return [
        affine.carried(lambda array, start=start, stop=stop: array.take(range(start, stop), axis))  # type: ignore[misc]
        for start, stop in zip(stops - sizes, stops, strict=True)
    ]


def _between_identities(op: Op, affines: Mapping[int, Affine], axis: int, sizes: Sequence[int]) -> Affine:
    """The affine of the whole that is what is given on some parts and changes nothing on the others."""
    scale, shift = np.ones(sum(sizes), WIDE), np.zeros(sum(sizes), WIDE)
    for part, affine in affines.items():
        start = sum(sizes[:part])
        stretch = slice(start, start + sizes[part])
        scale[stretch], shift[stretch] = along(op, affine, axis, sizes[part])
    return Affine.along(axis, affine.rank, scale, shift)


RULES: dict[str, OpRule] = {
    "Concat": OpRule(lift=concat_lifts, sink=concat_sinks, meet=concat_meets),
    "Split": OpRule(lift=split_lifts, sink=split_sinks, data_inputs=(0,)),
}
