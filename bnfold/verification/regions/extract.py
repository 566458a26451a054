"""The two sides of a region as models of their own, with the values that tell them apart."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
import onnx.checker
from onnx import helper

from bnfold.graph import Graph, Op, Value
from bnfold.model_io import to_proto
from bnfold.model_io.protobuf import encoded
from bnfold.verification.evidence import Evidence
from bnfold.verification.float64.evaluate import CannotEvaluate
from bnfold.verification.float64.kernel import as_real
from bnfold.verification.regions.numbering import Number
from bnfold.verification.regions.side import Array, Given, Side
from bnfold.verification.result import RegionResult

_LEAST_IR = 4  # before, initializers had to be inputs
_PLAIN = "biuf"  # kinds of types that numpy's files know


@dataclass(frozen=True)
class _Port:
    """An input or output of both models.

    Attributes:
        name: Its name, which is none of theirs.
        dtype: Its type in them.
        array: Values, in float64 if they are numbers.
    """

    name: str
    dtype: np.dtype[Any]
    array: Array

    @property
    def outer(self) -> np.dtype[Any]:
        """Its type as an input or output: one that numpy's files know."""
        return self.dtype if self.dtype.kind in _PLAIN else np.dtype(np.float32)

    @property
    def stored(self) -> Array:
        """The values as the models take them."""
        with np.errstate(over="ignore"):
            return self.array.astype(self.dtype).astype(self.outer)

    @property
    def info(self) -> onnx.ValueInfoProto:
        return helper.make_tensor_value_info(self.name, helper.np_dtype_to_tensor_dtype(self.outer), self.array.shape)


def evidence(graphs: tuple[Graph, Graph], left: Side, right: Side, given: Given, result: RegionResult) -> Evidence:
    """Both sides as models, and what they make of the values, rounded to the types that the models have.

    Args:
        graphs: Both models.
        left: The side of BEFORE.
        right: The side of AFTER.
        given: Values for which the sides differ.
        result: What was found.

    Raises:
        CannotEvaluate: The sides cannot stand alone.
        ModelError: A weight cannot be read, or the models would be over 2 GiB.
    """
    if left.how.forced or right.how.forced:
        raise CannotEvaluate("it shows in a branch of an If that nothing that was tried takes")
    border = {number: value for side in (right, left) for value, number in side.region.border.items()}
    ports = {
        number: _Port(_fresh(f"input_{place}", graphs), _dtype(graphs, value), given[number])
        for place, (number, value) in enumerate(border.items())
    }
    rounded = {number: port.stored.astype(as_real(port.outer)) for number, port in ports.items()}
    made = left.value(rounded), right.value(rounded)
    name = _fresh("output", graphs)
    models = [
        _extracted(graph, side, ports, _Port(name, _dtype((graph, *graphs), side.region.target), array))
        for graph, side, array in zip(graphs, (left, right), made, strict=True)
    ]
    inputs = {port.name: port.stored for port in ports.values()}
    return Evidence(inputs, [(name, name, *made)], {"region": result.to_dict()}, (models[0], models[1]))


def _extracted(graph: Graph, side: Side, ports: Mapping[Number, _Port], output: _Port) -> bytes:
    """A region as a model: its values have the names that they have in the graph; see `_handed`."""
    region, original = side.region, graph.model.proto
    kept = [value for value in region.constants if _is_initializer(value) and value not in region.border]
    kept = [value for value in kept if not _is_inside(value, region.ops)]
    nodes = [_handed(ports[number], ports[number].name, value.name) for value, number in region.border.items()]
    nodes += [op.node for op in region.ops]
    nodes.append(_handed(output, region.target.name, output.name))
    model = helper.make_model(
        helper.make_graph(nodes, "region", [port.info for port in ports.values()], [output.info]),
        opset_imports=original.opset_import,
        ir_version=max(original.ir_version, _LEAST_IR),
        functions=original.functions,
    )
    model.graph.initializer.extend(value.tensor for value in kept if value.tensor is not None)
    model.graph.sparse_initializer.extend(value.sparse for value in kept if value.sparse is not None)
    whole = graph.model.copy()  # which knows where the bytes of the weights are
    whole.proto = model
    whole_proto = to_proto(whole)
    try:
        onnx.checker.check_model(whole_proto, full_check=True)
    except Exception as error:  # it has several; of values in different scopes, two may have the same name
        raise CannotEvaluate(f"alone it is no valid model: {' '.join(str(error).split())[:200]}") from error
    return encoded(whole_proto)


def _handed(port: _Port, source: str, target: str) -> onnx.NodeProto:
    """An input or output under the name that the value has in the graph: both models have the same names outside."""
    inside, outside = (helper.np_dtype_to_tensor_dtype(dtype) for dtype in (port.dtype, port.outer))
    if inside == outside:
        return helper.make_node("Identity", [source], [target])
    return helper.make_node("Cast", [source], [target], to=inside if source == port.name else outside)


def _is_initializer(value: Value) -> bool:
    return value.producer is None and (value.tensor is not None or value.sparse is not None)


def _is_inside(value: Value, ops: Sequence[Op]) -> bool:
    """Whether it belongs to a body of one of the operators."""
    scope = value.scope
    while scope.owner is not None and scope.parent is not None:
        if scope.owner in ops:
            return True
        scope = scope.parent
    return False


def _dtype(graphs: Sequence[Graph], value: Value) -> np.dtype[Any]:
    """The type of a value of one of the graphs."""
    for graph in graphs:
        if graph.scopes[value.scope.number] is value.scope and (dtype := graph.dtype(value)) is not None:
            return dtype
    raise CannotEvaluate(f"the type of {value.name!r} is not known")


def _fresh(name: str, graphs: Sequence[Graph]) -> str:
    while any(graph.is_taken(name) for graph in graphs):
        name = f"{name}_"
    return name
