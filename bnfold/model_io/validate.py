"""Does a model hold together? Asked in time linear in its size; of operators it knows only which can hold graphs."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import onnx
from onnx import TensorProto

from bnfold.model_io.error import ModelError
from bnfold.model_io.external import ExternalRange
from bnfold.model_io.payload import Payload
from bnfold.model_io.tensors import (
    DATA_FIELDS,
    attribute_graphs,
    attribute_tensors,
    field_size,
    may_hold_graphs,
    may_hold_tensors,
    raw_size,
)

# Protobuf does not look at text when it parses; what is not UTF-8 comes out as bytes.
_MOST_OPSET = (1 << 31) - 1  # what the libraries hold it in
_NOT_TEXT = "is damaged: a name in it is not UTF-8"


def check_model(proto: onnx.ModelProto, payload: Callable[[TensorProto], Payload | None]) -> None:
    """Checks that values are defined once and before they are read, and that tensors have the data their dims ask for.

    Args:
        proto: the model.
        payload: where the bytes of a tensor are, if not in the proto.

    Raises:
        ModelError: something is wrong; it says what and where.
    """
    if not proto.HasField("graph"):
        raise ModelError("has no graph, so it is not an ONNX model")
    for entry in (*proto.opset_import, *(each for function in proto.functions for each in function.opset_import)):
        if not 0 <= entry.version <= _MOST_OPSET:
            raise ModelError(f"imports version {entry.version} of the operators in {entry.domain!r}, which cannot be")
    check = _Check(payload)
    check.graph(proto.graph, ())
    for function in proto.functions:
        check.attributes(function.attribute_proto, ())
        known = _distinct(function.input, "input")
        check.nodes(function.node, known, ())
        if undefined := [name for name in function.output if name not in known]:
            raise ModelError(f"nothing computes the output {undefined[0]!r} of function {function.name!r}")


class _Check:
    def __init__(self, payload: Callable[[TensorProto], Payload | None]) -> None:
        self._payload = payload

    def graph(self, graph: onnx.GraphProto, outer: tuple[set[str], ...]) -> None:
        """Checks a graph that may read the values of the `outer` ones, as far as they are defined by now."""
        constants = [*graph.initializer]
        for sparse in graph.sparse_initializer:
            self.tensor(sparse.indices)
            _check_sparse(sparse)
            constants.append(sparse.values)
        for tensor in constants:
            self.tensor(tensor)
        known = _distinct((value.name for value in graph.input), "graph input")
        known |= _distinct((tensor.name for tensor in constants if tensor.name), "initializer")
        self.nodes(graph.node, known, outer)
        for value in graph.output:
            if value.name not in known and not any(value.name in scope for scope in outer):
                raise ModelError(f"nothing computes the graph output {value.name!r}")

    def nodes(self, nodes: Iterable[onnx.NodeProto], known: set[str], outer: tuple[set[str], ...]) -> None:
        """Checks the nodes of a graph or function in their order, and adds what they compute to `known`."""
        scopes = (known, *outer)
        for node in nodes:
            if not type(node.name) is type(node.op_type) is type(node.domain) is str:
                raise ModelError(_NOT_TEXT)
            for value in node.input[:]:  # a slice is twice as fast as one by one
                if value not in known and value and not any(value in scope for scope in outer):
                    raise ModelError(_undefined(node, value, nodes))
            self.attributes(node.attribute[:], scopes, node)
            if node.op_type == "Split":
                _check_split(node)
            for value in node.output[:]:
                if value in known:
                    raise ModelError(f"{_name(node)} assigns {value!r}, which has a value already")
                if type(value) is not str:
                    raise ModelError(_NOT_TEXT)
                if value:
                    known.add(value)

    def attributes(
        self, attributes: Iterable[onnx.AttributeProto], outer: tuple[set[str], ...], node: onnx.NodeProto | None = None
    ) -> None:
        for attribute in attributes:
            if type(attribute.name) is not str:
                raise ModelError(_NOT_TEXT)
            if may_hold_tensors(attribute):
                for tensor in attribute_tensors(attribute):
                    self.tensor(tensor)
                for graph in attribute_graphs(attribute):
                    if node is not None and not may_hold_graphs(node):  # it would not be looked for
                        raise ModelError(f"{_name(node)} holds a graph, which no {node.op_type!r} has")
                    self.graph(graph, outer)

    def tensor(self, tensor: TensorProto) -> None:
        """Checks that a tensor has the data that its type and dims ask for."""
        if any(dim < 0 for dim in tensor.dims):
            raise ModelError(f"tensor {tensor.name!r}: has a negative dim")
        payload = self._payload(tensor)
        if isinstance(payload, ExternalRange):
            if any(len(getattr(tensor, field)) for field in ("raw_data", *DATA_FIELDS)):
                raise ModelError(f"tensor {tensor.name!r}: has data of its own and in a data file")
            payload.open()
        elif payload is not None or tensor.HasField("raw_data"):
            size = len(tensor.raw_data) if payload is None else payload.nbytes
            _agree(tensor, size, raw_size(tensor), "bytes")
        elif expected := field_size(tensor):
            field, count = expected
            _agree(tensor, len(getattr(tensor, field)), count, f"entries of {field}")


def _check_sparse(sparse: onnx.SparseTensorProto) -> None:
    """As many indices as values: one for each into the flattened tensor, or one for each of its axes."""
    found, count = list(sparse.indices.dims), list(sparse.values.dims)
    if any(dim < 0 for dim in sparse.dims) or found not in (count, [*count, len(sparse.dims)]) or len(count) != 1:
        name = sparse.values.name
        raise ModelError(f"sparse tensor {name!r}: indices {found} do not fit values {count} of dims {[*sparse.dims]}")


def _check_split(node: onnx.NodeProto) -> None:
    """More outputs than it says to have: ONNX's shape inference would write past the end of a list."""
    for attribute in node.attribute:
        if attribute.name == "num_outputs" and attribute.i < len(node.output):
            raise ModelError(f"{_name(node)} has {len(node.output)} outputs, but num_outputs is {attribute.i}")


def _agree(tensor: TensorProto, found: int, expected: int | None, what: str) -> None:
    if expected is not None and found != expected:
        dims = list(tensor.dims)
        raise ModelError(f"tensor {tensor.name!r}: has {found} {what}, but its type and dims {dims} ask for {expected}")


def _distinct(names: Iterable[str], what: str) -> set[str]:
    known: set[str] = set()
    for name in names:
        if type(name) is not str:
            raise ModelError(_NOT_TEXT)
        if name in known:
            raise ModelError(f"there are two {what}s {name!r}")
        known.add(name)
    return known


def _undefined(node: onnx.NodeProto, value: str, nodes: Iterable[onnx.NodeProto]) -> str:
    if any(value in other.output for other in nodes):
        return f"nodes are not sorted or form a cycle: {_name(node)} reads {value!r} before it is computed"
    return f"{_name(node)} reads {value!r}, which nothing defines"


def _name(node: onnx.NodeProto) -> str:
    return f"{node.op_type!r} node {node.name or ', '.join(map(str, node.output))!r}"
