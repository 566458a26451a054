"""Operators that only move values: the affine's arrays are carried through the same movement."""

from __future__ import annotations

from math import prod

import numpy as np

from bnfold.affine import Affine, FloatArray
from bnfold.graph import Op, Shape
from bnfold.graph.evaluate import axes_of
from bnfold.ops.regroup import Group, groups_of, regrouped
from bnfold.ops.rule import Carrier, OpRule, passes, refuse_rank_other_than
from bnfold.reasons import Reason, Refused


def unchanged(op: Op, affine: Affine) -> Affine:
    """Identity."""
    return affine


def dropout(op: Op, affine: Affine) -> Affine:
    """Dropout in inference mode."""
    if op.opset >= 12:
        training = op.optional_constant(2)
        active = training is not None and bool(training.array().any())
    else:
        active = op.opset < 7 and not op.attribute("is_test", 0)
    if active:
        raise Refused(Reason.UNSUPPORTED, op_type=op.type, detail="it drops values, in training mode")
    return affine


def cast_to_the_same(op: Op, affine: Affine) -> Affine:
    """A Cast that changes nothing; another would move work to a type with less room, or round between the two."""
    dtype = op.graph.dtype(op.data())
    if dtype is None or dtype != op.graph.dtype(op.output):
        raise Refused(Reason.NO_RULE, op_type=op.type)
    return affine


# --- Transpose -----------------------------------------------------------------------------------------------


def _perm(op: Op, affine: Affine) -> tuple[int, ...]:
    perm = tuple(op.attribute("perm") or range(affine.rank)[::-1])
    refuse_rank_other_than(op, affine, len(perm))
    return perm


def transpose_down(op: Op, affine: Affine) -> Affine:
    perm = _perm(op, affine)
    return affine.carried(lambda array: array.transpose(perm))


def transpose_up(op: Op, affine: Affine) -> Affine:
    back = np.argsort(_perm(op, affine))
    return affine.carried(lambda array: array.transpose(back))


# --- Squeeze, Unsqueeze --------------------------------------------------------------------------------------


def _named_axes(op: Op, rank: int) -> tuple[int, ...]:
    """The axes of Squeeze or Unsqueeze, counted from the front of the longer shape."""
    constant = op.optional_constant(1) if op.opset >= 13 else None
    axes = axes_of(op, [np.empty(0), constant.array()] if constant else [])
    if axes is None:  # Squeeze takes every axis of size 1
        shape = op.shape(0)
        if not all(isinstance(size, int) for size in shape):
            raise Refused(Reason.SHAPE_UNKNOWN, value=op.data().name)
        axes = tuple(axis for axis, size in enumerate(shape) if size == 1)
    return tuple(sorted(axis % rank for axis in axes))


def _drop(op: Op, affine: Affine, axes: tuple[int, ...]) -> Affine:
    if affine.axes & set(axes):
        raise Refused(Reason.WRONG_AXIS, axes=sorted(affine.axes), op_type=op.type, expected="an axis that stays")
    return affine.carried(lambda array: np.squeeze(array, axes))


def squeeze_down(op: Op, affine: Affine) -> Affine:
    return _drop(op, affine, _named_axes(op, affine.rank))


def squeeze_up(op: Op, affine: Affine) -> Affine:
    axes = _named_axes(op, len(op.shape(0)))
    return affine.carried(lambda array: np.expand_dims(array, axes))


def unsqueeze_down(op: Op, affine: Affine) -> Affine:
    axes = op.constant(1).shape[0] if op.opset >= 13 else len(op.attribute("axes"))
    return affine.carried(lambda array: np.expand_dims(array, _named_axes(op, affine.rank + axes)))


def unsqueeze_up(op: Op, affine: Affine) -> Affine:
    return _drop(op, affine, _named_axes(op, affine.rank))


# --- Reshape, Flatten ----------------------------------------------------------------------------------------


def _shapes(op: Op) -> tuple[Shape, Shape]:
    return op.shape(0), op.graph.known_shape(op.output)


def reshape_down(op: Op, affine: Affine) -> Affine:
    source, target = _shapes(op)
    return regrouped(op, affine, groups_of(source, target))


def reshape_up(op: Op, affine: Affine) -> Affine:
    source, target = _shapes(op)
    return regrouped(op, affine, groups_of(target, source))


def _flatten_groups(op: Op) -> tuple[Group, Group]:
    shape = op.shape(0)
    axis = op.attribute("axis", 1)
    axis = axis + len(shape) if axis < 0 else axis
    return Group(shape[:axis], (None,)), Group(shape[axis:], (None,))


