"""Operators that pick positions along an axis: Slice and Gather.

Going down, the affine's arrays are picked from in the same way. Going up, they are put back where they were picked
from, between the identity for positions that nobody picked.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from bnfold.affine import Affine, FloatArray
from bnfold.graph import Op
from bnfold.ops.rule import Carrier, OpRule, refuse_rank_other_than
from bnfold.reasons import Reason, Refused

Positions = npt.NDArray[np.int64]

_BORDERS_ARE_INPUTS_FROM = 10
_STARTS, _ENDS, _AXES, _STEPS = 1, 2, 3, 4


# --- Slice ---------------------------------------------------------------------------------------------------


def slice_down(op: Op, affine: Affine) -> Affine:
    """slice(A(x)) = A'(slice(x)), A' sliced where A varies"""
    for axis, entry in _sliced(op, affine):
        positions = _positions(op, entry, affine.shape[axis])
        affine = _picked(affine, axis, positions)
    return affine


def slice_up(op: Op, affine: Affine) -> Affine:
    """A(slice(x)) = slice(A'(x)), A' the identity on what is sliced off where A varies"""
    for axis, entry in _sliced(op, affine):
        size = _known_size(op, axis)
        affine = _put_back(op, affine, axis, _positions(op, entry, size), size)
    return affine


def _sliced(op: Op, affine: Affine) -> list[tuple[int, int]]:
    """The sliced axes that the affine varies on, each with its place in the lists of borders."""
    if not affine.axes:
        return []
    axes = _listed(op, _AXES, "axes")
    if axes is None:
        axes = list(range(_count(op)))
    axes = [axis % affine.rank for axis in axes]
    if len(set(axes)) != len(axes):
        raise Refused(Reason.MALFORMED, op_type=op.type, detail=f"axes {axes}")
    return [(axis, entry) for entry, axis in enumerate(axes) if axis in affine.axes]


def _count(op: Op) -> int:
    """How many borders are given."""
    if op.opset < _BORDERS_ARE_INPUTS_FROM:
        return len(op.attribute("starts"))
    shape = op.shape(_STARTS)
    if len(shape) != 1 or not isinstance(shape[0], int):
        raise Refused(Reason.SHAPE_UNKNOWN, value=op.data(_STARTS).name)
    return shape[0]


def _listed(op: Op, index: int, name: str) -> list[int] | None:
    if op.opset < _BORDERS_ARE_INPUTS_FROM:
        listed = op.attribute(name)
        return None if listed is None else list(listed)
    constant = op.optional_constant(index)
    return None if constant is None else [int(number) for number in constant.array().reshape(-1)]


def _positions(op: Op, entry: int, size: int) -> Positions:
    """The positions that are picked along an axis of this size; Python clamps borders as ONNX does."""
    lists = [_listed(op, _STARTS, "starts"), _listed(op, _ENDS, "ends"), _listed(op, _STEPS, "steps")]
    borders = [1 if given is None else given[entry] for given in lists if given is None or entry < len(given)]
    if len(borders) != len(lists) or borders[2] == 0:
        raise Refused(Reason.MALFORMED, op_type=op.type, detail=f"borders {lists}")
    return np.arange(size, dtype=np.int64)[slice(*borders)]


# --- Gather --------------------------------------------------------------------------------------------------

_INDICES = 1


def gather_down(op: Op, affine: Affine) -> Affine:
    """gather(A(x)) = A'(gather(x)): A' gathered from A, an index as often as it occurs"""
    axis = _gather_axis(op, affine.rank)
    if axis in affine.axes:
        return _picked(affine, axis, _indices(op, affine.shape[axis]))
    ones = (1,) * len(op.shape(_INDICES))
    return affine.carried(lambda array: array.reshape((*array.shape[:axis], *ones, *array.shape[axis + 1 :])))


def gather_up(op: Op, affine: Affine) -> Affine:
    """A(gather(x)) = gather(A'(x)): A' the identity where nothing was gathered from"""
    rank = len(op.shape(0))
    axis = _gather_axis(op, rank)
    gathered = range(axis, axis + affine.rank - rank + 1)
    refuse_rank_other_than(op, affine, rank - 1 + len(op.shape(_INDICES)))
    if not affine.axes & set(gathered):
        return affine.carried(lambda array: array.reshape((*array.shape[:axis], 1, *array.shape[gathered.stop :])))
    size = _known_size(op, axis)
    indices = _indices(op, size)
    shape = (*affine.shape[:axis], *indices.shape, *affine.shape[gathered.stop :])
    flat = (*shape[:axis], -1, *shape[gathered.stop :])
    if any(own not in (1, size) for own, size in zip(affine.shape, shape, strict=True)):
        raise Refused(Reason.WRONG_SIZE, value=op.label, size=affine.shape, expected=shape)
    merged = affine.carried(lambda array: np.broadcast_to(array, shape).reshape(flat))
    return _put_back(op, merged, axis, indices.reshape(-1), size)


def _gather_axis(op: Op, rank: int) -> int:
    axis = op.attribute("axis", 0)
    if not -rank <= axis < rank:
        raise Refused(Reason.MALFORMED, op_type=op.type, detail=f"axis {axis} of a value of rank {rank}")
    return int(axis % rank)


def _indices(op: Op, size: int) -> Positions:
    """The indices, counted from the front."""
    indices = op.constant(_INDICES).array().astype(np.int64)
    if ((indices < -size) | (indices >= size)).any():
        raise Refused(Reason.MALFORMED, op_type=op.type, detail=f"indices {indices.tolist()} of {size}")
    return np.asarray(indices % size)


# --- both ----------------------------------------------------------------------------------------------------


def _known_size(op: Op, axis: int) -> int:
    size = op.shape(0)[axis]
    if not isinstance(size, int):
        raise Refused(Reason.SHAPE_UNKNOWN, value=op.data(0).name)
    return size


def _picked(affine: Affine, axis: int, positions: Positions) -> Affine:
    return affine.carried(lambda array: array.take(positions, axis))


def _put_back(op: Op, affine: Affine, axis: int, positions: Positions, size: int) -> Affine:
    """The affine on an axis of this size that is this one at the positions and the identity elsewhere.

    Raises:
        Refused: a position occurs twice, with two meanings.
    """
    if affine.shape[axis] != len(positions):
        raise Refused(Reason.WRONG_SIZE, value=op.label, size=affine.shape[axis], expected=len(positions))

    def spread(array: FloatArray, rest: float) -> FloatArray:
        moved = np.moveaxis(array, axis, 0)
        full = np.full((size, *moved.shape[1:]), rest, array.dtype)
        full[positions] = moved
        if (full[positions] != moved).any():
            raise Refused(Reason.UNSUPPORTED, op_type=op.type, detail="a position occurs twice")
        return np.moveaxis(full, 0, axis)

    scale, shift = (np.broadcast_to(array, affine.shape) for array in (affine.scale, affine.shift))
    return Affine(spread(scale, 1.0), spread(shift, 0.0))


RULES: dict[str, OpRule] = {
    "Slice": Carrier(slice_up, slice_down).rule(),
    "Gather": Carrier(gather_up, gather_down).rule(),
}
