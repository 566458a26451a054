"""Normalizations: a BatchNormalization is an affine itself, and every one with a scale of its own can absorb another.

The others compute ``scale * (x - mean) / sqrt(var + epsilon) + bias`` from the mean and variance of ``x`` itself. A
shift of all values that one mean is taken of is gone with the mean. A scale is not gone, because of epsilon, but one
number ``s`` for all values can go into it: ``s x / sqrt(s² var + epsilon) = x / sqrt(var + epsilon / s²)``.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from bnfold import batchnorm
from bnfold.affine import WIDE, Affine, FloatArray
from bnfold.batchnorm import BETA, CHANNEL_AXIS, GAMMA
from bnfold.graph import Op
from bnfold.ops.rule import (
    Assign,
    Edit,
    Edits,
    Omit,
    OpRule,
    SetAttribute,
    along,
    refuse_along,
    refuse_shift,
    refuse_unless_positive,
)
from bnfold.ops.weights import Exact
from bnfold.reasons import Reason, Refused


def batchnorm_affine(op: Op) -> tuple[int, Affine]:
    """BN(x) = g x + (beta - mean g) with g = gamma / sqrt(var + epsilon)"""
    parameters = batchnorm.read(op)
    shape = op.graph.at_least_shape(op.data())
    if len(shape) < 2:
        raise Refused(Reason.UNSUPPORTED, op_type=op.type, detail=f"an input of rank {len(shape)}")
    channels = shape[CHANNEL_AXIS]
    if isinstance(channels, int) and channels != parameters.gamma.size:
        raise Refused(Reason.WRONG_SIZE, value=op.data(GAMMA).name, size=parameters.gamma.size, expected=channels)
    return 0, parameters.affine(len(shape))


def batchnorm_absorbs_output(op: Op, affine: Affine) -> Edits:
    """A(BN(x)): gamma' = s gamma, beta' = s beta + t"""
    norm = batchnorm.read(op)
    scale, shift = along(op, affine, CHANNEL_AXIS, norm.gamma.size)
    return _new_parameters(op, scale * norm.gamma, scale * norm.beta + shift)


def batchnorm_absorbs_input(op: Op, index: int, affine: Affine) -> Edits:
    """BN(s x + t): gamma' = s gamma, beta' = beta + g (t - mean + s mean) with g = gamma / sqrt(var + epsilon)"""
    norm = batchnorm.read(op)
    scale, shift = along(op, affine, CHANNEL_AXIS, norm.gamma.size)
    own, _ = along(op, norm.affine(affine.rank), CHANNEL_AXIS, norm.gamma.size)
    return _new_parameters(op, scale * norm.gamma, norm.beta + own * (shift - norm.mean + scale * norm.mean))


def _new_parameters(op: Op, gamma: FloatArray, beta: FloatArray) -> Edits:
    return [
        Assign(op, index, Exact(np.asarray(values), op.constant(index).dtype, multiplies=index == GAMMA))
        for index, values in ((GAMMA, gamma), (BETA, beta))
    ]


# --- InstanceNormalization, GroupNormalization: parameters are vectors along the channels ---------------------

_SCALE, _BIAS = 1, 2
_GROUP_PARAMETERS_ARE_PER_CHANNEL_FROM = 21
_BIAS_IS_OPTIONAL = ("LayerNormalization",)
_DEFAULT_EPSILON = float(np.float32(1e-5))


def instance_absorbs_output(op: Op, affine: Affine) -> Edits:
    """A(IN(x)): scale' = s scale, bias' = s bias + t"""
    scale, shift = along(op, affine, CHANNEL_AXIS, op.constant(_SCALE).shape[0])
    return _scale_and_bias(op, scale, shift)


def group_absorbs_output(op: Op, affine: Affine) -> Edits:
    """A(GN(x)): as above; before opset 21 scale and bias are one number for each group"""
    if op.opset >= _GROUP_PARAMETERS_ARE_PER_CHANNEL_FROM:
        return instance_absorbs_output(op, affine)
    scale, shift = along(op, affine, CHANNEL_AXIS, affine.shape[CHANNEL_AXIS])
    return _scale_and_bias(op, _per_group(op, scale), _per_group(op, shift))


def instance_absorbs_input(op: Op, index: int, affine: Affine) -> Edits:
    """IN(s x + t) = IN'(x), with one s > 0 for all and a t that does not vary on the axes of the mean"""
    _refuse_if_statistics_are_read(op)
    refuse_along(op, affine, range(CHANNEL_AXIS + 1, affine.rank))
    return _new_epsilon(op, affine)


