"""Model-local functions, written out where they are called: counted first, since n lines can stand for 2^n nodes."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from graphlib import CycleError, TopologicalSorter

import onnx
import onnx.inliner
from onnx import NodeProto

from bnfold.graph.inference import apart
from bnfold.model_io import Model
from bnfold.model_io.protobuf import encoded, parse, size_of
from bnfold.model_io.tensors import STANDARD_DOMAINS, bodies
from bnfold.model_io.validate import check_model
from bnfold.reasons import Reason, Refused

_TIMES, _MORE = 10, 100_000  # nodes that a model may become: so many times those that it has, and so many beside that
_BYTES = 1000  # of attributes that count as another node
_A_NODE = 100  # bytes, about

_Key = tuple[str, str, str]


def inlined(model: Model, *, but: Sequence[tuple[str, str]] = (), convert_version: bool = False) -> Model:
    """The model without functions of its own: their nodes stand where they are called.

    Args:
        model: The model, which is not changed.
        but: Domains and names of functions that stay, and are called where they were.
        convert_version: Whether functions of another opset are converted to that of the model.

    Raises:
        Refused: That would be too many nodes, a function calls itself, or ONNX's inliner cannot do it, or crashes.
    """
    if not model.proto.functions:
        return model
    nodes = _refuse_beyond_bounds(model.proto)
    copy = model.copy()

    def made() -> bytes:
        _fill_in_defaults(copy.proto, but)  # here, since a default may be large, and calls many
        # the markers that stand for large weights are copied along with the nodes that hold them
        if but:
            whole = onnx.inliner.inline_selected_functions(copy.proto, list(but), exclude=True)
        else:
            whole = onnx.inliner.inline_local_functions(copy.proto, convert_version=convert_version)
        return encoded(whole)

    try:
        copy.proto = parse(apart(made, size_of(copy.proto) + nodes * _A_NODE))
        check_model(copy.proto, copy.payload)  # it loses the output of a function that is one of its inputs
    except Exception as error:  # it has many, for each way in which a model can be invalid
        raise Refused(Reason.NOT_INLINED, detail="ONNX's inliner cannot do it") from error
    return copy


def _fill_in_defaults(proto: onnx.ModelProto, but: Sequence[tuple[str, str]]) -> None:
    """Gives every call the attributes for which its function has a default: ONNX's inliner knows of none.

    Args:
        proto: A model, which is changed.
        but: Domains and names of functions whose calls stay as they are.

    Raises:
        Refused: Whether a call gives one depends on what another function is given.
    """
    functions = {_key(each.domain, each.name, each.overload): each for each in proto.functions}
    calls = [
        (key, called, node, {attribute.name: attribute.ref_attr_name for attribute in node.attribute})
        for key, nodes in ((None, proto.graph.node), *((key, each.node) for key, each in functions.items()))
        for node in _all(nodes)
        if (called := _key(node.domain, node.op_type, node.overload)) in functions
    ]
    lacking = {  # what some call does not give, or as another function is given it, which may be not at all
        (called, name)
        for key, called, _, given in calls
        for name in functions[called].attribute
        if name not in given or (key and given[name] in functions[key].attribute)
    }
    for key, called, node, given in calls:
        defaults = functions[called].attribute_proto if (node.domain, node.op_type) not in but else ()
        if any((key, given.get(attribute.name)) in lacking for attribute in defaults):
            raise Refused(Reason.NOT_INLINED, detail="a default is behind an attribute that may not be given")
        node.attribute.extend(attribute for attribute in defaults if attribute.name not in given)


def _refuse_beyond_bounds(proto: onnx.ModelProto) -> int:
    """Counts the nodes that would be there without functions, calls multiplied along the call graph.

    Raises:
        Refused: That is too much, or has no end.
    """
    functions = {_key(each.domain, each.name, each.overload): each for each in proto.functions}
    calls = {key: list(_calls(each.node, functions.keys())) for key, each in functions.items()}
    try:
        order = list(TopologicalSorter(calls).static_order())
    except CycleError as error:
        raise Refused(Reason.NOT_INLINED, detail=f"{error.args[1][0][1]} calls itself") from error
    own = {key: _size(each.node) for key, each in functions.items()}
    stored = _size(proto.graph.node)
    most = _TIMES * (stored + sum(own.values())) + _MORE
    sizes: dict[_Key, int] = {}
    for key in order:
        # no further than one beyond the bound: the true number may have as many digits as there are functions
        sizes[key] = min(own[key] + sum(sizes[called] for called in calls[key]), most + 1)
    total = stored + sum(sizes[called] for called in _calls(proto.graph.node, functions.keys()))
    if total > most:
        raise Refused(Reason.NOT_INLINED, detail=f"that would be more than {most} nodes")
    return total


def are_bounded(proto: onnx.ModelProto) -> bool:
    """Whether whatever follows each call of a function comes to an end, and soon; shape inference does, for one."""
    try:
        _refuse_beyond_bounds(proto)
    except Refused:
        return False
    return True


def _calls(nodes: Iterable[NodeProto], functions: Iterable[_Key]) -> Iterator[_Key]:
    for node in _all(nodes):
        if (key := _key(node.domain, node.op_type, node.overload)) in functions:
            yield key


def _key(domain: str, name: str, overload: str) -> _Key:
    return "" if domain in STANDARD_DOMAINS else domain, name, overload


def _size(nodes: Iterable[NodeProto]) -> int:
    return sum(1 + size_of(node) // _BYTES for node in _all(nodes))


def _all(nodes: Iterable[NodeProto]) -> Iterator[NodeProto]:
    for node in nodes:
        yield node
        for body in bodies(node):
            yield from _all(body.node)
