"""ONNX's own code, which ends the process at some models, and goes on for ever at others: shape inference, mostly.

It aborts at a Slice of what has a size below zero. Such sizes stand in models (-1 is "any" to some exporters), or come
of a window that is larger than what it gets; they are made unknown. What is not known to be harmless is inferred in a
copy of the process.
"""

from __future__ import annotations

import faulthandler
import os
import signal
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import chain
from typing import Any, TypeVar

import onnx
import onnx.defs
import onnx.shape_inference
from onnx import FunctionProto, GraphProto, ModelProto, NodeProto, TensorProto, TypeProto
from onnx.helper import make_function, make_node, make_opsetid

from bnfold.confined import Exhausted, confined
from bnfold.graph.harmless import FOLLOWED, graphs, is_harmless, sizes_are_few
from bnfold.limits import Limits
from bnfold.model_io.protobuf import copied, encoded, parse
from bnfold.model_io.tensors import STANDARD_DOMAINS, bodies

_SECONDS, _A_BYTE = 1.0, 1e-6  # of CPU time: a few hundred times as long as it takes
_PATIENCE = 60.0  # times that, by the clock, for a machine that is busy
_MEMORY, _BYTES = 1 << 30, 100  # and for each byte of a model

_FEW, _SHORT = 1 << 12, 1 << 12  # operators of which what inference says is kept, and bytes of one of them

_Result = TypeVar("_Result")
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


@dataclass(frozen=True)
class Inferable:
    """A model as inference may have it.

    Attributes:
        data: The model, serialised.
        follows: Whether inference may follow lists of sizes.
        is_harmless: Whether it may do so in this process.
    """

    data: bytes
    follows: bool
    is_harmless: bool

    def inferred(self, *, strict: bool = False) -> ModelProto:
        """What inference makes of it.

        Raises:
            Exception: It has many, for an opset or a domain that it does not know, and for what it finds invalid.
            Exhausted: It ended its process, or took too long.
        """
        if self.is_harmless:
            return self._here(strict)
        try:
            return self._apart(strict)
        except Exhausted:
            if not self.follows:
                raise
            return replace(self, follows=False)._apart(strict)

    def _here(self, strict: bool) -> ModelProto:
        # data_prop follows the shapes that exporters compute: Shape, Gather, Concat, Reshape
        return onnx.shape_inference.infer_shapes(self.data, strict_mode=strict, data_prop=self.follows)

    def _apart(self, strict: bool) -> ModelProto:
        return parse(apart(lambda: encoded(self._here(strict)), len(self.data)))


def apart(work: Callable[[], _Result], size: int) -> _Result:
    """What ONNX's own code makes of a model of so many bytes, in a copy of the process.

    Raises:
        Exhausted: It ended its process, or took too long.
    """
    seconds = _SECONDS + size * _A_BYTE

    def held(_: object) -> _Result:
        _end_quietly(seconds)
        return work()

    return confined(held, Limits(seconds * _PATIENCE, _MEMORY + size * _BYTES), lambda *_: None)


def inferred_types(
    opset: int, node: NodeProto, types: Mapping[str, TypeProto], data: Mapping[str, TensorProto]
) -> dict[str, TypeProto]:
    """What inference says of the outputs of one operator, by name; nobody may write to it.

    Args:
        opset: The version of its definition.
        node: The operator, of the standard domain.
        types: Those of its inputs, no size below zero among them.
        data: Its inputs that are known.

    Raises:
        Exception: The operator does not take what it gets, or there is none of that name.
        Exhausted: Inference ended its process, or took too long.
    """
    alone = encoded(_nameless(node, types, data), deterministic=True)
    found = (_inferred if len(alone) <= _SHORT else _inferred.__wrapped__)(opset, alone)
    return {name: found[place] for place, name in enumerate(node.output) if place in found}


def _nameless(node: NodeProto, types: Mapping[str, TypeProto], data: Mapping[str, TensorProto]) -> ModelProto:
    """A model of that operator alone, the same for all that are alike: networks repeat a few of them many times."""
    model = ModelProto()
    own = model.graph.node.add()
    own.CopyFrom(node)
    own.ClearField("name")
    own.ClearField("doc_string")
    places = {name: f"x{place}" for place, name in enumerate(node.input) if name}
    own.input[:] = [places.get(name, "") for name in node.input]
    own.output[:] = [f"y{place}" if name else "" for place, name in enumerate(node.output)]
    for name, place in places.items():
        if name in types:
            model.graph.input.add(name=place).type.CopyFrom(types[name])
        if name in data:
            model.graph.initializer.add().CopyFrom(data[name])
            model.graph.initializer[-1].name = place
    return model


@lru_cache(_FEW)
def _inferred(opset: int, alone: bytes) -> Mapping[int, TypeProto]:
    """What inference says of the outputs of the one operator of a model, by their places."""
    model = parse(alone)
    node = model.graph.node[0]
    schema = onnx.defs.get_schema(node.op_type, opset)
    types = {entry.name: entry.type for entry in model.graph.input}
    data = {tensor.name: tensor for tensor in model.graph.initializer}

    def made() -> dict[str, TypeProto]:
        return onnx.shape_inference.infer_node_outputs(schema, node, types, data)

    found = made() if is_harmless(model) else apart(made, len(alone))
    return {place: found[name] for place, name in enumerate(node.output) if name in found}


def _end_quietly(seconds: float) -> None:
    """Lets the system end this process after so much CPU time; whatever ends it leaves no message and no file."""
    if sys.platform == "linux":  # elsewhere this is bnfold's own process
        import resource  # noqa: PLC0415 -- not everywhere

        signal.signal(signal.SIGPROF, signal.SIG_DFL)
        signal.setitimer(signal.ITIMER_PROF, seconds)
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        faulthandler.disable()
        os.dup2(os.open(os.devnull, os.O_WRONLY), 2)


def inferable(model: ModelProto) -> Inferable:
    """The model as inference may have it: sizes below zero are unknown where they are declared, and behind a Slice.

    With ``data_prop`` inference finds the same as in the model itself; without it, it finds no sizes of Slices of data.
    """
    for graph in graphs(model.graph):
        for entry in chain(graph.input, graph.output, graph.value_info):
            for dim in entry.type.tensor_type.shape.dim:
                if dim.dim_value < 0:
                    dim.Clear()
    data = encoded(_guarded(model) if _has_slices(model) else model)
    return Inferable(data, sizes_are_few(model.graph), is_harmless(model))


def has_sizes_below_zero(types: Mapping[str, TypeProto]) -> bool:
    """Whether inference may not have a Slice of these."""
    return any(dim.dim_value < 0 for kind in types.values() for dim in kind.tensor_type.shape.dim)


def _has_slices(model: ModelProto) -> bool:
    return any(map(_slices, (model.graph, *model.functions)))


def _guarded(model: ModelProto) -> ModelProto:
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
