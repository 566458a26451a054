"""Corrections go into a model: a shift into the bias, a scale into the weights, or into the step that they are on.

y' = scale * y + shift:      W' = scale * W,  b' = scale * b + shift            y = W*x + b
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from onnx import helper

from bnfold import batchnorm
from bnfold.affine import FloatArray
from bnfold.calibration.reference.bias import Bias, bias_of
from bnfold.calibration.reference.forms import W_SCALE, W_ZERO_POINT, Kind, sole_reader
from bnfold.calibration.reference.integers import SCALES
from bnfold.calibration.reference.layers import Layer, layer_of
from bnfold.calibration.rewrite import constant, end_dropping, finish, put
from bnfold.graph import Dequantized, Graph, Op, Quantized, is_dequantize
from bnfold.model_io import Model
from bnfold.rounding import rounded

_SCALE, _ZERO_POINT = 1, 2  # of a DequantizeLinear
_VECTORS_FROM = 13


@dataclass(frozen=True, eq=False)
class Correction:
    """What a layer shall make of what it makes: scale * y + shift, as far as its bias can say it."""

    layer: Layer
    depth: int
    scale: FloatArray
    shift: FloatArray
    stored: FloatArray  # the bias, as it is stored


def why_not_scaled(layer: Layer, depth: int) -> str:
    """What keeps a scale out of a layer; empty if nothing does."""
    if depth and batchnorm.is_batchnorm(layer.steps[depth - 1].op):
        return ""
    has_own = layer.form.bias is not None and layer.op.input(layer.form.bias) is not None
    if depth > 1 or (depth and has_own):
        return "constants stand between its weights and its bias"
    if layer.form.is_scaled_behind:
        return "its weights are scaled by what is computed of each input"
    if layer.form.is_packed:
        return ""
    if layer.form.result is not None:
        zero_point = layer.op.optional_constant(W_ZERO_POINT)
        return "" if zero_point is None or not zero_point.float64().any() else "its weights have a zero point"
    weight = layer.op.constant(layer.form.weight)
    return _why_not_on_grid(layer, weight) if isinstance(weight, Dequantized | Quantized) else ""


def _why_not_on_grid(layer: Layer, weight: Dequantized | Quantized) -> str:
    value = layer.op.data(layer.form.weight)
    maker = value.producer
    if maker is None or not is_dequantize(maker) or sole_reader(value) is None or isinstance(weight, Quantized):
        return "its weights are dequantized for others, too, or moved behind that"
    axis_is_channels = weight.grid.axis == layer.weight_axis
    if weight.grid.block:
        return "its steps come in blocks of channels" if axis_is_channels or layer.group > 1 else ""
    if layer.group > 1:
        return "its weights have steps for the channels of a group"
    if weight.grid.scales.size == 1:
        return "" if maker.opset >= _VECTORS_FROM else f"at opset {maker.opset} there is one step for all channels"
    return "" if axis_is_channels else "its steps are not those of its channels"


def with_corrections(model: Model, corrections: Sequence[Correction]) -> Model:
    """A copy of the model with these corrections, every Dropout in inference mode."""
    result = model.copy()
    graph = Graph(result, assume_constant=True)
    for correction in corrections:
        op = graph.main.values[correction.layer.op.output.name].producer
        layer = layer_of(op) if op is not None else None
        assert layer is not None
        bias = bias_of(layer, correction.depth)
        if (correction.scale != 1).any():
            _scale(graph, layer, correction)
        _shift(graph, layer, bias, correction)
    end_dropping(graph)
    finish(graph)
    return result


# --- the bias ------------------------------------------------------------------------------------------------


def _shift(graph: Graph, layer: Layer, bias: Bias, correction: Correction) -> None:
    hint = f"{layer.name}_bias"
    array = rounded(correction.stored, bias.dtype) if bias.step is None else correction.stored.astype(np.int32)
    if bias.index < 0:
        _add(graph, layer, array)
    elif bias.step is not None and layer.form.result is None:
        _put_integers(graph, bias, array, bias.step * correction.scale, hint)
    elif bias.op is layer.op or batchnorm.is_batchnorm(bias.op):
        put(graph, bias.op, bias.index, array, hint)
    else:
        rank = len(layer.shape)
        sizes = (-1,) if layer.form.kind is Kind.DENSE else (-1, *[1] * (rank - 2))
        old = bias.op.constant(bias.index)
        put(graph, bias.op, bias.index, array.reshape(old.shape if array.size == np.prod(old.shape) else sizes), hint)


def _put_integers(graph: Graph, bias: Bias, array: npt.NDArray[Any], step: FloatArray, hint: str) -> None:
    """An int32 bias and its DequantizeLinear."""
    value = bias.op.input(bias.index)
    dequantize = value.producer if value is not None else None
    if dequantize is None:
        _dequantize_bias(graph, bias, array, step, hint)
        return
    old = dequantize.constant(_SCALE).float64().reshape(-1)
    put(graph, dequantize, 0, array, hint)
    if not np.array_equal(np.broadcast_to(old, step.size), step):
        _put_steps(graph, dequantize, step, 0, hint)


def _dequantize_bias(graph: Graph, bias: Bias, array: npt.NDArray[Any], step: FloatArray, hint: str) -> None:
    """Makes both, behind the DequantizeLinear of the weights."""
    weight = bias.op.data(1).producer
    assert weight is not None
    names = [constant(graph, bias.op, hint, part).name for part in (array, step.astype(np.float32))]
    result = graph.fresh_name(f"{hint}_dequantized")
    graph.add_op(weight, helper.make_node("DequantizeLinear", names, [result], axis=0))
    graph.set_input(bias.op, bias.index, graph.main.values[result])


def _add(graph: Graph, layer: Layer, array: npt.NDArray[Any]) -> None:
    """An Add behind a product, which makes its output now, by the old name."""
    output = layer.end.output
    inner = graph.new_value(f"{layer.name}_product", like=output)
    graph.set_output(layer.end, 0, inner)
    shape = (-1, *[1] * (len(layer.shape) - 2)) if layer.axis > 0 else (-1,)
    bias = constant(graph, layer.end, f"{layer.name}_bias", array.reshape(shape))
    graph.add_op(layer.end, helper.make_node("Add", [inner.name, bias.name], [output.name]))


# --- the weights ---------------------------------------------------------------------------------------------


def _scale(graph: Graph, layer: Layer, correction: Correction) -> None:
    op, scale = layer.op, correction.scale
    if correction.depth and batchnorm.is_batchnorm(last := layer.steps[correction.depth - 1].op):
        gamma = last.constant(batchnorm.GAMMA)
        put(graph, last, batchnorm.GAMMA, rounded(gamma.float64() * scale, gamma.dtype), f"{layer.name}_gamma")
        return
    weight = op.constant(layer.form.weight)
    if layer.form.is_packed:
        scales = op.constant(SCALES)
        scaled = scales.float64().reshape(layer.channels, -1) * scale[:, None]
        put(graph, op, SCALES, rounded(scaled.reshape(scales.shape), scales.dtype), f"{layer.name}_scales")
    elif layer.form.result is not None:
        _put_vectors(graph, op, (W_SCALE, W_ZERO_POINT), op.constant(W_SCALE).float64() * scale, layer.name)
    elif isinstance(weight, Dequantized):
        maker = op.data(layer.form.weight).producer
        assert maker is not None
        steps = (
            weight.grid.scales * layer.spread(scale) if weight.grid.block else weight.grid.scales.reshape(-1) * scale
        )
        _put_steps(graph, maker, steps, layer.weight_axis, layer.name)
    else:
        scaled = rounded(weight.float64() * layer.spread(scale), weight.dtype)
        put(graph, op, layer.form.weight, scaled, f"{layer.name}_weight")


def _put_steps(graph: Graph, dequantize: Op, steps: FloatArray, axis: int, hint: str) -> None:
    """Other steps for a DequantizeLinear: a vector along an axis, or blocks as they were."""
    _put_vectors(graph, dequantize, (_SCALE, _ZERO_POINT), steps, hint)
    if not dequantize.attribute("block_size", 0):
        kept = [attribute for attribute in dequantize.node.attribute if attribute.name != "axis"]
        del dequantize.node.attribute[:]
        dequantize.node.attribute.extend([*kept, helper.make_attribute("axis", axis)])
        dequantize.forget_attributes()


def _put_vectors(graph: Graph, op: Op, indices: tuple[int, int], steps: FloatArray, hint: str) -> None:
    """Steps, and a zero point of the same shape where there is one."""
    scale_index, zero_index = indices
    zero = op.optional_constant(zero_index)
    put(graph, op, scale_index, rounded(steps, op.constant(scale_index).dtype), f"{hint}_scale")
    if zero is not None and zero.shape != steps.shape:
        filled = np.broadcast_to(zero.array().reshape(-1), steps.shape).copy()
        put(graph, op, zero_index, filled, f"{hint}_zero_point")