def group_absorbs_input(op: Op, index: int, affine: Affine) -> Edits:
    """GN(s x + t): as above; t may differ between groups"""
    _refuse_if_statistics_are_read(op)
    _, shift = along(op, affine, CHANNEL_AXIS, affine.shape[CHANNEL_AXIS])
    _per_group(op, shift)
    return _new_epsilon(op, affine)


def _per_group(op: Op, vector: FloatArray) -> FloatArray:
    """The one number of each group of channels."""
    if vector.size == 1:
        return vector
    groups = vector.reshape(op.attribute("num_groups"), -1)
    if (groups != groups[:, :1]).any():
        raise Refused(Reason.NOT_UNIFORM, op_type=op.type)
    return groups[:, 0]


# --- LayerNormalization, RMSNormalization: parameters broadcast to the value ----------------------------------


def layer_absorbs_output(op: Op, affine: Affine) -> Edits:
    """A(LN(x)): scale' = s scale, bias' = s bias + t, where A varies on axes that the scale has"""
    _refuse_unless_scale_has(op, affine)
    return _scale_and_bias(op, affine.scale, affine.shift)


def rms_absorbs_output(op: Op, affine: Affine) -> Edits:
    """A(RMS(x)): scale' = s scale"""
    refuse_shift(op, affine)
    return layer_absorbs_output(op, affine)


def layer_absorbs_input(op: Op, index: int, affine: Affine) -> Edits:
    """LN(s x + t) = LN'(x), with one s > 0 for all and a t that does not vary on the axes of the mean"""
    _refuse_if_statistics_are_read(op)
    refuse_along(op, Affine(np.ones_like(affine.shift), affine.shift), range(_first_axis(op, affine), affine.rank))
    return _new_epsilon(op, affine)


def rms_absorbs_input(op: Op, index: int, affine: Affine) -> Edits:
    """RMS(s x) = RMS'(x), with one s > 0 for all; no mean takes a shift away"""
    _refuse_if_statistics_are_read(op)
    refuse_shift(op, affine)
    return _new_epsilon(op, affine)


def _first_axis(op: Op, affine: Affine) -> int:
    return int(op.attribute("axis", -1) % affine.rank)


def _refuse_unless_scale_has(op: Op, affine: Affine) -> None:
    own = op.constant(_SCALE).shape
    own = (1,) * (affine.rank - len(own)) + own
    if len(own) > affine.rank or any(size not in (1, has) for size, has in zip(affine.shape, own, strict=True)):
        raise Refused(Reason.WRONG_AXIS, axes=sorted(affine.axes), op_type=op.type, expected="those of its scale")


# --- the affine that they end with ---------------------------------------------------------------------------


def instance_sheds(op: Op) -> tuple[Affine, Edits]:
    """IN(x) = s IN'(x) + t, where IN' has a scale of 1 and a bias of 0"""
    return _shed(op, _along_channels)


