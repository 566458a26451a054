"""The tensors of a model, and how many bytes the values of one take."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator

import onnx
from onnx import AttributeProto, NodeProto, TensorProto

STANDARD_DOMAINS = ("", "ai.onnx")
_WITH_GRAPHS = frozenset({"If", "Loop", "Scan", "SequenceMap"})
_PACKED_BITS = {"INT2": 2, "UINT2": 2, "INT4": 4, "UINT4": 4, "FLOAT4E2M1": 4, "FLOAT6E2M3": 6, "FLOAT6E3M2": 6}
DATA_FIELDS = ("float_data", "int32_data", "int64_data", "double_data", "uint64_data", "string_data")
"""Where values stand that are not raw."""

_Type = AttributeProto
_WITHOUT_TENSORS = {_Type.FLOAT, _Type.INT, _Type.STRING, _Type.FLOATS, _Type.INTS, _Type.STRINGS}
_COMPLEX = (TensorProto.COMPLEX64, TensorProto.COMPLEX128)


def all_tensors(proto: onnx.ModelProto) -> Iterator[TensorProto]:
    """Every tensor of the model, wherever it stands."""
    yield from _in_graph(proto.graph)
    for training in proto.training_info:
        yield from _in_graph(training.initialization)
        yield from _in_graph(training.algorithm)
    for function in proto.functions:
        yield from _in_attributes(function.attribute_proto)
        yield from _in_nodes(function.node)


def _in_graph(graph: onnx.GraphProto) -> Iterator[TensorProto]:
    yield from graph.initializer
    for sparse in graph.sparse_initializer:
        yield from (sparse.values, sparse.indices)
    yield from _in_nodes(graph.node)


def _in_nodes(nodes: Iterable[onnx.NodeProto]) -> Iterator[TensorProto]:
    for node in nodes:
        yield from _in_attributes(node.attribute[:])


def _in_attributes(attributes: Iterable[AttributeProto]) -> Iterator[TensorProto]:
    for attribute in attributes:
        if may_hold_tensors(attribute):
            yield from attribute_tensors(attribute)
            for graph in attribute_graphs(attribute):
                yield from _in_graph(graph)


def may_hold_tensors(attribute: AttributeProto) -> bool:
    """Whether it is worth a closer look. Old exporters leave the type unset."""
    return attribute.type not in _WITHOUT_TENSORS


def attribute_tensors(attribute: AttributeProto) -> Iterator[TensorProto]:
    """The tensors that stand in the attribute itself."""
    if attribute.HasField("t"):
        yield attribute.t
    yield from attribute.tensors
    if attribute.HasField("sparse_tensor"):
        yield from (attribute.sparse_tensor.values, attribute.sparse_tensor.indices)
    for sparse in attribute.sparse_tensors:
        yield from (sparse.values, sparse.indices)


def may_hold_graphs(node: NodeProto) -> bool:
    """Whether the node's operator has attributes that are graphs; of those that are not ONNX's own anything is so."""
    return node.op_type in _WITH_GRAPHS or node.domain not in STANDARD_DOMAINS


def attribute_graphs(attribute: AttributeProto) -> Iterator[onnx.GraphProto]:
    """The graphs that stand in the attribute, if it is of a type that has any."""
    if may_hold_tensors(attribute):
        if attribute.HasField("g"):
            yield attribute.g
        yield from attribute.graphs


def bodies(node: NodeProto) -> Iterator[onnx.GraphProto]:
    """The graphs in a node's attributes, for the operators that have any."""
    if may_hold_graphs(node):
        for attribute in node.attribute:
            yield from attribute_graphs(attribute)


def all_nodes(proto: onnx.ModelProto) -> Iterator[NodeProto]:
    """Every node of a model, those in bodies and functions among them."""
    for nodes in (proto.graph.node, *(function.node for function in proto.functions)):
        yield from _with_inner(nodes)


def _with_inner(nodes: Iterable[NodeProto]) -> Iterator[NodeProto]:
    for node in nodes:
        yield node
        for body in bodies(node):
            yield from _with_inner(body.node)


def copy_notes(tensor: TensorProto, old: TensorProto) -> None:
    """Gives a tensor what a user noted of the one that it takes the place of."""
    if old.doc_string:  # an empty one takes bytes, too
        tensor.doc_string = old.doc_string
    tensor.metadata_props.extend(old.metadata_props)


def is_external(tensor: TensorProto) -> bool:
    """Whether the values stand in a file of their own."""
    return bool(tensor.data_location == TensorProto.EXTERNAL)


def is_packed(tensor: TensorProto) -> bool:
    """Whether an element takes less than a byte."""
    return type_name(tensor.data_type) in _PACKED_BITS


def raw_size(tensor: TensorProto) -> int | None:
    """How many bytes `raw_data` or a data file must have; None for strings and types that this onnx does not know."""
    name = type_name(tensor.data_type)
    if name in ("", "UNDEFINED", "STRING"):
        return None
    bits = _PACKED_BITS.get(name) or 8 * onnx.helper.tensor_dtype_to_np_dtype(tensor.data_type).itemsize
    return int(math.prod(tensor.dims) * bits + 7) // 8


def field_size(tensor: TensorProto) -> tuple[str, int] | None:
    """The field for values that are not raw, and how many entries it must have; None for unknown types."""
    name = type_name(tensor.data_type)
    if name in ("", "UNDEFINED"):
        return None
    count = math.prod(tensor.dims)
    if tensor.data_type in _COMPLEX:
        count *= 2
    elif _PACKED_BITS.get(name, 8) < 6:  # six-bit values get an entry each
        count = (count * _PACKED_BITS[name] + 7) // 8
    return onnx.helper.tensor_dtype_to_field(tensor.data_type), count


def holds_real_numbers(tensor: TensorProto) -> bool:
    """Whether its elements are of a known type, and neither text nor complex."""
    return type_name(tensor.data_type) not in ("", "UNDEFINED", "STRING", "COMPLEX64", "COMPLEX128")


def type_name(data_type: int) -> str:
    """The name of an element type; "" for a number that this onnx does not know."""
    return TensorProto.DataType.Name(data_type) if data_type in TensorProto.DataType.values() else ""
