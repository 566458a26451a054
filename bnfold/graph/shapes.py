"""Shapes and element types, inferred when the first rule asks for one.

ONNX's own shape inference does the work, on the skeleton, from the declared graph inputs alone: shapes that a file
states for its inner values (``value_info``, and outputs of bodies) are claims, and some are wrong. Of an initializer
that a caller may override, or that a training step assigns to, the declared shape and type hold, and not the values.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import chain
from math import prod
from typing import Any

import numpy as np
import onnx
from onnx import GraphProto, NodeProto, TensorProto, TypeProto

from bnfold.graph.constants import Constants
from bnfold.graph.evaluate import EVALUATORS
from bnfold.graph.facts import FEW_SIZES, Dim, Shape, knowledge, shape_of
from bnfold.graph.functions import are_bounded
from bnfold.graph.harmless import graphs
from bnfold.graph.inference import inferable
from bnfold.graph.notes import channel_notes, reshape_notes, take_notes
from bnfold.graph.op import Index, Op, Value
from bnfold.model_io.protobuf import encoded, parse
from bnfold.model_io.tensors import STANDARD_DOMAINS, type_name
from bnfold.reasons import Refused

_MAX_REFINEMENTS = 64  # where sizes are computed from those of what is sliced, say, and not of what is reshaped
_FEW_REFINEMENTS = 8
_REFINED_NODES = 100_000  # that inference goes through in all of them, beyond the first few
_NEAR = 32  # operators between a value and the Conv that tells its rank
_OF_SCALES_TYPE = ("RMSNormalization", "SimplifiedLayerNormalization")  # ONNX's inference takes that of the data
_MAKE_FLOATS = ("Scaler", "Normalizer")  # of the shape that they are given, whatever its type
_SHAPE_KEEPING = frozenset({"BatchNormalization", "Relu", "LeakyRelu", "Clip", "Sigmoid", "Identity", "Dropout"})


class Shapes:
    """The shapes and types of a graph's values. No edit changes them: they are inferred from the model as it came."""

    def __init__(self, index: Index, constants: Constants) -> None:
        self._index = index
        self._constants = constants
        self._snapshot = encoded(index.model.proto)
        self._inferred: list[dict[str, TypeProto]] | None = None  # one for each graph, in the order of its scopes
        self._alike: dict[Value, Value] = {}
        self._is_refined = False

    def of(self, value: Value) -> Shape | None:
        """The shape of a value, None where its rank is not known."""
        if (tensor := self._own_tensor(value)) is not None:
            return tuple(tensor.dims)
        shape = shape_of(self._type(value))
        if (shape is None or any(knowledge(dim) < 2 for dim in shape)) and not self._is_refined:
            self._refine()
            shape = shape_of(self._type(value))
        return self._from_neighbours(value) if shape is None else shape

    def at_least(self, value: Value) -> Shape | None:
        """The rank of a value and perhaps sizes; without inferring anything where a Conv beside it says as much."""
        return (self._from_neighbours(value) if self._inferred is None else None) or self.of(value)

    def dtype(self, value: Value) -> np.dtype[Any] | None:
        """The element type of a value, None where it is not known."""
        tensor = self._own_tensor(value)
        number = 0 if tensor is None else tensor.data_type
        if not number and (kind := self._type(value)) is not None:
            number = kind.tensor_type.elem_type
        is_known = number and type_name(number)
        return np.dtype(onnx.helper.tensor_dtype_to_np_dtype(number)) if is_known else None

    def assume(self, shapes: Mapping[str, Shape]) -> None:
        """Takes shapes of the model's inputs for known."""
        model = parse(self._snapshot)
        for entry in model.graph.input:
            if entry.name in shapes:
                elem_type = entry.type.tensor_type.elem_type
                entry.type.CopyFrom(onnx.helper.make_tensor_type_proto(elem_type, shapes[entry.name]))
        self._snapshot = encoded(model)
        self._inferred, self._is_refined = None, False
        self._constants.ask_again()

    def same(self, value: Value, as_value: Value) -> None:
        """Says that a value made by an edit has the shape and type of another."""
        self._alike[value] = self._alike.get(as_value, as_value)

    def _own_tensor(self, value: Value) -> TensorProto | None:
        """The initializer of a value, unless it is a default in the place of which others may be given."""
        in_body = value.scope.parent is not None
        return None if value.is_input and self._constants.may_be_given(in_body=in_body) else value.tensor

    def _copy(self) -> onnx.ModelProto:
        """The model as it came, without what inference is not to believe."""
        model = parse(self._snapshot)
        if not are_bounded(model):  # inference follows every call
            del model.functions[:]
        for number, graph in enumerate(graphs(model.graph)):
            del graph.value_info[:]
            for entry in graph.output if number else ():  # of a body they are claims as well
                if entry.type.HasField("tensor_type"):
                    entry.type.tensor_type.ClearField("shape")
            if self._constants.may_be_given(in_body=number > 0):
                _forget_initializers(graph, {entry.name for entry in graph.input})
        _declare(model.graph, self._constants.trained)
        return model

    def _type(self, value: Value) -> TypeProto | None:
        if self._inferred is None:
            self._inferred = _infer(self._copy())
        value = self._alike.get(value, value)
        return self._inferred[value.scope.number].get(value.origin) if not value.scope.is_function else None

    def _refine(self) -> None:
        """Infers again with what ONNX's inference leaves out: computed integers, targets of Reshape, channels."""
        self._is_refined = True
        values = {value.origin: value for value in self._index.main.values.values()}
        model = self._copy()
        most = min(_MAX_REFINEMENTS, max(_FEW_REFINEMENTS, _REFINED_NODES // max(len(model.graph.node), 1)))
        for _ in range(most):  # what one round fills in, the next can build on
            filled = [self._fill_in(node, values) for node in model.graph.node]
            if not any([*filled, *self._notes(model.graph, values)]):
                break
            self._inferred = _infer(model)
            self._constants.ask_again()

    def _fill_in(self, node: NodeProto, values: dict[str, Value]) -> bool:
        """Replaces a node that computes a few integers by a Constant."""
        value = values.get(node.output[0]) if node.op_type in EVALUATORS and node.output else None
        constant = None if value is None else self._index.constant(value)
        if constant is None or constant.dtype.kind != "i" or prod(constant.shape) > FEW_SIZES:
            return False
        tensor = onnx.numpy_helper.from_array(constant.array())
        node.CopyFrom(onnx.helper.make_node("Constant", [], list(node.output), value=tensor))
        return True

    def _notes(self, graph: GraphProto, values: dict[str, Value]) -> Iterator[bool]:
        """Notes what inference leaves out; for each graph, whether that is news."""
        for number, (part, types) in enumerate(zip(graphs(graph), self._inferred or (), strict=True)):
            yield take_notes(
                part, [*channel_notes(part, types), *(() if number else reshape_notes(part, types, values))]
            )

    def _from_neighbours(self, value: Value) -> Shape | None:
        """What a Conv on either side says of a value: its rank and channels, be it in a function."""
        for use in value.readers:
            if use.op.type == "Conv" and use.index == 0 and (kernel := self._kernel(use.op)):
                return None, _times_group(kernel[1], use.op), *[None] * (len(kernel) - 2)
        op = value.producer
        for _ in range(_NEAR):
            if op is None or op.type not in _SHAPE_KEEPING or (above := op.input(0)) is None:
                break
            op = above.producer
        if op is None or op.type not in ("Conv", "ConvTranspose") or not (kernel := self._kernel(op)):
            return None
        channels = kernel[0] if op.type == "Conv" else _times_group(kernel[1], op)
        return None, channels, *[None] * (len(kernel) - 2)

    def _kernel(self, conv: Op) -> tuple[int, ...] | None:
        weight = conv.input(1)
        constant = None if weight is None else self._index.constant(weight)
        return constant.shape if constant and len(constant.shape) > 1 else None


def _times_group(size: int, conv: Op) -> Dim:
    try:
        return size * int(conv.attribute("group", 1))
    except (Refused, TypeError, ValueError):  # no integer, or one that a caller gives
        return None


def _forget_initializers(graph: GraphProto, names: set[str]) -> None:
    for index in reversed(range(len(graph.initializer))):
        if graph.initializer[index].name in names:
            del graph.initializer[index]
    for index in reversed(range(len(graph.sparse_initializer))):
        if graph.sparse_initializer[index].values.name in names:
            del graph.sparse_initializer[index]


def _declare(graph: GraphProto, trained: set[str]) -> None:
    """Makes inputs of the initializers that a training step assigns to."""
    known = {entry.name for entry in graph.input}
    for tensor in graph.initializer:
        if tensor.name in trained - known:
            graph.input.append(onnx.helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims))
    _forget_initializers(graph, trained)


def _infer(model: onnx.ModelProto) -> list[dict[str, TypeProto]]:
    for graph in graphs(model.graph):
        _forget_vague_outputs(graph)
        for node in graph.node:
            if node.domain in STANDARD_DOMAINS:
                node.domain = ""  # inference does not know the alias
            _replace_unknown(node)
    asked = inferable(model)
    del model  # a copy, mostly: what inference makes takes as much again
    try:
        inferred = asked.inferred()
    except Exception:  # it has many
        inferred = parse(asked.data)
    shared: dict[bytes, TypeProto] = {}
    return [_types(graph, shared) for graph in graphs(inferred.graph)]


def _replace_unknown(node: NodeProto) -> None:
    """Puts operators that inference does not know as others that make the same shape and type."""
    if node.op_type == "GroupNormalization" and not node.domain:
        node.CopyFrom(onnx.helper.make_node("Identity", node.input[:1], node.output[:1]))
    elif node.op_type in _OF_SCALES_TYPE and not node.domain:  # the type of a Mul is that of its first operand
        node.CopyFrom(onnx.helper.make_node("Mul", node.input[1::-1], node.output[:1]))
    elif node.op_type in _MAKE_FLOATS and node.domain == "ai.onnx.ml":
        node.CopyFrom(onnx.helper.make_node("Cast", node.input[:1], node.output[:1], to=TensorProto.FLOAT))


def _types(graph: GraphProto, shared: dict[bytes, TypeProto]) -> dict[str, TypeProto]:
    """The types of a graph's values. Few are different, and one of its own would keep all that was inferred."""
    types = {}
    for entry in chain(graph.value_info, graph.input, graph.output):
        key = encoded(entry.type)
        if key not in shared:
            shared[key] = TypeProto.FromString(key)
        types[entry.name] = shared[key]
    return types


def _forget_vague_outputs(graph: GraphProto) -> None:
    """An output declared with unknown sizes would hide what can be inferred, or what an initializer has."""
    sizes = {tensor.name: list(tensor.dims) for tensor in graph.initializer}
    for entry in graph.output:
        tensor = entry.type.tensor_type
        if entry.name in sizes:
            entry.type.CopyFrom(onnx.helper.make_tensor_type_proto(tensor.elem_type, sizes[entry.name]))
        elif not all(dim.HasField("dim_value") for dim in tensor.shape.dim):
            tensor.ClearField("shape")
