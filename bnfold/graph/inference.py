"""Models as ONNX's shape inference may have them: it ends the process at some."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain

import onnx
from onnx import GraphProto

from bnfold.model_io.tensors import bodies


def inferable(model: onnx.ModelProto) -> bytes:
    """The model, in which sizes below zero ("any", to some exporters) become unknown, as inference may have it.

    At a Slice of such a size, an assertion of ONNX's inference fails and ends the process.
    """
    for graph in graphs(model.graph):
        for entry in chain(graph.input, graph.output, graph.value_info):
            for dim in entry.type.tensor_type.shape.dim:
                if dim.dim_value < 0:
                    dim.Clear()
    return bytes(model.SerializeToString())


def graphs(graph: GraphProto) -> Iterator[GraphProto]:
    """A graph and its subgraphs, in the order in which the index numbers their scopes."""
    yield graph
    for node in graph.node:
        for body in bodies(node):
            yield from graphs(body)
