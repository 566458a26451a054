"""Names that a file mentions beside its nodes and initializers: no new value may take one of them.

Notes on shapes and quantization, metadata, shardings and training steps outlive the values that they were written for.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from google.protobuf.message import Message
from onnx import GraphProto, ModelProto, NodeProto

from bnfold.model_io.tensors import bodies, may_hold_graphs

_LONGEST = 1 << 10  # characters; metadata of nodes hold stack traces, too


def mentioned(model: ModelProto) -> Iterator[str]:
    """All names that a model mentions somewhere, and other short texts that may be one."""
    yield from _texts((*model.training_info, *model.metadata_props, *model.configuration))
    yield from _in_graph(model.graph)
    for function in model.functions:
        yield from (info.name for info in function.value_info)
        yield from _texts(function.metadata_props)
        yield from _in_nodes(function.node)


def read_in_training(model: ModelProto) -> Iterator[str]:
    """Names of values that training steps read, those that a Gradient has in its attributes included.

    ONNX appends a step's graph to that of the model, so it may read any value of it.
    """
    for training in model.training_info:
        for graph in (training.initialization, training.algorithm):
            yield from _read_in(graph)


def _read_in(graph: GraphProto) -> Iterator[str]:
    yield from (entry.name for entry in graph.output)
    for node in graph.node:
        yield from node.input
        for attribute in node.attribute:
            yield from (text.decode(errors="replace") for text in (attribute.s, *attribute.strings))
        for body in bodies(node):
            yield from _read_in(body)


def follow_rename(node: NodeProto, old: str, new: str) -> None:
    """Lets what a node says of a value's sharding follow the value that it now reads or makes; none for ""."""
    if not node.device_configurations or old in (*node.input, *node.output):
        return
    for configuration in node.device_configurations:
        specs = configuration.sharding_spec
        for index in reversed(range(len(specs))):
            if specs[index].tensor_name == old and new:
                specs[index].tensor_name = new
            elif specs[index].tensor_name == old:
                del specs[index]


def _in_graph(graph: GraphProto) -> Iterator[str]:
    for entries in (graph.value_info, graph.input, graph.output):
        for entry in entries:
            yield entry.name
            yield from _texts(entry.metadata_props)
    yield from _texts((*graph.quantization_annotation, *graph.metadata_props))
    for tensor in graph.initializer:
        yield from _texts(tensor.metadata_props)
    yield from _in_nodes(graph.node)


def _in_nodes(nodes: Iterable[NodeProto]) -> Iterator[str]:
    for node in nodes:
        if node.metadata_props or node.device_configurations:
            yield from _texts((*node.metadata_props, *node.device_configurations))
        if may_hold_graphs(node):  # a generator takes longer to say no
            for body in bodies(node):
                yield from _in_graph(body)


def _texts(messages: Iterable[Message]) -> Iterator[str]:
    """All texts in some messages, however deep."""
    for message in messages:
        for field, value in message.ListFields():
            values = [value] if isinstance(value, str | bytes | Message) else value
            if field.type == field.TYPE_STRING:  # one that is no UTF-8 comes as bytes
                yield from (text for text in values if isinstance(text, str) and len(text) < _LONGEST)
            elif field.type == field.TYPE_MESSAGE:
                yield from _texts(values)
