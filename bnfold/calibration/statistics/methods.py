"""Population statistics from the statistics of batches (Ioffe & Szegedy 2015, and what frameworks made of it).

For the batches B of a BatchNormalization, with m_B = N·H·W values per channel, mean mu_B and biased variance var_B:

    paper     E[x] = E_B[mu_B]      Var[x] = m/(m-1) * E_B[var_B]                    (Algorithm 2)
    pooled    E[x] = E_B[mu_B]      Var[x] = E_B[var_B] + Var_B[mu_B]
    ema       running = momentum * running + (1 - momentum) * batch                  (after each batch, in order)

E_B weights a batch by its size, so that a short last batch does not count like a full one. `sequential` is none of
these: it measures the population itself, see sequential.py.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from typing import Protocol

import numpy as np

from bnfold.affine import FloatArray
from bnfold.calibration.error import CalibrationError
from bnfold.calibration.statistics.moments import Statistics


class Method(Enum):
    """How population statistics are found, or matched. The values are what `--method` takes."""

    SEQUENTIAL = "sequential"
    PAPER = "paper"
    POOLED = "pooled"
    EMA = "ema"
    MEAN = "mean"  # these two match those of a reference
    MEAN_VARIANCE = "mean-variance"


class Estimator(Protocol):
    """Takes the statistics of batches, in order."""

    def add(self, count: int, mean: FloatArray, var: FloatArray) -> None:
        """A batch of `count` values per channel, with the biased variance."""

    def mean_and_var(self, together: Statistics) -> tuple[FloatArray, FloatArray]:
        """What a BatchNormalization should hold, given the statistics of all values of all batches together."""


class Paper:
    """Algorithm 2. The variance is sum m·var_B / sum (m - 1): Bessel's correction for batches of any sizes."""

    def __init__(self, channels: int) -> None:
        self._squares = np.zeros(channels)
        self._freedom = 0

    def add(self, count: int, mean: FloatArray, var: FloatArray) -> None:  # noqa: ARG002 -- E_B[mu_B] is their mean
        self._squares += count * var
        self._freedom += count - 1

    def mean_and_var(self, together: Statistics) -> tuple[FloatArray, FloatArray]:
        if not self._freedom:
            raise CalibrationError(f"{_ONE_VALUE}, and m/(m-1) is not defined: {_MORE_ROWS}")
        return together.mean, self._squares / self._freedom


class Pooled:
    """The variance of all values of all batches together."""

    def __init__(self, channels: int) -> None:  # noqa: ARG002 -- what it needs of them is kept for the errors anyway
        self._largest = 0

    def add(self, count: int, mean: FloatArray, var: FloatArray) -> None:  # noqa: ARG002
        self._largest = max(self._largest, count)

    def mean_and_var(self, together: Statistics) -> tuple[FloatArray, FloatArray]:
        if self._largest < 2:
            raise CalibrationError(f"{_ONE_VALUE} in every batch, which normalises it away: {_MORE_ROWS}")
        return together.mean, together.var


@dataclass
class Ema:
    """The moving average of training frameworks, from a start that it has to forget first.

    Attributes:
        momentum: in ONNX's, Keras' and TensorFlow's (`decay`) sense: the share of the old value. PyTorch's is
            1 minus this.
        mean: where it starts.
        var: where it starts.
        unbiased: take m/(m-1)·var_B, as PyTorch and TensorFlow's fused kernel do; ONNX and Keras take var_B.
    """

    momentum: float
    mean: FloatArray
    var: FloatArray
    unbiased: bool = False

    def add(self, count: int, mean: FloatArray, var: FloatArray) -> None:
        if count < 2:
            raise CalibrationError(f"{_ONE_VALUE} in a batch, so it has no variance: {_MORE_ROWS}")
        if self.unbiased:
            var = var * (count / (count - 1))
        self.mean = self.momentum * self.mean + (1 - self.momentum) * mean
        self.var = self.momentum * self.var + (1 - self.momentum) * var

    def mean_and_var(self, together: Statistics) -> tuple[FloatArray, FloatArray]:  # noqa: ARG002 -- order matters here
        return self.mean, self.var


MATCHING = (Method.MEAN, Method.MEAN_VARIANCE)
BATCH_METHODS: dict[Method, Callable[[int], Estimator]] = {Method.PAPER: Paper, Method.POOLED: Pooled}

_ONE_VALUE = "there is one value per channel"
_MORE_ROWS = "take a batch size of 2 or more, or the method sequential"
