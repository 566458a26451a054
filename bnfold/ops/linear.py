"""Operators with a weight: Conv, ConvTranspose, DeformConv, Gemm, MatMul. They absorb an affine on either side."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from bnfold.affine import Affine, FloatArray
from bnfold.graph import Constant, Op
from bnfold.ops.rule import (
    AddBehind,
    Assign,
    Edit,
    Edits,
    Moved,
    OpRule,
    Retype,
    SetAttribute,
    along,
    operands_type,
    refuse_rank_other_than,
    refuse_spread,
    static,
)
from bnfold.ops.weights import Exact, Scaled, in_type_of
from bnfold.reasons import Reason, Refused

WEIGHT, BIAS = 1, 2
CHANNELS = 1


# --- Conv: W is [O, I/groups, *kernel] -----------------------------------------------------------------------


def conv_absorbs_output(conv: Op, affine: Affine) -> Edits:
    """s(W*x + b) + t  =  (sW)*x + (sb + t)"""
    return _into_filters(conv, affine, BIAS)


def _into_filters(conv: Op, affine: Affine, bias: int) -> Edits:
    shape = _kernel_shape(conv, affine)
    scale, shift = along(conv, affine, CHANNELS, shape[0])
    factor = scale.reshape(-1, *[1] * (len(shape) - 1))
    return [*rescaled(conv, WEIGHT, factor), *_new_bias(conv, shape[0], scale, shift, bias)]


def conv_absorbs_input(conv: Op, index: int, affine: Affine) -> Edits:
    """W*(sx + t) + b  =  (Ws)*x + (b + sum of W·t over input channels and taps), where no padding is read"""
    shape = _kernel_shape(conv, affine)
    groups = conv.attribute("group", 1)
    scale, shift = along(conv, affine, CHANNELS, shape[1] * groups)
    if affine.has_shift and is_padded(conv, shape[2:]):
        raise Refused(Reason.SHIFT_MEETS_PADDING)
    edits = rescaled(conv, WEIGHT, _per_input_channel(scale, shape, groups))
    if not affine.has_shift:
        return edits
    weight = conv.constant(WEIGHT)
    taps = weight.float64() * _per_input_channel(in_type_of(weight, shift), shape, groups)
    return [*edits, *_new_bias(conv, shape[0], np.ones(shape[0]), taps.reshape(shape[0], -1).sum(axis=1))]


def is_padded(op: Op, kernel: Sequence[int]) -> bool:
    """Whether a window can reach beyond the input. ``kernel`` is the window's size on the spatial axes."""
    auto_pad = op.attribute("auto_pad", b"NOTSET")
    if auto_pad in (b"NOTSET", b""):
        return any(op.attribute("pads", ()))
    return bool(auto_pad != b"VALID" and any(size != 1 for size in kernel))


