"""Normalizations: a BatchNormalization is an affine itself, and every one with a scale of its own can absorb another."""

from __future__ import annotations

import numpy as np

from bnfold import batchnorm
from bnfold.affine import Affine, FloatArray
from bnfold.batchnorm import BETA, CHANNEL_AXIS, GAMMA
from bnfold.graph import Op
from bnfold.ops.rule import Assign, Edits, OpRule, along
from bnfold.ops.weights import Exact
from bnfold.reasons import Reason, Refused


def batchnorm_affine(op: Op) -> tuple[int, Affine]:
    """Scale = gamma / sqrt(var + epsilon), shift = beta - mean * scale"""
    parameters = batchnorm.read(op)
    shape = op.shape(0)
    if len(shape) < 2:
        raise Refused(Reason.UNSUPPORTED, op_type=op.type, detail=f"an input of rank {len(shape)}")
    channels = shape[CHANNEL_AXIS]
    if isinstance(channels, int) and channels != parameters.gamma.size:
        raise Refused(Reason.WRONG_SIZE, value=op.data(GAMMA).name, size=parameters.gamma.size, expected=channels)
    return 0, parameters.affine(len(shape))


def batchnorm_absorbs_output(op: Op, affine: Affine) -> Edits:
    """S BN(x) + t: gamma' = s gamma, beta' = s beta + t"""
    norm = batchnorm.read(op)
    scale, shift = along(op, affine, CHANNEL_AXIS, norm.gamma.size)
    return _new_parameters(op, scale * norm.gamma, scale * norm.beta + shift)


def batchnorm_absorbs_input(op: Op, index: int, affine: Affine) -> Edits:
    """BN(s x + t): gamma' = s gamma, beta' = beta + g (t - mean + s mean) with g = gamma / sqrt(var + epsilon)"""
    if index != 0:
        raise Refused(Reason.NO_RULE, op_type=f"input {index} of {op.type}")
    norm = batchnorm.read(op)
    scale, shift = along(op, affine, CHANNEL_AXIS, norm.gamma.size)
    own, _ = along(op, norm.affine(affine.rank), CHANNEL_AXIS, norm.gamma.size)
    return _new_parameters(op, scale * norm.gamma, norm.beta + own * (shift - norm.mean + scale * norm.mean))


def _new_parameters(op: Op, gamma: FloatArray, beta: FloatArray) -> Edits:
    return [
        Assign(op, index, Exact(np.asarray(values), op.constant(index).dtype))
        for index, values in ((GAMMA, gamma), (BETA, beta))
    ]


RULES: dict[str, OpRule] = {
    "BatchNormalization": OpRule(
        affine=batchnorm_affine,
        absorb_output=batchnorm_absorbs_output,
        absorb_input=batchnorm_absorbs_input,
    ),
}
