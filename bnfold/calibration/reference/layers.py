"""The layers of a model: its convolutions and matrix products by weights, and the affines with constants behind each.

    Conv, ConvTranspose, Gemm, MatMul, QLinearConv, …        then any of  + c,  - c,  * c,  / c,  BatchNormalization

With that a folded layer, an unfolded one, and a MatMul with an Add can be told to be the same.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from math import prod
from typing import Any

import numpy as np

from bnfold import batchnorm
from bnfold.affine import FloatArray
from bnfold.calibration.reference.forms import (
    FORMS,
    UNKNOWN,
    WITHOUT_BIAS,
    Form,
    Kind,
    Unfit,
    end_of,
    group_of,
    shape_of,
    sole_reader,
    weight_axis_of,
    weights_of,
)  # fmt: skip
from bnfold.calibration.reference.integers import SCALES
from bnfold.graph import Constant, Dequantized, Graph, Op, Quantized, Use, Value, is_dequantize, is_quantize
from bnfold.reasons import Refusal, Refused

_SUFFIXES = ("_quantized", "_quant", "_Q2", "_Q4", "_Q8")  # what ONNX Runtime's quantizer adds to names
_MAKES_WEIGHTS = ("Transpose", "Reshape", "Identity", "Cast", "Squeeze", "Unsqueeze")
_MOST_STEPS = 8
_OF_A_GEMM = 2  # the rank of what it makes


@dataclass(frozen=True, eq=False)
class Step:
    """An affine with constants behind a layer: vectors of C float64 values."""

    op: Op
    scale: FloatArray
    shift: FloatArray
    can_shift: bool  # whether a bias can be added to its constant


@dataclass(frozen=True, eq=False)
class Layer:
    """A convolution or a matrix product by constant weights.

    Attributes:
        op: the node.
        form: of its operator.
        channels: of its output.
        end: the node that makes its output: `op`, but where that is scaled behind it.
        steps: the affines behind it that nothing but the next one reads.
    """

    op: Op
    form: Form
    channels: int
    end: Op
    steps: tuple[Step, ...] = ()

    @property
    def name(self) -> str:
        return self.op.label

    @property
    def axis(self) -> int:
        """Of the channels in its output."""
        return self.form.axis

    @property
    def shape(self) -> tuple[int, ...]:
        """Of its weights."""
        return shape_of(self.op, self.form)

    @property
    def dtype(self) -> np.dtype[Any]:
        """Of its output, by its weights."""
        if self.form.is_packed:
            return self.op.constant(SCALES).dtype
        return np.dtype(np.float32) if self.form.is_scaled_behind else self.op.constant(self.form.weight).dtype

    def value(self, depth: int) -> Value:
        """What it makes, behind the first few steps."""
        return self.steps[depth - 1].op.output if depth else self.end.output

    def spread(self, vector: FloatArray) -> FloatArray:
        """A number for each channel, broadcastable to the weights."""
        rank = len(self.shape)
        if self.form.kind is Kind.TRANSPOSED:  # [C_in, C / group, …]
            rows = self.shape[0] // self.group
            return np.repeat(vector.reshape(self.group, -1), rows, 0).reshape(rows * self.group, -1, *[1] * (rank - 2))
        sizes = [1] * rank
        sizes[self.weight_axis] = -1
        return vector.reshape(sizes)

    @property
    def group(self) -> int:
        """Of a transposed convolution, which has a row of weights for the channels of a group only."""
        return group_of(self.op)

    @property
    def weight_axis(self) -> int:
        """Of the channels in its weights; of a group of them in a transposed convolution."""
        return weight_axis_of(self.op)

    def weights(self, depth: int) -> FloatArray:
        """What it multiplies its input by, `[C, …]`, the first few steps included."""
        weights = weights_of(self.op, self.form)
        if self.form.kind is Kind.TRANSPOSED:
            parts = weights.reshape(self.group, -1, *weights.shape[1:])
            rows = np.moveaxis(parts, 2, 1).reshape(self.channels, -1)
        else:
            rows = np.moveaxis(weights, self.weight_axis, 0).reshape(self.channels, -1)
        scale = prod((step.scale for step in self.steps[:depth]), start=np.ones(1))
        return np.asarray(rows * np.reshape(scale, (-1, 1)))

    def names(self) -> Iterator[tuple[str, str]]:
        """What may be called the same in another form of the model: the node, its weights, its output."""
        if self.op.node.name:
            yield "node", _bare(self.op.node.name)
        yield "weights", _bare(_origin(self.op.data(self.form.weight)).name)
        yield "output", _bare(self.end.output.name)


def reason(error: Unfit | Refused) -> str:
    """Why a layer is left, in words that follow its name."""
    return str(error) if isinstance(error, Unfit) else f"cannot be read: {Refusal(error.reason, error.facts)}"


def layers(graph: Graph) -> tuple[list[Layer], list[tuple[Op, str]]]:
    """The layers of a model in graph order, and those that nothing can be corrected in, each with why."""
    found: list[Layer] = []
    unfit: list[tuple[Op, str]] = []
    for op in graph.ops():
        if op.type not in FORMS and op.type not in UNKNOWN:
            continue
        try:
            if (layer := layer_of(op)) is not None:
                found.append(layer)
        except (Unfit, Refused) as error:
            unfit.append((op, reason(error)))
    return found, unfit


def layer_of(op: Op) -> Layer | None:
    """The node as a layer; None if it is a product of two computed values.

    Raises:
        Unfit, Refused: it is a layer, but nothing can be corrected in it.
    """
    if op.type in UNKNOWN:
        raise Unfit(WITHOUT_BIAS if op.type == "QLinearMatMul" else f"is a {op.type}, which is not known here")
    form = FORMS[op.type]
    if form.axis < 0 and not any(op.graph.constant(value) for value in op.inputs[:2] if value is not None):
        return None
    if op.scope.parent is not None or op.scope.is_function:
        raise Unfit("is in a function, or in the body of an If, Loop or Scan, where it may run any number of times")
    shape = shape_of(op, form)
    is_wrong = len(shape) != 2 if form.kind is Kind.DENSE else len(shape) < 3
    if is_wrong or not prod(shape) or shape[0] % group_of(op):
        raise Unfit(f"has weights of shape {list(shape)}")
    layer = Layer(op, form, shape[weight_axis_of(op)] * group_of(op), end_of(op, form))
    return layer if form.result is not None else replace(layer, steps=tuple(_steps(layer)))


def _steps(layer: Layer) -> Iterator[Step]:
    value = layer.end.output
    for _ in range(_MOST_STEPS):
        use = _next(value)
        step = _step(use, layer) if use is not None else None
        if step is None:
            return
        yield step
        value = step.op.output


def _step(use: Use, layer: Layer) -> Step | None:
    try:
        if batchnorm.is_batchnorm(use.op) and use.index == 0:
            affine = batchnorm.read(use.op).affine(1 + batchnorm.CHANNEL_AXIS)
            scale, shift = (np.asarray(array, np.float64).reshape(-1) for array in (affine.scale, affine.shift))
            rank = len(use.op.graph.shape(use.op.data(0)) or (0, 0))
            fits = scale.size == layer.channels and (layer.axis == batchnorm.CHANNEL_AXIS or rank == 2)
            return Step(use.op, scale, shift, can_shift=True) if fits else None
        return _arithmetic(use, layer)
    except Refused:
        return None


def _arithmetic(use: Use, layer: Layer) -> Step | None:
    op = use.op
    if op.type not in ("Add", "Sub", "Mul", "Div") or (op.type in ("Sub", "Div") and use.index):
        return None
    constant = op.constant(1 - use.index)
    vector = along(constant, layer)
    if vector is None:
        return None
    one, zero = np.ones(layer.channels), np.zeros(layer.channels)
    if not np.isfinite(vector).all() or (op.type == "Div" and not vector.all()):
        return None
    if op.type in ("Mul", "Div"):
        return Step(op, vector if op.type == "Mul" else 1 / vector, zero, can_shift=False)
    can_shift = op.type == "Add" and not isinstance(constant, Dequantized | Quantized)
    return Step(op, one, vector if op.type == "Add" else -vector, can_shift)


def along(constant: Constant, layer: Layer) -> FloatArray | None:
    """A constant as a number for each channel of a layer's output; None if it is of another shape."""
    rank = 1 if layer.form.kind is Kind.DENSE else len(layer.shape)
    if layer.form.kind is Kind.DENSE and layer.axis > 0 and len(constant.shape) > _OF_A_GEMM:
        return None  # behind it the channels would stand on another axis
    from_right = 1 if layer.form.kind is Kind.DENSE else rank - 1
    sizes = dict(enumerate(reversed(constant.shape), 1))
    if any(size != 1 for place, size in sizes.items() if place != from_right):
        return None
    if sizes.get(from_right, 1) not in (1, layer.channels) or (sizes and max(sizes) > rank and rank > 1):
        return None
    return np.broadcast_to(constant.float64().reshape(-1), layer.channels).astype(np.float64)


def _next(value: Value) -> Use | None:
    """What reads a value, through a QuantizeLinear and its DequantizeLinear."""
    use = sole_reader(value)
    if use is None or not is_quantize(use.op) or use.index:
        return use
    back = sole_reader(use.op.output)
    return sole_reader(back.op.output) if back is not None and is_dequantize(back.op) else None


def _origin(value: Value) -> Value:
    """Where weights come from: the initializer."""
    producer = value.producer
    while producer is not None and value.tensor is None:
        given = producer.input(0)
        known = producer.type in _MAKES_WEIGHTS or is_dequantize(producer) or is_quantize(producer)
        if given is None or not known:
            break
        value, producer = given, given.producer
    return value


def _bare(name: str) -> str:
    """A name without what quantizers add to it."""
    for suffix in _SUFFIXES:
        name = name.removesuffix(suffix)
    return name
