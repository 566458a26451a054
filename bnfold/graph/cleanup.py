"""What edits leave behind goes: constants that nothing reads any more, and what only led to them."""

from __future__ import annotations

from collections.abc import MutableSequence
from typing import Any

from onnx import GraphProto

from bnfold.graph.index import Graph
from bnfold.graph.op import Scope, Value

_DEFAULTS_FROM_IR = 4  # before it every initializer is an input as well


def remove_dead(graph: Graph, *, keeps_inputs: bool = False) -> None:
    """Removes values that lost their last reader to an edit. What nobody read before stays.

    Args:
        graph: The index.
        keeps_inputs: An input that a caller may give stays one, even if the index takes its default for a constant.
    """
    keeps_inputs = keeps_inputs and graph.model.proto.ir_version >= _DEFAULTS_FROM_IR
    initializers: dict[Scope, set[str]] = {}
    noted = _noted(graph)
    while graph.released:
        value, _ = graph.released.popitem()
        if value.readers or value.is_output or graph.may_be_given(value) or (keeps_inputs and value.is_input):
            continue
        if value.producer is not None:
            producer = value.producer
            if not (any(map(_is_used, producer.outputs)) or producer.must_stay or producer.shadowed):
                graph.remove(producer)
        elif (value.tensor is not None or value.sparse is not None) and value.name not in noted:
            initializers.setdefault(value.scope, set()).add(value.name)
    for scope, names in initializers.items():
        assert isinstance(scope.proto, GraphProto)
        _drop(scope.proto.initializer, [tensor.name in names for tensor in scope.proto.initializer])
        sparse_initializers = scope.proto.sparse_initializer
        _drop(sparse_initializers, [sparse.values.name in names for sparse in sparse_initializers])
        _drop(scope.proto.input, [entry.name in names for entry in scope.proto.input])
        scope.is_edited = True


def drop_stale_notes(graph: Graph) -> None:
    """Removes the shape and quantization notes of values that are gone from the scopes that were edited."""
    for scope in graph.scopes:
        proto = scope.proto
        notes = proto.quantization_annotation if isinstance(proto, GraphProto) else []
        if not scope.is_edited or not (proto.value_info or notes):
            continue
        live = {name for op in scope.live_ops() for name in op.node.output}
        if isinstance(proto, GraphProto):
            live.update(entry.name for entries in (proto.input, proto.initializer) for entry in entries)
            live.update(sparse.values.name for sparse in proto.sparse_initializer)
            _drop(notes, [note.tensor_name not in live for note in notes])
        else:
            live.update(proto.input)
        _drop(proto.value_info, [info.name not in live for info in proto.value_info])


def _noted(graph: Graph) -> set[str]:
    """Initializers that a quantization note names."""
    notes = graph.model.proto.graph.quantization_annotation
    return {entry.value for note in notes for entry in note.quant_parameter_tensor_names}


def _is_used(value: Value | None) -> bool:
    return value is not None and (bool(value.readers) or value.is_output)


def _drop(messages: MutableSequence[Any], is_dead: list[bool]) -> None:
    for index in reversed(range(len(messages))):
        if is_dead[index]:
            del messages[index]
