"""BatchNormalizations behind layers, for the time of measuring.

A layer that has none gets one, in a copy of the model: with gamma 1 and beta 0, so that at mean m and variance v it
makes (y - m) / sqrt(v) of y. All that measures BatchNormalizations then measures layers, too, and a correction
y' = scale * y + shift is v = 1 / scale^2, m = -shift / scale. A QLinearConv is written out for it, since it clips:

    DequantizeLinear, Conv (weights and bias as floats), here, QuantizeLinear
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from onnx import NodeProto, helper, numpy_helper

from bnfold.affine import FloatArray
from bnfold.calibration.measuring.targets import Survey, Target, survey_of
from bnfold.calibration.reference.bias import bias_of
from bnfold.calibration.reference.layers import Kind, Layer, layer_of, weights_of
from bnfold.graph import Graph, Op, Value
from bnfold.model_io import Model

EPSILON = 1e-12
"""Nothing beside a variance of 1, and enough beside one of 0."""
_STATISTICS_HAVE_A_TYPE_FROM = 14
_X_WITH_ITS_GRID = 3  # the first inputs of an operator on integers


@dataclass(frozen=True, eq=False)
class Probed:
    """A copy of a model with BatchNormalizations behind some layers, and the survey of those."""

    model: Model
    graph: Graph
    survey: Survey


def probed(model: Model, sites: Sequence[tuple[Layer, int]], whose: str = "the model") -> Probed:
    """A copy of the model with a BatchNormalization behind each of some layers.

    Args:
        model: it is not changed.
        sites: layers of it, and behind how many of their steps.
        whose: for messages: which model it is.

    """
    copy = model.copy()
    graph = Graph(copy, assume_constant=True)
    names = []
    for layer, depth in sites:
        value = graph.main.values[layer.value(depth).name]
        maker = value.producer
        assert maker is not None
        probe = _behind(graph, value, layer) if layer.form.result is None else _written_out(graph, maker)
        names.append(probe.output.name)
    graph.commit()
    again = Graph(copy, assume_constant=True)
    targets = tuple(_target(again.main.values[name], layer) for name, (layer, _) in zip(names, sites, strict=True))
    return Probed(copy, again, survey_of(again, targets, whose))


def mean_and_var(scale: FloatArray, shift: FloatArray) -> tuple[FloatArray, FloatArray]:
    """The statistics that make scale * y + shift of y."""
    return -shift / scale, 1 / scale**2 - EPSILON


def _target(value: Value, layer: Layer) -> Target:
    op = value.producer
    assert op is not None
    dtype = op.constant(4).dtype
    return Target(op, layer.name, np.zeros(layer.channels), np.ones(layer.channels), dtype)


def _behind(graph: Graph, value: Value, layer: Layer) -> Op:
    """The BatchNormalization behind a value, whose readers now read what it makes."""
    kind = _type(graph, value, layer)
    rank = len(graph.shape(value) or ()) if layer.axis < 0 else 0
    result = graph.new_value(f"{value.name}_probed", like=value)
    graph.move_readers(value, result)
    assert value.producer is not None
    chain = _Chain(graph, value.producer)
    if layer.axis < 0 and not rank:
        rows = chain.node("Reshape", [value.name, chain.constant(np.array([-1, layer.channels]))])
        probe = chain.normalization(rows, chain.fresh("probe"), layer.channels, kind)
        shape = chain.node("Shape", [value.name])
        chain.add(helper.make_node("Reshape", [probe.output.name, shape], [result.name]))
        return probe
    if rank <= 2:
        return chain.normalization(value.name, result.name, layer.channels, kind)
    to_front = [0, rank - 1, *range(1, rank - 1)]
    turned = chain.node("Transpose", [value.name], perm=to_front)
    probe = chain.normalization(turned, chain.fresh("probe"), layer.channels, kind)
    back = [int(axis) for axis in np.argsort(to_front)]
    chain.add(helper.make_node("Transpose", [probe.output.name], [result.name], perm=back))
    return probe


def _written_out(graph: Graph, op: Op) -> Op:
    """An operator on integers as what it computes, with a BatchNormalization before its result is quantized."""
    layer = layer_of(op)  # of this graph, whose bias may be another
    assert layer is not None
    assert layer.form.result is not None
    weights, bias = graph.fresh_name("weights"), graph.fresh_name("bias")
    _store(graph, weights, weights_of(op, layer.form).astype(np.float32))
    _store(graph, bias, bias_of(layer, 0).values.astype(np.float32))
    chain = _Chain(graph, op)
    given, result = list(op.node.input), op.output.name
    inner = NodeProto()
    inner.CopyFrom(op.node)
    inner.op_type, inner.domain = ("Gemm" if layer.form.kind is Kind.DENSE else "Conv"), ""
    inner.input[:] = [chain.node("DequantizeLinear", given[:_X_WITH_ITS_GRID]), weights, bias]
    inner.output[:] = [chain.fresh("product")]
    chain.add(inner)
    scale = given[layer.form.result] if len(given) > layer.form.result else ""
    made = chain.fresh("probe") if scale else result  # a QGemm may give floats
    graph.remove(op)
    probe = chain.normalization(inner.output[0], made, layer.channels, np.dtype(np.float32))
    if scale:
        chain.add(helper.make_node("QuantizeLinear", [made, *given[layer.form.result :][:2]], [result]))
    return probe


class _Chain:
    """Nodes that are added one behind the other."""

    def __init__(self, graph: Graph, after: Op) -> None:
        self._graph = graph
        self._last = after

    def fresh(self, hint: str) -> str:
        return self._graph.fresh_name(f"bnfold_{hint}")

    def add(self, node: NodeProto) -> Op:
        self._last = self._graph.add_op(self._last, node)
        return self._last

    def node(self, op_type: str, inputs: Sequence[str], **attributes: Any) -> str:
        name = self.fresh(op_type)
        self.add(helper.make_node(op_type, inputs, [name], **attributes))
        return name

    def constant(self, array: np.ndarray) -> str:
        name = self.fresh("constant")
        _store(self._graph, name, array)
        return name

    def normalization(self, x: str, y: str, channels: int, kind: np.dtype[Any]) -> Op:
        """One that lets everything pass as it is."""
        wide = self._last.scope.opsets.get("", 0) >= _STATISTICS_HAVE_A_TYPE_FROM and kind.itemsize < 4
        of_statistics = np.dtype(np.float32) if wide else kind
        names = [self.fresh(hint) for hint in ("gamma", "beta", "mean", "var")]
        for name, dtype in zip(names, (kind, kind, of_statistics, of_statistics), strict=True):
            fill = np.ones if name in (names[0], names[3]) else np.zeros
            _store(self._graph, name, fill(channels).astype(dtype))
        return self.add(helper.make_node("BatchNormalization", [x, *names], [y], epsilon=EPSILON))


def _store(graph: Graph, name: str, array: np.ndarray) -> None:
    graph.main.proto.initializer.append(numpy_helper.from_array(array, name))


def _type(graph: Graph, value: Value, layer: Layer) -> np.dtype[Any]:
    """Of a value: that of the weights, if nothing else is known."""
    return graph.dtype(value) or layer.dtype
