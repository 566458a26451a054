"""What a fold leaves behind goes: constants that nothing reads any more, and what only led to them."""

from __future__ import annotations

from collections.abc import Callable, MutableSequence
from typing import TypeVar

from onnx import GraphProto

from bnfold.graph import Graph, Scope, Value

T = TypeVar("T")


def remove_dead(graph: Graph) -> None:
    """Removes values that lost their last reader to a fold. What nobody read before stays."""
    initializers: dict[Scope, set[str]] = {}
    while graph.released:
        value, _ = graph.released.popitem()
        if value.readers or value.is_output:
            continue
        if value.producer is not None:
            if not any(map(_is_used, value.producer.outputs)):
                graph.remove(value.producer)
        elif value.tensor is not None:
            initializers.setdefault(value.scope, set()).add(value.name)
    for scope, names in initializers.items():
        assert isinstance(scope.proto, GraphProto)
        _drop(scope.proto.initializer, lambda tensor, names=names: tensor.name in names)
        # before IR version 4 every initializer is an input as well
        _drop(scope.proto.input, lambda entry, names=names: entry.name in names)
        scope.is_edited = True


def drop_stale_notes(graph: Graph) -> None:
    """Removes the shape and quantization notes of values that are gone from the scopes that were edited."""
    for scope in graph.scopes:
        if not scope.is_edited:
            continue
        proto = scope.proto
        live = {name for op in scope.live_ops() for name in op.node.output}
        if isinstance(proto, GraphProto):
            live.update(entry.name for entries in (proto.input, proto.initializer) for entry in entries)
            live.update(sparse.values.name for sparse in proto.sparse_initializer)
            _drop(proto.quantization_annotation, lambda note, live=live: note.tensor_name not in live)
        else:
            live.update(proto.input)
        _drop(proto.value_info, lambda info, live=live: info.name not in live)


def _is_used(value: Value | None) -> bool:
    return value is not None and (bool(value.readers) or value.is_output)


def _drop(messages: MutableSequence[T], is_dead: Callable[[T], bool]) -> None:
    for index in reversed([index for index, message in enumerate(messages) if is_dead(message)]):
        del messages[index]
