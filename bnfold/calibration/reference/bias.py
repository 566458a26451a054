"""What a layer adds to its channels, and what it can be made to add: the grid that a bias is stored on.

A float is rounded to its type. An int32 is a multiple of its step, scale_x * scale_w: that of an operator on integers,
and what a DequantizeLinear takes for one.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from bnfold import batchnorm
from bnfold.affine import FloatArray
from bnfold.calibration.reference.forms import W_SCALE, WITHOUT_BIAS, Kind, Unfit, sole_reader
from bnfold.calibration.reference.layers import Layer, along
from bnfold.graph import Constant, Dequantized, Op, Quantized, is_dequantize
from bnfold.rounding import rounded

X_SCALE = 1  # of operators on integers
_VECTORS_FROM = 13  # scales of a DequantizeLinear
_INT32 = np.dtype(np.int32)
_SAME_STEP = 1e-4  # of steps that were multiplied in float32


@dataclass(frozen=True, eq=False)
class Bias:
    """What is added to each channel.

    Attributes:
        op: whose constant it is.
        index: the input.
        values: float64 `[C]`.
        dtype: that they are stored in.
        step: float64 `[C]`, of the grid; None for floats.
        factor: what the stored values are multiplied by: beta of a Gemm.
    """

    op: Op
    index: int
    values: FloatArray
    dtype: np.dtype[Any]
    step: FloatArray | None = None
    factor: float = 1.0

    def after(self, scale: FloatArray, shift: FloatArray) -> FloatArray:
        """What it would be stored as, were the output y scaled and shifted: scale * y + shift."""
        values = (scale * self.values + shift) / self.factor
        if self.step is None:
            return rounded(values, self.dtype).astype(np.float64)
        limits = np.iinfo(np.int32)
        return np.clip(np.rint(values / (self.step * scale)), limits.min, limits.max)

    def shift_of(self, scale: FloatArray, stored: FloatArray) -> FloatArray:
        """The shift that some stored values come to."""
        unit = self.factor if self.step is None else self.step * scale
        return np.asarray(stored * unit - scale * self.values)


def bias_of(layer: Layer, depth: int) -> Bias:
    """What is added last, behind the first steps of a layer.

    Raises:
        Unfit, Refused: it is computed, or on a grid of another kind.
    """
    if depth:
        return _of_step(layer, depth)
    if layer.form.result is not None:
        return _of_integers(layer)
    if layer.form.bias is None:
        return _none_yet(layer)
    if layer.op.input(layer.form.bias) is None:
        return _none_yet(layer)
    return _of_input(layer, layer.form.bias)


def added(layer: Layer, depth: int) -> FloatArray:
    """What a layer adds to each channel, behind its first steps, all together."""
    has_own = layer.form.bias is not None and layer.op.input(layer.form.bias) is not None
    result = bias_of(layer, 0).values if has_own else np.zeros(layer.channels)
    for step in layer.steps[:depth]:
        result = result * step.scale + step.shift
    return result


def _of_step(layer: Layer, depth: int) -> Bias:
    step = layer.steps[depth - 1]
    if batchnorm.is_batchnorm(step.op):
        beta = step.op.constant(batchnorm.BETA)
        return Bias(step.op, batchnorm.BETA, beta.float64(), beta.dtype)
    index = next(index for index, value in enumerate(step.op.inputs) if value and step.op.graph.constant(value))
    return Bias(step.op, index, step.shift, step.op.constant(index).dtype)


def _of_input(layer: Layer, index: int) -> Bias:
    op = layer.op
    constant = op.constant(index)
    factor = float(op.attribute("beta", 1.0)) if op.type == "Gemm" else 1.0
    values = along(constant, layer) if op.type == "Gemm" else constant.float64().reshape(-1)
    if values is None or values.size != layer.channels or not factor:
        raise Unfit("has a bias that is not one number for each channel")
    if not isinstance(constant, Dequantized | Quantized):
        return Bias(op, index, values * factor, constant.dtype, factor=factor)
    step = _step(constant, layer) if op.data(index).producer is not None else None
    if step is None or factor != 1 or not is_dequantize(_maker(op, index)) or sole_reader(op.data(index)) is None:
        raise Unfit("has a bias that is quantized, but not to int32 of its own")
    implied = _implied(layer, layer.op.constant(layer.form.weight))
    if implied is not None and not np.allclose(step, implied, rtol=_SAME_STEP, atol=0):
        raise Unfit("has a bias whose step is not scale_x * scale_w, which runtimes take it for")
    return Bias(op, index, values, _INT32, step)


def _step(constant: Constant, layer: Layer) -> FloatArray | None:
    """The step of an int32 bias; None if it is another."""
    if not isinstance(constant, Dequantized) or constant.stored.dtype != np.int32 or constant.grid.block:
        return None
    if constant.grid.zero_points.any():
        return None
    return np.broadcast_to(constant.grid.scales.reshape(-1), layer.channels).astype(np.float64)


def _maker(op: Op, index: int) -> Op:
    producer = op.data(index).producer
    assert producer is not None
    return producer


def _of_integers(layer: Layer) -> Bias:
    """Of an operator on integers: the step is implied."""
    op = layer.op
    scale = op.constant(X_SCALE).float64().reshape(-1) * op.constant(W_SCALE).float64().reshape(-1)
    scale = scale * float(op.attribute("alpha", 1.0))  # of a Gemm
    step = np.broadcast_to(scale, layer.channels).astype(np.float64)
    assert layer.form.bias is not None
    constant = op.optional_constant(layer.form.bias)
    stored = np.zeros(layer.channels) if constant is None else constant.float64().reshape(-1)
    return Bias(op, layer.form.bias, stored * step, _INT32, step)


def _none_yet(layer: Layer) -> Bias:
    """Of a layer without one: an input that is free; of a MatMul an Add that is still to be made (index -1).

    Raises:
        Unfit: an Add would take a MatMul out of its integer kernel.
    """
    zeros = np.zeros(layer.channels)
    weight = layer.op.constant(layer.form.weight)
    if layer.form.bias is None:
        if isinstance(weight, Dequantized):
            raise Unfit(WITHOUT_BIAS)
        return Bias(layer.op, -1, zeros, layer.dtype)
    step = _implied(layer, weight)
    factor = float(layer.op.attribute("beta", 1.0)) if layer.op.type == "Gemm" else 1.0
    if not factor or (step is not None and factor != 1):
        raise Unfit(f"is a Gemm with a beta of {factor:g}")
    dtype = weight.dtype if step is None else _INT32
    return Bias(layer.op, layer.form.bias, zeros, dtype, step, factor)


def _implied(layer: Layer, weight: Constant) -> FloatArray | None:
    """scale_x * scale_w, where both are dequantized: the step of the bias that integer kernels take."""
    producer = layer.op.data(0).producer
    if not isinstance(weight, Dequantized) or producer is None or not is_dequantize(producer):
        return None
    scale = producer.constant(1).float64()
    if scale.size != 1 or weight.grid.block or producer.opset < _VECTORS_FROM or layer.form.kind is Kind.TRANSPOSED:
        return None
    return np.broadcast_to(scale.reshape(-1) * weight.grid.scales.reshape(-1), layer.channels).astype(np.float64)
