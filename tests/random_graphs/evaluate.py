"""Float64 evaluation: ONNX's reference implementation, with our own operators where it lacks or breaks one."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import onnx
from onnx import AttributeProto, GraphProto, ModelProto, NodeProto, TensorProto, helper, numpy_helper
from onnx.inliner import inline_local_functions
from onnx.reference import ReferenceEvaluator

from random_graphs.builder import Array
from random_graphs.operators import OPERATORS

_FLOATS = (TensorProto.FLOAT, TensorProto.FLOAT16)


def run(model: ModelProto, feeds: Mapping[str, Array]) -> list[Array]:
    """What a model computes in float64."""
    with np.errstate(all="ignore"):
        evaluator = ReferenceEvaluator(in_double(model), new_ops=OPERATORS)
        doubled = {
            name: value.astype(np.float64) if value.dtype.kind == "f" else value for name, value in feeds.items()
        }
        return [np.asarray(value) for value in evaluator.run(None, doubled)]


def in_double(model: ModelProto) -> ModelProto:
    """The same model with all its floating-point tensors in float64, and its functions inlined."""
    result = inline_local_functions(model) if model.functions else copied(model)
    _double_graph(result.graph)
    return result


def copied(model: ModelProto) -> ModelProto:
    copy = ModelProto()
    copy.CopyFrom(model)
    return copy


def _double_graph(graph: GraphProto) -> None:
    for tensor in graph.initializer:
        _double(tensor)
    for sparse in graph.sparse_initializer:
        graph.initializer.append(_dense(sparse))
    del graph.sparse_initializer[:]
    del graph.value_info[:]
    for info in (*graph.input, *graph.output):
        if info.type.tensor_type.elem_type in _FLOATS:
            info.type.tensor_type.elem_type = TensorProto.DOUBLE
    _double_nodes(graph.node)


def _dense(sparse: onnx.SparseTensorProto) -> TensorProto:
    values = numpy_helper.to_array(sparse.values).astype(np.float64)
    flat = np.zeros(int(np.prod(sparse.dims)))
    flat[numpy_helper.to_array(sparse.indices)] = values
    return numpy_helper.from_array(flat.reshape(sparse.dims), sparse.values.name)


def _double_nodes(nodes: Sequence[NodeProto]) -> None:
    for node in nodes:
        for attribute in node.attribute:
            _double_attribute(node, attribute)


def _double_attribute(node: NodeProto, attribute: AttributeProto) -> None:
    if attribute.HasField("t"):
        _double(attribute.t)
    elif attribute.name in ("value_float", "value_floats") and node.op_type == "Constant":
        value = np.asarray(helper.get_attribute_value(attribute), np.float64)
        attribute.CopyFrom(helper.make_attribute("value", numpy_helper.from_array(value)))
    elif node.op_type == "Cast" and attribute.name == "to" and attribute.i in _FLOATS:
        attribute.i = TensorProto.DOUBLE
    elif node.op_type == "GridSample" and attribute.s == b"bilinear":
        attribute.s = b"linear"  # the reference implementation knows the newer name only
    if attribute.HasField("g"):
        _double_graph(attribute.g)


def _double(tensor: TensorProto) -> None:
    if tensor.data_type in _FLOATS:
        tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor).astype(np.float64), tensor.name))


def float_tensors(model: ModelProto) -> Iterator[TensorProto]:
    """The main graph's own floating-point constants, without those that say how large a result is."""
    sizes = {name for node in model.graph.node if node.op_type in ("Resize", "Upsample") for name in node.input[1:]}
    for tensor in model.graph.initializer:
        if tensor.data_type in (*_FLOATS, TensorProto.DOUBLE) and tensor.name not in sizes:
            yield tensor