def _per_input_channel(vector: FloatArray, shape: Sequence[int], groups: int) -> FloatArray:
    """The value for each W[o, i]: the input channels of o's group."""
    rows = np.repeat(vector.reshape(groups, shape[1]), shape[0] // groups, axis=0)
    return rows.reshape(shape[0], shape[1], *[1] * (len(shape) - 2))


# --- DeformConv: a Conv of which the taps move; beyond the border they read zero ------------------------------

_BIAS_OF_DEFORMED = 3


def deform_conv_absorbs_output(conv: Op, affine: Affine) -> Edits:
    """As Conv."""
    return _into_filters(conv, affine, _BIAS_OF_DEFORMED)


def deform_conv_absorbs_input(conv: Op, index: int, affine: Affine) -> Edits:
    """As Conv for the scale; a shift would be missing beyond the border."""
    if affine.has_shift:
        raise Refused(Reason.SHIFT_MEETS_PADDING)
    return conv_absorbs_input(conv, index, affine)


# --- ConvTranspose: W is [I, O/groups, *kernel] --------------------------------------------------------------


def conv_transpose_absorbs_output(conv: Op, affine: Affine) -> Edits:
    """As Conv; the output channel of W[i, j] is (i // (I/groups)) * (O/groups) + j."""
    shape = _kernel_shape(conv, affine)
    groups = conv.attribute("group", 1)
    channels = shape[1] * groups
    scale, shift = along(conv, affine, CHANNELS, channels)
    factor = np.repeat(scale.reshape(groups, shape[1]), shape[0] // groups, axis=0)
    factor = factor.reshape(shape[0], shape[1], *[1] * (len(shape) - 2))
    return [*rescaled(conv, WEIGHT, factor), *_new_bias(conv, channels, scale, shift)]


def conv_transpose_absorbs_input(conv: Op, index: int, affine: Affine) -> Edits:
    """As Conv for the scale; a shift only where each output reads exactly one position."""
    shape = _kernel_shape(conv, affine)
    groups = conv.attribute("group", 1)
    scale, shift = along(conv, affine, CHANNELS, shape[0])
    edits = rescaled(conv, WEIGHT, scale.reshape(-1, *[1] * (len(shape) - 1)))
    if not affine.has_shift:
        return edits
    if not _reads_one_position(conv, shape[2:]):
        raise Refused(Reason.SHIFT_MEETS_PADDING)
    weight = conv.constant(WEIGHT)
    taps = weight.float64().reshape(groups, shape[0] // groups, shape[1])
    added = (taps * in_type_of(weight, shift).reshape(groups, -1, 1)).sum(axis=1).reshape(-1)
    return [*edits, *_new_bias(conv, added.size, np.ones(added.size), added)]


def _reads_one_position(conv: Op, kernel: Sequence[int]) -> bool:
    special = conv.attribute("pads", ()), conv.attribute("output_padding", ()), conv.attribute("output_shape", ())
    return (
        all(size == 1 for size in kernel)
        and all(stride == 1 for stride in conv.attribute("strides", ()))
        and not any(any(sizes) for sizes in special)
    )


# --- Gemm: alpha * A' * B' + beta * C ------------------------------------------------------------------------

LEFT, RIGHT, ADDEND = 0, 1, 2
_ADDEND_IS_OPTIONAL_FROM = 11
_BROADCAST_IS_NUMPYS_FROM = 7


def gemm_absorbs_output(gemm: Op, affine: Affine) -> Edits:
    """s(alpha A·B + beta C) + t  =  alpha A·(Bs) + (s beta C + t); a scale of rows goes into a constant A"""
    refuse_rank_other_than(gemm, affine, 2)
    edits: list[Edit] = []
    if affine.has_scale:
        of_rows = affine.scale.shape[0] > 1 or (affine.scale.size == 1 and _only_left_is_constant(gemm))
        side, axis, flag = (LEFT, 0, "transA") if of_rows else (RIGHT, 1, "transB")
        weight_axis = 1 - axis if gemm.attribute(flag, 0) else axis
        scale, _ = along(gemm, affine.only_scale(), axis, gemm.constant(side).shape[weight_axis])
        edits += rescaled(gemm, side, scale.reshape(-1, 1) if weight_axis == 0 else scale.reshape(1, -1))
    return edits + new_addend(gemm, affine)


def gemm_absorbs_input(gemm: Op, index: int, affine: Affine) -> Edits:
    """Alpha (xs + t)·B + beta C  =  alpha x·(sB) + (beta C + alpha t·B); the same from the right for a constant A"""
    refuse_rank_other_than(gemm, affine, 2)
    own, other = ("transA", "transB") if index == LEFT else ("transB", "transA")
    side = RIGHT if index == LEFT else LEFT
    weight = gemm.constant(side)
    matrix_shape = weight.shape[::-1] if gemm.attribute(other, 0) else weight.shape
    summed_axis = (0 if gemm.attribute(own, 0) else 1) if index == LEFT else (1 if gemm.attribute(own, 0) else 0)
    size = matrix_shape[0] if index == LEFT else matrix_shape[1]
    scale, shift = along(gemm, affine, summed_axis, size)
    column = index == LEFT  # the factor of B' is a column, that of A' a row
    if gemm.attribute(other, 0):
        column = not column
    edits: list[Edit] = list(rescaled(gemm, side, scale.reshape(-1, 1) if column else scale.reshape(1, -1)))
    if not affine.has_shift:
        return edits
    matrix = weight.float64().T if gemm.attribute(other, 0) else weight.float64()
    shift = in_type_of(weight, shift)
    added = (shift @ matrix).reshape(1, -1) if index == LEFT else (matrix @ shift).reshape(-1, 1)
    return edits + new_addend(gemm, Affine(np.ones((1, 1)), gemm.attribute("alpha", 1.0) * added))


def new_addend(gemm: Op, affine: Affine) -> list[Edit]:
    """C' = s (beta C) + t, and beta = 1."""
    beta = gemm.attribute("beta", 1.0)
    present = gemm.input(ADDEND) is not None and beta != 0
    if not present and not affine.has_shift:
        return []
    if not present:
        dtype = operands_type(gemm)
        addend = affine.shift
    else:
        constant = gemm.constant(ADDEND)
        refuse_spread(gemm.type, constant.shape, affine.shape)
        dtype = constant.dtype
        addend = affine.scale * (beta * constant.float64()) + affine.shift
    edits: list[Edit] = [Assign(gemm, ADDEND, Exact(_flat_if_row(addend), dtype))]
    if beta != 1:
        edits.append(SetAttribute(gemm, "beta", None))
    if gemm.opset < _BROADCAST_IS_NUMPYS_FROM:
        edits.append(SetAttribute(gemm, "broadcast", 1))
    return edits


def _flat_if_row(addend: FloatArray) -> FloatArray:
    """A row [1, N] as a vector [N], the usual form of a bias."""
    return addend.reshape(-1) if addend.ndim == 2 and addend.shape[0] == 1 else addend


# --- MatMul --------------------------------------------------------------------------------------------------


def matmul_absorbs_output(matmul: Op, affine: Affine) -> Edits:
    """s(X·W) + t  =  X·(Ws) + t: columns of a constant right operand, rows of a constant left one"""
    edits: list[Edit] = []
    if affine.has_scale:
        of_rows = affine.scale.ndim > 1 and affine.scale.shape[-2] > 1
        side = LEFT if of_rows or (affine.scale.size == 1 and _only_left_is_constant(matmul)) else RIGHT
        weight = matmul.constant(side)
        edits += rescaled(matmul, side, _fitted(matmul, affine.scale, weight, summed=-1 if side == LEFT else -2))
    return edits + (shift_behind(matmul, affine.shift) if affine.has_shift else [])


def matmul_absorbs_input(matmul: Op, index: int, affine: Affine) -> Edits:
    """(xs + t)·W  =  x·(sW) + t·W, and the same from the right for a constant left operand"""
    side, summed = (RIGHT, -1) if index == LEFT else (LEFT, -2)
    weight = matmul.constant(side)
    if len(weight.shape) < 2 or affine.rank < 2:
        raise Refused(Reason.UNSUPPORTED, op_type=matmul.type, detail="an operand of rank 1")
    size = weight.shape[-2] if index == LEFT else weight.shape[-1]
    scale, shift = along(matmul, affine, summed, size)
    factor = scale.reshape(-1, 1) if index == LEFT else scale.reshape(1, -1)
    edits: list[Edit] = list(rescaled(matmul, side, factor))
    if not affine.has_shift:
        return edits
    values, shift = weight.float64(), in_type_of(weight, shift)
    added = shift[None, :] @ values if index == LEFT else values @ shift[:, None]
    return edits + _shift_into_reader(matmul, added)


def _fitted(op: Op, factor: FloatArray, weight: Constant, summed: int) -> FloatArray:
    """The factor as it lies on the weight: the axes of the result that the weight has, the summed one left out."""
    rank = len(weight.shape)
    if rank < 2 or factor.ndim < 2:
        raise Refused(Reason.UNSUPPORTED, op_type=op.type, detail="an operand of rank 1")
    extra = factor.ndim - rank
    if extra > 0 and any(size != 1 for size in factor.shape[:extra]):
        raise Refused(Reason.WRONG_AXIS, axes=list(range(extra)), op_type=op.type, expected="an axis of the weight")
    fitted = factor.reshape(factor.shape[extra:]) if extra > 0 else factor
    grows = [size not in (1, own) for size, own in zip(fitted.shape[::-1], weight.shape[::-1], strict=False)]
    if fitted.shape[summed] != 1 or any(grows):
        raise Refused(
            Reason.WRONG_AXIS,
            axes=sorted(np.flatnonzero(np.array(factor.shape) > 1).tolist()),
            op_type=op.type,
            expected="an axis of the weight",
        )
    return fitted


def shift_behind(matmul: Op, shift: FloatArray) -> list[Edit]:
    """The shift of a MatMul's result: a Gemm's addend where both operands are matrices, else an Add behind it."""
    dtype = operands_type(matmul)
    if all(len(matmul.shape(side)) == 2 for side in (LEFT, RIGHT)) and matmul.opset >= _ADDEND_IS_OPTIONAL_FROM:
        return [Retype(matmul, "Gemm"), Assign(matmul, ADDEND, Exact(_flat_if_row(shift), dtype))]
    if matmul.opset < _BROADCAST_IS_NUMPYS_FROM:
        raise Refused(Reason.UNSUPPORTED, op_type=matmul.type, detail=f"a shift at opset {matmul.opset}")
    return [AddBehind(matmul, Exact(_trimmed(shift), dtype))]


def _shift_into_reader(matmul: Op, shift: FloatArray) -> list[Edit]:
    """The same for a shift from the input side, which an Add of a constant behind the MatMul can take in."""
    result = matmul.output
    readers = list(result.readers)
    if len(readers) == 1 and readers[0].op.type == "Add" and not result.is_output:
        add, index = readers[0]
        constant = matmul.graph.constant(add.data(1 - index))
        if constant is not None and not add.is_kept and add.opset >= _BROADCAST_IS_NUMPYS_FROM:
            sum_ = constant.float64() + _trimmed(shift)
            return [Moved(result), Assign(add, 1 - index, Exact(sum_, constant.dtype))]
    return shift_behind(matmul, shift)


def _trimmed(array: FloatArray) -> FloatArray:
    """Without leading axes of size 1, which broadcasting brings back."""
    leading = next((axis for axis, size in enumerate(array.shape[:-1]) if size != 1), array.ndim - 1)
    return array.reshape(array.shape[leading:])


def _only_left_is_constant(op: Op) -> bool:
    left, right = (op.graph.constant(op.data(side)) for side in (LEFT, RIGHT))
    return left is not None and right is None


# --- shared --------------------------------------------------------------------------------------------------


def _kernel_shape(conv: Op, affine: Affine) -> tuple[int, ...]:
    shape = static(conv, WEIGHT)
    refuse_rank_other_than(conv, affine, len(shape))
    return shape


def rescaled(op: Op, index: int, factor: FloatArray) -> list[Edit]:
    """A weight times a factor; nothing where the factor is 1."""
    if (factor == 1).all():
        return []
    return [Assign(op, index, Scaled(op.constant(index), factor))]


def _new_bias(conv: Op, channels: int, scale: FloatArray, shift: FloatArray, index: int = BIAS) -> list[Edit]:
    """B' = s b + t; no bias is made where there was none and none is needed."""
    bias = conv.optional_constant(index)
    if bias is None:
        return [Assign(conv, index, Exact(shift.copy(), operands_type(conv)))] if shift.any() else []
    if bias.shape != (channels,):
        raise Refused(Reason.WRONG_SIZE, value=conv.data(index).name, size=f"shape {bias.shape}", expected=channels)
    if (scale == 1).all() and not shift.any():
        return []
    return [Assign(conv, index, Exact(scale * bias.float64() + shift, bias.dtype))]


RULES = {
    "Conv": OpRule(absorb_output=conv_absorbs_output, absorb_input=conv_absorbs_input, data_inputs=(0,)),
    "ConvTranspose": OpRule(
        absorb_output=conv_transpose_absorbs_output, absorb_input=conv_transpose_absorbs_input, data_inputs=(0,)
    ),
    "DeformConv": OpRule(
        absorb_output=deform_conv_absorbs_output, absorb_input=deform_conv_absorbs_input, data_inputs=(0,)
    ),
    "Gemm": OpRule(absorb_output=gemm_absorbs_output, absorb_input=gemm_absorbs_input, data_inputs=(LEFT, RIGHT)),
    "MatMul": OpRule(absorb_output=matmul_absorbs_output, absorb_input=matmul_absorbs_input),
}
