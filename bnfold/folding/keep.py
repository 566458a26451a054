"""Nodes that the user wants as they are: which they are, and what of them an edit would change.

A kept node is in the folded model as it was, byte for byte: its operator, attributes and bodies, and the names of what
it reads and makes, which mean what they meant. So not only may no edit name it; a value beside it may not be renamed,
and it may not come to stand unread, as what led to a weight does when the weight gets a copy.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from difflib import get_close_matches
from fnmatch import fnmatchcase
from itertools import chain

from onnx import FunctionProto

from bnfold.folding.unread import op_of, unread_after
from bnfold.graph import Graph, Op, Scope, Value
from bnfold.model_io import Model, ModelError
from bnfold.ops import Detach, Edit, Moved

_LOOKED_AT = 4000  # labels, for one that looks like a mistyped pattern: a second at the most

# --- which they are ------------------------------------------------------------------------------------------


def check_patterns(model: Model, patterns: Sequence[str]) -> None:
    """What ``plan`` says of patterns, before any other work.

    Raises:
        ModelError: a pattern matches nothing.
    """
    _marked(model, patterns)


def mark_kept(graph: Graph, patterns: Sequence[str]) -> None:
    """Marks the ops whose label matches a pattern, and all that is inside them: bodies, and functions that they call.

    Raises:
        ModelError: a pattern matches nothing.
    """
    labels = list(dict.fromkeys(op.label for op in graph.ops())) if patterns else []
    named: set[str] = set()
    for pattern in patterns:
        matching = {label for label in labels if label == pattern or fnmatchcase(label, pattern)}
        if not matching:
            raise ModelError(f"{graph.model.path or 'model'}: no node matches {pattern!r}{_near(pattern, labels)}")
        named |= matching
    functions = _functions(graph)
    pending = [op for op in graph.ops() if op.label in named]
    while pending:
        op = pending.pop()
        if not op.is_kept:
            op.is_kept = graph.has_kept = True
            inside = (*op.bodies, *functions.get((op.node.domain, op.node.op_type), ()))
            pending += chain.from_iterable(scope.ops for scope in inside)


def kept_functions(model: Model, patterns: Sequence[str]) -> list[tuple[str, str]]:
    """The functions that must not be written out where they are called: those with a kept node, or called by one."""
    if not patterns:
        return []
    graph = _marked(model, patterns)
    called = {(op.node.domain, op.node.op_type) for op in graph.ops() if op.is_kept}
    return [
        function
        for function, scopes in _functions(graph).items()
        if function in called or any(op.must_stay for scope in scopes for op in scope.ops)
    ]


def _marked(model: Model, patterns: Sequence[str]) -> Graph:
    graph = Graph(model)
    mark_kept(graph, patterns)
    return graph


def _functions(graph: Graph) -> dict[tuple[str, str], list[Scope]]:
    functions: dict[tuple[str, str], list[Scope]] = {}
    for scope in graph.scopes:
        if isinstance(scope.proto, FunctionProto):
            functions.setdefault((scope.proto.domain, scope.proto.name), []).append(scope)
    return functions


def _near(pattern: str, labels: Sequence[str]) -> str:
    """Which labels look like a pattern; like its beginning, if it leaves the rest open."""
    size = len(pattern.rstrip("*")) if pattern.endswith("*") else None
    candidates = {label[:size].lower(): label for label in reversed(labels[:_LOOKED_AT])}
    near = get_close_matches(pattern[:size].lower(), candidates)
    return "; near it: " + ", ".join(candidates[label] for label in near) if near else ""


# --- what would change them ----------------------------------------------------------------------------------


def kept_that_changes(edits: Sequence[Edit]) -> Op | None:
    """The first kept op that edits would change, remove or leave without a reader."""
    if not edits or not op_of(edits[0]).graph.has_kept:
        return None
    return min((op for op in _changed(edits) if op.is_kept), key=lambda op: op.place, default=None)


def _changed(edits: Sequence[Edit]) -> Iterator[Op]:
    """The ops that edits change or remove."""
    for edit in edits:
        op = op_of(edit)
        yield op
        match edit:
            case Moved():
                yield from _readers(edit.value)
            case Detach():
                yield from _around(op.data(edit.stays)) if edit.keeps_name else _readers(op.output)
            case _:
                yield from _fed_by(op)
    yield from unread_after(edits).ops


def _around(value: Value) -> Iterator[Op]:
    """The ops in which the name of a value stands."""
    if value.producer is not None:
        yield value.producer
    yield from _readers(value)


def _readers(value: Value) -> Iterator[Op]:
    return (use.op for use in value.readers)


def _fed_by(op: Op) -> Iterator[Op]:
    """The readers of a constant that an op computes, and of those computed from it: it keeps its name, they change."""
    fed, pending = {op}, [op]
    while pending:
        for value in filter(None, pending.pop().outputs):
            if op.graph.constant(value) is not None:
                new = {*_readers(value)} - fed
                yield from new
                fed |= new
                pending += new
