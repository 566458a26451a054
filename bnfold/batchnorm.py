"""BatchNormalization, read from a node of any opset. Nothing else in bnfold looks into one.

An inference-mode BatchNormalization is, along axis 1 of its input (Ioffe & Szegedy 2015, Algorithm 2):

    scale = gamma / sqrt(var + epsilon)        shift = beta - mean * scale
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from bnfold.affine import WIDE, Affine, FloatArray
from bnfold.graph import Op, evaluate
from bnfold.reasons import Reason, Refused

GAMMA, BETA, MEAN, VAR = 1, 2, 3, 4
CHANNEL_AXIS = 1
_DEFAULT_EPSILON = float(np.float32(1e-5))  # attributes are float32; the double 1e-5 is another number
_MOST_CHANNELS = 1 << 22  # a model can ask for a constant that takes minutes to make


@dataclass(frozen=True, eq=False)
class BatchNorm:
    """The parameters of an inference-mode BatchNormalization: vectors of C float64 values, and epsilon."""

    gamma: FloatArray
    beta: FloatArray
    mean: FloatArray
    var: FloatArray
    epsilon: float

    @property
    def scale(self) -> FloatArray:
        """What it multiplies its channels by; only where variance + epsilon is positive."""
        return np.asarray(self.gamma / np.sqrt(self.var.astype(WIDE) + self.epsilon))

    def affine(self, rank: int) -> Affine:
        """What it computes, for an input of ``rank`` axes.

        Raises:
            Refused: variance + epsilon is not positive somewhere.
        """
        positive = self.var.astype(WIDE) + self.epsilon
        if bad := int(np.count_nonzero(~(positive > 0))):
            raise Refused(Reason.VARIANCE_NOT_POSITIVE, count=bad, channels=positive.size)
        return Affine.along(CHANNEL_AXIS, rank, self.scale, self.beta - self.mean * self.scale)


def is_batchnorm(op: Op) -> bool:
    return op.type == "BatchNormalization"


is_training = evaluate.is_training


def epsilon(op: Op) -> float:
    """The node's epsilon, exactly as the float32 attribute holds it."""
    return float(op.attribute("epsilon", _DEFAULT_EPSILON))


def is_per_position(op: Op) -> bool:
    """Whether ``spatial = 0`` gives each position parameters of its own.

    MXNet's exporter writes it beside one number per channel, which has one reading alone: that of ``spatial = 1``.
    """
    return not op.attribute("spatial", 1) and len(op.constant(GAMMA).shape) != 1


def read(op: Op) -> BatchNorm:
    """The parameters of an inference-mode node.

    Raises:
        Refused: training mode, parameters for each position, or some that are not constant, not finite or not C long.
    """
    if is_training(op):
        raise Refused(Reason.TRAINING_MODE)
    if any(value is not None and (value.readers or value.is_output) for value in op.outputs[1:]):
        raise Refused(Reason.EXTRA_OUTPUTS)
    if is_per_position(op):
        raise Refused(Reason.SPATIAL_ZERO)
    gamma, beta, mean, var = (_vector(op, index) for index in (GAMMA, BETA, MEAN, VAR))
    for index, vector in ((BETA, beta), (MEAN, mean), (VAR, var)):
        if vector.size != gamma.size:
            raise Refused(Reason.WRONG_SIZE, value=op.data(index).name, size=vector.size, expected=gamma.size)
    return BatchNorm(gamma, beta, mean, var, epsilon(op))


def _vector(op: Op, index: int) -> FloatArray:
    constant = op.constant(index)
    if len(constant.shape) != 1 or constant.shape[0] > _MOST_CHANNELS:
        raise Refused(Reason.WRONG_SIZE, value=op.data(index).name, size=f"shape {constant.shape}", expected="[C]")
    vector = constant.float64()
    if not np.isfinite(vector).all():
        raise Refused(Reason.NOT_FINITE, value=op.data(index).name)
    return vector