def flatten_down(op: Op, affine: Affine) -> Affine:
    return regrouped(op, affine, _flatten_groups(op))


def flatten_up(op: Op, affine: Affine) -> Affine:
    return regrouped(op, affine, [Group(group.target, group.source) for group in _flatten_groups(op)])


# --- Expand, Tile --------------------------------------------------------------------------------------------


def expand_down(op: Op, affine: Affine) -> Affine:
    """Leading axes may be added; an axis it varies on has its size already."""
    rank = len(op.graph.known_shape(op.output))
    return affine.carried(lambda array: array.reshape((1,) * (rank - affine.rank) + array.shape))


def expand_up(op: Op, affine: Affine) -> Affine:
    source = op.shape(0)
    extra = affine.rank - len(source)
    if any(axis < extra or source[axis - extra] != affine.shape[axis] for axis in affine.axes):
        raise Refused(Reason.WRONG_AXIS, axes=sorted(affine.axes), op_type=op.type, expected="an axis it keeps")
    return affine.carried(lambda array: array.reshape(array.shape[extra:]))


def _repeats(op: Op, affine: Affine) -> list[int]:
    if op.opset < 6:
        raise Refused(Reason.UNSUPPORTED, op_type=op.type, detail=f"opset {op.opset}")
    return [int(count) for count in op.constant(1).array()]


def tile_down(op: Op, affine: Affine) -> Affine:
    repeats = [count if axis in affine.axes else 1 for axis, count in enumerate(_repeats(op, affine))]
    if prod(repeats) * prod(affine.shape) > op.graph.most_elements:
        raise Refused(Reason.UNSUPPORTED, op_type=op.type, detail=f"{prod(repeats)} copies")
    return affine.carried(lambda array: np.tile(array, repeats))


def tile_up(op: Op, affine: Affine) -> Affine:
    if any(_repeats(op, affine)[axis] != 1 for axis in affine.axes):
        raise Refused(Reason.WRONG_AXIS, axes=sorted(affine.axes), op_type=op.type, expected="an axis it keeps")
    return affine


# --- DepthToSpace, SpaceToDepth ------------------------------------------------------------------------------


def _channels(op: Op, affine: Affine) -> None:
    if affine.axes - {1}:
        raise Refused(Reason.WRONG_AXIS, axes=sorted(affine.axes), op_type=op.type, expected=1)


def _spread(op: Op, affine: Affine) -> Affine:
    """Each channel of the narrow side is a block of channels on the wide side."""
    _channels(op, affine)
    block = op.attribute("blocksize") ** 2
    if not affine.axes:
        return affine
    if _block_is_outer(op):  # wide channel = block * C + c
        return affine.carried(lambda array: np.tile(array, (1, block, 1, 1)))
    return affine.carried(lambda array: np.repeat(array, block, axis=1))


def _gathered(op: Op, affine: Affine) -> Affine:
    """The way back, for an affine that is the same all over each block of channels."""
    _channels(op, affine)
    block = op.attribute("blocksize") ** 2
    if not affine.axes:
        return affine
    outer = _block_is_outer(op)

    def first_of_block(array: FloatArray) -> FloatArray:
        blocks = array.reshape((block, -1) if outer else (-1, block))
        firsts = blocks[:1] if outer else blocks[:, :1]
        if (blocks != firsts).any():
            raise Refused(Reason.NOT_UNIFORM, op_type=op.type)
        return firsts.reshape(1, -1, 1, 1)

    return affine.carried(first_of_block)


def _block_is_outer(op: Op) -> bool:
    return bool(op.attribute("mode", b"DCR") == b"DCR")


RULES: dict[str, OpRule] = {
    "Identity": passes(unchanged),
    "Dropout": passes(dropout),
    "Cast": passes(cast_to_the_same),
    "CastLike": passes(cast_to_the_same),
    "Transpose": Carrier(transpose_up, transpose_down).rule(),
    "Squeeze": Carrier(squeeze_up, squeeze_down).rule(),
    "Unsqueeze": Carrier(unsqueeze_up, unsqueeze_down).rule(),
    "Reshape": Carrier(reshape_up, reshape_down).rule(),
    "Flatten": Carrier(flatten_up, flatten_down).rule(),
    "Expand": Carrier(expand_up, expand_down).rule(),
    "Tile": Carrier(tile_up, tile_down).rule(),
    "DepthToSpace": Carrier(_spread, _gathered).rule(),
    "SpaceToDepth": Carrier(_gathered, _spread).rule(),
}
