"""Graphs that measure: parts of a model, with the statistics of values as outputs.

Three ways to a variance, all in two passes (ReduceSumSquare is wrong by 1e-2 where mean/std is 10):

    training node    BatchNormalization in training mode, momentum 0. All its outputs are named, and its statistics
                     are outputs of the graph: an omitted one crashes ONNX Runtime, an unread one makes Y wrong
                     (its issue 29790)
    arithmetic       mean = E[x], d = x - mean, mean += E[d], var = E[d^2] - E[d]^2: for execution providers without
                     a training kernel, and opsets below 9, whose Scan is another
    nothing          the value itself, where a sample holds one value per channel (rank 2)

Means of single samples come from a training node too, of the value as `[1, N·C, …]`, or of one sample after the other
(Scan): the node reads what it gets three times and writes it once, and a single sample stays in the cache meanwhile.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import NodeProto, TensorProto, ValueInfoProto, helper, numpy_helper

from bnfold import batchnorm
from bnfold.affine import Affine
from bnfold.calibration.measuring.targets import Target, drops, stop_dropping
from bnfold.calibration.running.program import Reading
from bnfold.calibration.running.scratch import created
from bnfold.graph import Graph, Op
from bnfold.model_io import Model, write_stream
from bnfold.reasons import Refused

_SCAN_FROM = 9  # as it is since
_SCAN_OF_BFLOAT16_FROM = 16
_BLOCK = 16  # channels that ONNX Runtime's convolutions take at a time, where the processor allows most
_TRAINING_ATTRIBUTE_FROM = 14
_UNSQUEEZE_AXES_ARE_AN_INPUT_FROM = 13
_AXES_ARE_AN_INPUT_FROM = 18
_DOUBLE = TensorProto.DOUBLE


@dataclass(frozen=True)
class Form:
    """What is known of the value that a BatchNormalization normalises.

    Attributes:
        kind: the element type, a number of `onnx.TensorProto`.
        rank: its number of axes.
        in_double: whether it has to be measured in float64.
        has_samples: whether there is one at least in every batch: Scan fails where there is none.
    """

    kind: int
    rank: int
    in_double: bool = False
    has_samples: bool = False

    @property
    def measured_dtype(self) -> np.dtype[Any]:
        """The type that it is measured in."""
        return helper.tensor_dtype_to_np_dtype(_DOUBLE if self.in_double else self.kind)


class Builder:
    """A graph under construction, out of nodes of a model and nodes that measure.

    Args:
        model: where nodes and weights come from; it is not changed.
        graph: its index.
        prefix: what no name of the model starts with.
        arithmetic: never use a training-mode BatchNormalization.
        literal: let a BatchNormalization be one, whose rounding is that of the model where it runs.
    """

    def __init__(
        self, model: Model, graph: Graph, prefix: str, *, arithmetic: bool = False, literal: bool = False
    ) -> None:
        self._model = model
        self._opset = graph.main.opsets.get("", 0)
        self._arithmetic = arithmetic
        self._literal = literal
        self._nodes: list[NodeProto] = []
        self._numbers = count()
        self._constants: dict[tuple[bytes, str, tuple[int, ...]], str] = {}
        self._initializers: list[TensorProto] = []
        self._outputs: list[str] = []
        self._prefix = prefix

    # --- nodes of the model ------------------------------------------------------------------------------

    def copy(self, op: Op, renamed: Mapping[str, str] = MappingProxyType({})) -> None:
        """The node as it is, but for a Dropout, which drops nothing, and outputs that ONNX Runtime needs.

        Args:
            op: the node.
            renamed: what it reads in place of some values.
        """
        node = NodeProto()
        node.CopyFrom(op.node)
        if drops(op):
            del node.input[:]
            node.input.extend(stop_dropping(op))
        elif batchnorm.is_batchnorm(op) and batchnorm.is_training(op):
            outputs = 3 if self._opset >= _TRAINING_ATTRIBUTE_FROM else 5
            spare = [f"{self._prefix}_kept_{len(self._nodes)}_{index}" for index in range(outputs)]
            node.output[:] = [name or spare[i] for i, name in enumerate([*node.output, *spare[len(node.output) :]])]
            self._outputs += node.output[1:]
        node.input[:] = [renamed.get(name, name) for name in node.input]
        self._nodes.append(node)

    def identity(self, op: Op) -> None:
        """Stands for a BatchNormalization where only shapes matter."""
        self._nodes.append(helper.make_node("Identity", [op.node.input[0]], [op.node.output[0]]))

    def frozen(self, target: Target, mean: npt.NDArray[Any], var: npt.NDArray[Any], form: Form) -> None:
        """The BatchNormalization in inference mode, with these statistics, `[C]`."""
        if affine := self._early(target, mean, var, form):
            self._convolution(target, affine)
            return
        x, gamma, beta = list(target.op.node.input)[:3]
        if form.kind == TensorProto.BFLOAT16:  # there is no kernel
            x, gamma, beta = (self.node("Cast", [name], to=TensorProto.FLOAT) for name in (x, gamma, beta))
        dtype = np.float32 if form.kind == TensorProto.BFLOAT16 else target.type_of(mean, var)
        inputs = [x, gamma, beta, self.constant(mean.astype(dtype)), self.constant(var.astype(dtype))]
        y = self.node("BatchNormalization", inputs, epsilon=batchnorm.epsilon(target.op))
        self._as_type(y, form.kind if form.kind == TensorProto.BFLOAT16 else None, target)

    def training(self, number: int, target: Target, form: Form) -> Reading:
        """The BatchNormalization in training mode, which measures the batch and normalises by it."""
        x, gamma, beta = list(target.op.node.input)[:3]
        shape = self.node("Shape", [x])
        wide = form.in_double and form.kind != _DOUBLE
        if wide:
            x, gamma, beta = (self.node("Cast", [name], to=_DOUBLE) for name in (x, gamma, beta))
        dtype = np.float64 if form.in_double else target.dtype
        if self._arithmetic:
            mean, var = self._moments(x, [axis for axis in range(form.rank) if axis != 1])
            y = self.node("BatchNormalization", [x, gamma, beta, mean, var], epsilon=batchnorm.epsilon(target.op))
        else:
            zero, one = (self.constant(fill(target.channels, dtype)) for fill in (np.zeros, np.ones))
            y, mean, var = self._training_node([x, gamma, beta, zero, one], batchnorm.epsilon(target.op))
        self._as_type(y, form.kind if wide else None, target)
        return self._reading(number, shape, mean, var, by_sample=False)

    # --- nodes that measure ------------------------------------------------------------------------------

    def measure(self, number: int, target: Target, form: Form, x: str = "") -> Reading:
        """The mean and the variance of each channel in each sample of what a target normalises, or of `x` instead."""
        x = x or target.x.name
        shape = self.node("Shape", [x])
        if form.rank == 2:
            # an output of its own, since the value itself may be one that is kept
            mean, var = self.node("Identity", [self._wide(x, form)]), ""
        elif self._arithmetic or self._opset < _SCAN_FROM:
            mean, var = self._moments(self._wide(x, form), list(range(2, form.rank)))
        elif form.has_samples and (form.kind != TensorProto.BFLOAT16 or self._opset >= _SCAN_OF_BFLOAT16_FROM):
            mean, var = self._of_each(x, target.channels, form)
        else:
            mean, var = self._of_all(self._wide(x, form), form)
        return self._reading(number, shape, mean, var, by_sample=True)

    def node(self, op_type: str, inputs: Iterable[str], **attributes: Any) -> str:
        """Adds a node of one output, and names it."""
        return self._node(op_type, list(inputs), 1, **attributes)[0]

    def constant(self, array: npt.NDArray[Any]) -> str:
        """The name of an initializer with these values."""
        key = (array.tobytes(), str(array.dtype), array.shape)
        if key not in self._constants:
            self._constants[key] = name = f"{self._prefix}_constant_{len(self._constants)}"
            self._initializers.append(numpy_helper.from_array(array, name))
        return self._constants[key]

    def write(self, path: Path, inputs: Sequence[ValueInfoProto], outputs: Iterable[str]) -> None:
        """Writes the graph with these inputs and outputs, and the readings, to a file.

        Raises:
            ModelError: it cannot be written.
        """
        whole = self._model.proto
        needed = {name for node in self._nodes for name in _names_read(node)}
        given = {entry.name for entry in inputs}
        part = onnx.ModelProto(opset_import=whole.opset_import, functions=whole.functions)
        part.ir_version = max(whole.ir_version, 4)  # below that, initializers have to be inputs
        graph = part.graph
        graph.name = "bnfold"
        graph.node.extend(self._nodes)
        graph.input.extend(inputs)
        graph.initializer.extend(self._initializers)
        graph.initializer.extend(t for t in whole.graph.initializer if t.name in needed and t.name not in given)
        graph.sparse_initializer.extend(t for t in whole.graph.sparse_initializer if t.values.name in needed)
        graph.output.extend(ValueInfoProto(name=name) for name in dict.fromkeys([*outputs, *self._outputs]))
        with created(path) as stream:
            write_stream(self._model.around(part), stream)

    def _of_each(self, x: str, channels: int, form: Form) -> tuple[str, str]:
        """Mean and variance of each channel, one sample after the other.

        Outside of the Scan an Unsqueeze copies nothing, but behind a DequantizeLinear ONNX Runtime (1.32) adds a
        QuantizeLinear to it, from opset 21 on one of the wrong type.
        """
        start, sample = len(self._nodes), f"{self._prefix}_sample_{next(self._numbers)}"
        ones = self.constant(np.ones(channels, form.measured_dtype))
        batch = self._wide(sample, form)
        if self._literal:
            batch = self._unsqueeze(batch, 0)
        _, *found = self._training_node([batch, ones, ones, ones, ones], 1e-5)
        kind = helper.np_dtype_to_tensor_dtype(form.measured_dtype)
        body = onnx.GraphProto(
            name="sample",
            node=self._nodes[start:],
            input=[helper.make_tensor_value_info(sample, form.kind, None)],
            output=[helper.make_tensor_value_info(name, kind, [channels]) for name in found],
        )
        del self._nodes[start:]
        samples = x if self._literal else self._unsqueeze(x, 1)
        mean, var = self._node("Scan", [samples], 2, body=body, num_scan_inputs=1)
        return mean, var

    def _of_all(self, x: str, form: Form) -> tuple[str, str]:
        """Mean and variance of each channel, all samples at once."""
        rows = self.node("Flatten", [x], axis=2)  # one for each channel of each sample
        length = self.node("Gather", [self.node("Shape", [rows]), self.constant(np.array([0]))], axis=0)
        ones = self.node("Expand", [self.constant(np.ones(1, form.measured_dtype)), length])
        _, mean, var = self._training_node([self._unsqueeze(rows, 0), ones, ones, ones, ones], 1e-5)
        return mean, var

    def _wide(self, x: str, form: Form) -> str:
        """A value in the type that it has to be measured in."""
        return self.node("Cast", [x], to=_DOUBLE) if form.in_double and form.kind != _DOUBLE else x

    def _node(self, op_type: str, inputs: list[str], outputs: int, **attributes: Any) -> list[str]:
        number = next(self._numbers)
        names = [f"{self._prefix}_{op_type}_{number}_{index}" for index in range(outputs)]
        self._nodes.append(helper.make_node(op_type, inputs, names, **attributes))
        return names

    def _training_node(self, inputs: list[str], epsilon: float) -> tuple[str, str, str]:
        """Y, mean and biased variance. Before opset 14 the mode is told by the number of outputs: five."""
        if self._opset >= _TRAINING_ATTRIBUTE_FROM:
            y, mean, var = self._node("BatchNormalization", inputs, 3, epsilon=epsilon, momentum=0.0, training_mode=1)
        else:
            y, mean, var, *_ = self._node("BatchNormalization", inputs, 5, epsilon=epsilon, momentum=0.0)
        return y, mean, var

    def _moments(self, x: str, axes: list[int]) -> tuple[str, str]:
        """Mean and variance over axes, in arithmetic, without those axes; E[d] takes back what rounding took."""
        rough = self._mean(x, axes, keep=True)
        apart = self.node("Sub", [x, rough])
        rest = self._mean(apart, axes)
        mean = self.node("Add", [self._mean(x, axes), rest])
        square = self._mean(self.node("Mul", [apart, apart]), axes)
        return mean, self.node("Sub", [square, self.node("Mul", [rest, rest])])

    def _mean(self, x: str, axes: list[int], *, keep: bool = False) -> str:
        if self._opset < _AXES_ARE_AN_INPUT_FROM:
            return self.node("ReduceMean", [x], axes=axes, keepdims=int(keep))
        return self.node("ReduceMean", [x, self.constant(np.array(axes, np.int64))], keepdims=int(keep))

    def _unsqueeze(self, x: str, axis: int) -> str:
        if self._opset < _UNSQUEEZE_AXES_ARE_AN_INPUT_FROM:
            return self.node("Unsqueeze", [x], axes=[axis])
        return self.node("Unsqueeze", [x, self.constant(np.array([axis]))])

    def _early(self, target: Target, mean: npt.NDArray[Any], var: npt.NDArray[Any], form: Form) -> Affine | None:
        """What a BatchNormalization computes, if ONNX Runtime would make a depthwise convolution of it.

        It does so too late to fuse the activation behind it: done here, a pass takes a fifth less on MobileNetV2.
        """
        if self._arithmetic or self._literal or target.channels % _BLOCK:
            return None
        if form.measured_dtype != np.float32 or form.rank != 4:
            return None
        try:
            return target.affine(mean, var)
        except Refused:
            return None

    def _convolution(self, target: Target, affine: Affine) -> None:
        """s*x + t, depthwise"""
        with np.errstate(over="ignore"):
            weight, bias = affine.scale.astype(np.float32), affine.shift.astype(np.float32)
        inputs = [target.x.name, self.constant(weight.reshape(-1, 1, 1, 1)), self.constant(bias.reshape(-1))]
        self._as_type(self.node("Conv", inputs, group=target.channels), None, target)

    def _as_type(self, y: str, kind: int | None, target: Target) -> None:
        """Makes `y`, cast if need be, the output of a BatchNormalization."""
        if kind is None:
            self._nodes[-1].output[0] = target.op.node.output[0]
        else:
            self._nodes.append(helper.make_node("Cast", [y], [target.op.node.output[0]], to=kind))

    def _reading(self, number: int, shape: str, mean: str, var: str, *, by_sample: bool) -> Reading:
        self._outputs += [shape, mean] + [var] * bool(var)
        return Reading(number, shape, mean, var, by_sample)


def _names_read(node: NodeProto) -> Iterable[str]:
    """What a node reads, its bodies included; names of bodies' own values do no harm."""
    yield from node.input
    for attribute in node.attribute:
        for body in (attribute.g, *attribute.graphs) if attribute.HasField("g") else attribute.graphs:
            for inner in body.node:
                yield from _names_read(inner)
            yield from (entry.name for entry in body.output)
