"""Shapes and element types, inferred when the first rule asks for one.

ONNX's own shape inference does the work, on the skeleton, from the declared graph inputs alone: shapes that a
file states for its inner values (``value_info``) are claims, and some are wrong.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import onnx.shape_inference
from onnx import GraphProto, TensorShapeProto, TypeProto

from bnfold.graph.op import Value, bodies

if TYPE_CHECKING:
    from bnfold.graph.index import Graph

Dim = int | str | None  # a size, the name of a symbolic one, or nothing known
Shape = tuple[Dim, ...]


class Shapes:
    """The shapes and types of a graph's values. No edit changes them, so they are inferred from the model as it came."""

    def __init__(self, graph: Graph) -> None:
        self._graph = graph
        self._snapshot = graph.model.proto.SerializeToString()
        self._inferred: list[dict[str, TypeProto]] | None = None  # one for each graph, in the order of its scopes
        self._alike: dict[Value, Value] = {}

    def of(self, value: Value) -> Shape | None:
        """The shape of a value, None where its rank is not known."""
        if value.tensor is not None:
            return tuple(value.tensor.dims)
        kind = self._type(value)
        if kind is None or not kind.HasField("tensor_type") or not kind.tensor_type.HasField("shape"):
            return None
        return tuple(_dim(dim) for dim in kind.tensor_type.shape.dim)

    def dtype(self, value: Value) -> np.dtype[Any] | None:
        """The element type of a value, None where it is not known."""
        number = value.tensor.data_type if value.tensor is not None else 0
        if not number and (kind := self._type(value)) is not None:
            number = kind.tensor_type.elem_type
        return np.dtype(onnx.helper.tensor_dtype_to_np_dtype(number)) if number else None

    def same(self, value: Value, as_value: Value) -> None:
        """Says that a value made by an edit has the shape and type of another."""
        self._alike[value] = self._alike.get(as_value, as_value)

    def _type(self, value: Value) -> TypeProto | None:
        if self._inferred is None:
            self._inferred = _infer(self._snapshot)
        value = self._alike.get(value, value)
        return self._inferred[value.scope.number].get(value.origin) if not value.scope.is_function else None


def _dim(dim: TensorShapeProto.Dimension) -> Dim:
    return dim.dim_value if dim.HasField("dim_value") else dim.dim_param or None


def _infer(serialized: bytes) -> list[dict[str, TypeProto]]:
    model = onnx.ModelProto.FromString(serialized)
    for graph in _graphs(model.graph):
        del graph.value_info[:]
    # data_prop follows the shapes that exporters compute: Shape, Gather, Concat, Reshape
    inferred = onnx.shape_inference.infer_shapes(model, data_prop=True)
    return [
        {entry.name: entry.type for entries in (graph.value_info, graph.input, graph.output) for entry in entries}
        for graph in _graphs(inferred.graph)
    ]


def _graphs(graph: GraphProto) -> Iterator[GraphProto]:
    """A graph and its subgraphs, in the order in which the index numbers their scopes."""
    yield graph
    for node in graph.node:
        for body in bodies(node):
            yield from _graphs(body)
