"""What takes the place of a BatchNormalization that stays, for compilers that know none: x · s + t, precomputed."""

from __future__ import annotations

from enum import StrEnum

import numpy as np

from bnfold.affine import Affine
from bnfold.folding.names import refuse_shadowed
from bnfold.folding.representable import refuse_unrepresentable
from bnfold.folding.underflow import Scaling
from bnfold.graph import Op, Value
from bnfold.ops import AddBehind, Assign, Edit, Retype, SetAttribute
from bnfold.ops.linear import BIAS, WEIGHT
from bnfold.ops.rule import along
from bnfold.ops.weights import Exact
from bnfold.reasons import Reason, Refused

_BROADCAST_IS_NUMPYS_FROM = 7
_CHANNELS = 1
_CONSTANT = 1  # the input of a Mul or Add
_CONV_TYPES = (np.float16, np.float32)  # those that runtimes have it for


class Leftover(StrEnum):
    """What becomes of inference-mode BatchNormalizations that find no place."""

    KEEP = "keep"
    AFFINE = "affine"  # a Mul and an Add, or one of them where that is enough
    CONV = "conv"  # a depthwise Conv; a Mul and an Add for a matrix, and for types that Conv is seldom built for


def replacement(op: Op, source: Value, affine: Affine, form: Leftover) -> list[Edit]:
    """The edits that put another operator in the place of a BatchNormalization.

    Args:
        op: The BatchNormalization.
        source: Its data input.
        affine: What it computes.
        form: AFFINE or CONV.

    Raises:
        Refused: the type of its data is not known, or cannot hold the constants.
    """
    dtype = op.graph.dtype(source)
    if dtype is None:
        raise Refused(Reason.SHAPE_UNKNOWN, value=source.name)
    if affine.is_identity:
        return [Retype(op, "Identity", inputs=1)]
    is_conv = form is Leftover.CONV and affine.rank > 2 and dtype in _CONV_TYPES
    edits = _as_conv(op, affine, dtype) if is_conv else _as_arithmetic(op, affine, dtype)
    refuse_shadowed(edits)
    refuse_unrepresentable(edits, Scaling(frozenset({op}), op))
    return edits


def _as_conv(op: Op, affine: Affine, dtype: np.dtype) -> list[Edit]:
    channels = op.constant(1).shape[0]
    scale, shift = along(op, affine, _CHANNELS, channels)
    weight = np.array(scale).reshape(channels, *[1] * (affine.rank - 1))
    edits: list[Edit] = [Retype(op, "Conv", inputs=2), Assign(op, WEIGHT, Exact(weight, dtype, multiplies=True))]
    if channels > 1:
        edits.append(SetAttribute(op, "group", channels))
    return [*edits, Assign(op, BIAS, Exact(np.array(shift), dtype))] if affine.has_shift else edits


def _as_arithmetic(op: Op, affine: Affine, dtype: np.dtype) -> list[Edit]:
    if op.opset < _BROADCAST_IS_NUMPYS_FROM:
        raise Refused(Reason.UNSUPPORTED, op_type=op.type, detail=f"as a Mul and an Add at opset {op.opset}")
    scale, shift = Exact(np.array(affine.scale), dtype, multiplies=True), Exact(np.array(affine.shift), dtype)
    if not affine.has_scale:
        return [Retype(op, "Add"), Assign(op, _CONSTANT, shift)]
    edits: list[Edit] = [Retype(op, "Mul"), Assign(op, _CONSTANT, scale)]
    return [*edits, AddBehind(op, shift)] if affine.has_shift else edits
