"""Models as ONNX's shape inference may have them: it ends the process at a Slice of what has a size below zero.

Such sizes stand in models (-1 is "any" to some exporters), or come of a window that is larger than what it gets.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import chain
from typing import Any

import onnx
from onnx import FunctionProto, GraphProto, TypeProto
from onnx.helper import make_function, make_node, make_opsetid

from bnfold.model_io.protobuf import copied
from bnfold.model_io.tensors import STANDARD_DOMAINS, bodies

FOLLOWED = frozenset(
    {"Concat", "Gather", "Slice", "Squeeze", "Unsqueeze", "Add", "Sub", "Mul", "Div", "Cast", "Identity", "Expand"}
)
"""The operators through which inference follows lists of sizes."""

_Nodes = Any  # a repeated field of nodes
_DOMAIN = "bnfold.inference"
_GUARD = make_function(
    _DOMAIN,
    "Sized",
    ["x"],
    ["y"],
    [  # inference finds fault with a ConstantOfShape of a size below zero, and says nothing of what it makes
        make_node("Shape", ["x"], ["sizes"]),
        make_node("ConstantOfShape", ["sizes"], ["constant"]),
        make_node("Shape", ["constant"], ["sound"]),
        make_node("Reshape", ["x", "sound"], ["y"]),
    ],
    [make_opsetid("", 18)],
)


def inferable(model: onnx.ModelProto) -> bytes:
    """The model as inference may have it: sizes below zero are unknown where they are declared, and behind a Slice.

    With ``data_prop`` inference finds the same as in the model itself; without it, it finds no sizes of Slices of data.
    """
    for graph in graphs(model.graph):
        for entry in chain(graph.input, graph.output, graph.value_info):
            for dim in entry.type.tensor_type.shape.dim:
                if dim.dim_value < 0:
                    dim.Clear()
    return bytes((_guarded(model) if _has_slices(model) else model).SerializeToString())


def graphs(graph: GraphProto) -> Iterator[GraphProto]:
    """A graph and its subgraphs, in the order in which the index numbers their scopes."""
    yield graph
    for node in graph.node:
        for body in bodies(node):
            yield from graphs(body)


def has_sizes_below_zero(types: Mapping[str, TypeProto]) -> bool:
    """Whether inference may not have a Slice of these."""
    return any(dim.dim_value < 0 for kind in types.values() for dim in kind.tensor_type.shape.dim)


def _has_slices(model: onnx.ModelProto) -> bool:
    return any(map(_slices, (model.graph, *model.functions)))


def _guarded(model: onnx.ModelProto) -> onnx.ModelProto:
    """A copy in which each Slice of data gets it from a function that says nothing of what has a size below zero."""
    model = copied(model)
    for nodes, place in reversed([found for body in (model.graph, *model.functions) for found in _slices(body)]):
        node = nodes[place]
        (data, *rest), made = node.input, f"{_DOMAIN}/{node.output[0]}"
        node.input[:] = [made, *rest]
        nodes.insert(place, make_node(_GUARD.name, [data], [made], domain=_DOMAIN))
    for importing in (model, *model.functions):
        importing.opset_import.append(make_opsetid(_DOMAIN, 1))
    model.functions.append(_GUARD)
    return model


def _slices(body: GraphProto | FunctionProto, around: frozenset[str] = frozenset()) -> list[tuple[_Nodes, int]]:
    """Where each Slice of data stands. Lists of sizes are followed through theirs, and none has a size below zero.

    Args:
        body: A graph or a function.
        around: Constants and lists of sizes of the graph around it.
    """
    lists = {*around, *(tensor.name for tensor in getattr(body, "initializer", ()))}
    found = []
    for place, node in enumerate(body.node):
        is_list = node.op_type in FOLLOWED and lists.issuperset(filter(None, node.input))
        if is_list or node.op_type in ("Shape", "Constant"):
            lists.update(node.output)
        elif node.op_type == "Slice" and node.domain in STANDARD_DOMAINS and node.input and node.output:
            found.append((body.node, place))
        for inner in bodies(node):
            found += _slices(inner, frozenset(lists))
    return found