def group_sheds(op: Op) -> tuple[Affine, Edits]:
    """GN(x): as above; before opset 21 a number of a group is that of all its channels"""
    if op.opset >= _GROUP_PARAMETERS_ARE_PER_CHANNEL_FROM:
        return instance_sheds(op)
    channels, groups = op.shape()[CHANNEL_AXIS], op.attribute("num_groups")
    if not isinstance(channels, int):
        raise Refused(Reason.SHAPE_UNKNOWN, value=op.data().name)
    return _shed(op, lambda rank, vector: _along_channels(rank, np.repeat(vector, channels // groups)))


def layer_sheds(op: Op) -> tuple[Affine, Edits]:
    """N(x) = s N'(x) + t, where N' has a scale of 1 and no bias"""
    return _shed(op, lambda rank, array: array.reshape((1,) * (rank - array.ndim) + array.shape))


def _along_channels(rank: int, vector: FloatArray) -> FloatArray:
    return vector.reshape(1, -1, *[1] * (rank - CHANNEL_AXIS - 1))


def _shed(op: Op, placed: Callable[[int, FloatArray], FloatArray]) -> tuple[Affine, Edits]:
    """The affine of scale and bias, each placed on a value of some rank, and the edits that take both off."""
    rank = len(op.graph.at_least_shape(op.data()))
    scale, bias = op.constant(_SCALE), op.optional_constant(_BIAS)
    edits: list[Edit] = [Assign(op, _SCALE, Exact(np.ones(scale.shape), scale.dtype, multiplies=True))]
    shift: FloatArray = np.zeros(scale.shape)
    if bias is not None:
        shift = bias.float64()
        is_optional = op.type in _BIAS_IS_OPTIONAL
        edits.append(Omit(op, _BIAS) if is_optional else Assign(op, _BIAS, Exact(np.zeros(bias.shape), bias.dtype)))
    for index, values in ((_SCALE, scale.float64()), (_BIAS, shift)):
        if not np.isfinite(values).all():
            raise Refused(Reason.NOT_FINITE, value=op.data(index).name)
    return Affine(*(placed(rank, values.astype(WIDE)) for values in (scale.float64(), shift))), edits


# --- what they share -----------------------------------------------------------------------------------------


def _scale_and_bias(op: Op, scale: FloatArray, shift: FloatArray) -> Edits:
    """(s scale, s bias + t); a bias is made where there is none and one is needed."""
    own = op.constant(_SCALE)
    edits: list[Edit] = []
    if (scale != 1).any():
        values = _fitted(scale * own.float64(), own.shape)
        edits.append(Assign(op, _SCALE, Exact(values, own.dtype, multiplies=True)))
    bias = op.optional_constant(_BIAS)
    if bias is None and not shift.any():
        return edits
    before, dtype = (np.zeros(own.shape), own.dtype) if bias is None else (bias.float64(), bias.dtype)
    after = _fitted(scale * before + shift, np.broadcast_shapes(before.shape, own.shape))
    return [*edits, Assign(op, _BIAS, Exact(after, dtype))]


def _fitted(array: FloatArray, shape: tuple[int, ...]) -> FloatArray:
    """The array in the shape of a parameter, whose rank may be smaller than the value's."""
    extra = max(array.ndim - len(shape), 0)
    return np.array(np.broadcast_to(array.reshape(array.shape[extra:]), shape))


def _refuse_if_statistics_are_read(op: Op) -> None:
    if any(value is not None and (value.readers or value.is_output) for value in op.outputs[1:]):
        raise Refused(Reason.UNSUPPORTED, op_type=op.type, detail="its statistics are read")


def _new_epsilon(op: Op, affine: Affine) -> Edits:
    """(epsilon / s²); a shift needs no edit"""
    refuse_unless_positive(affine)
    scale = affine.scale.flat[0]
    if (affine.scale != scale).any():
        raise Refused(Reason.NOT_UNIFORM, op_type=op.type)
    epsilon = float(op.attribute("epsilon", _DEFAULT_EPSILON))
    if scale == 1 or epsilon == 0:
        return []
    new = float(epsilon / scale / scale)
    if not np.finfo(np.float32).tiny <= new <= np.finfo(np.float32).max:
        raise Refused(Reason.UNSUPPORTED, op_type=op.type, detail=f"epsilon {epsilon} would become {new}")
    if op.graph.dtype(op.data()) == np.float64 and float(np.float32(new)) != new:
        raise Refused(Reason.UNSUPPORTED, op_type=op.type, detail="its epsilon is kept in float32")
    return [SetAttribute(op, "epsilon", new)]


_RMS = OpRule(absorb_output=rms_absorbs_output, absorb_input=rms_absorbs_input, sheds=layer_sheds, data_inputs=(0,))
RULES: dict[str, OpRule] = {
    "BatchNormalization": OpRule(
        affine=batchnorm_affine,
        absorb_output=batchnorm_absorbs_output,
        absorb_input=batchnorm_absorbs_input,
        data_inputs=(0,),
    ),
    "InstanceNormalization": OpRule(
        absorb_output=instance_absorbs_output,
        absorb_input=instance_absorbs_input,
        sheds=instance_sheds,
        data_inputs=(0,),
    ),
    "GroupNormalization": OpRule(
        absorb_output=group_absorbs_output,
        absorb_input=group_absorbs_input,
        sheds=group_sheds,
        data_inputs=(0,),
    ),
    "LayerNormalization": OpRule(
        absorb_output=layer_absorbs_output,
        absorb_input=layer_absorbs_input,
        sheds=layer_sheds,
        data_inputs=(0,),
    ),
    "RMSNormalization": _RMS,
    "SimplifiedLayerNormalization": _RMS,  # ONNX Runtime's name for it, in the domain of ONNX
}
