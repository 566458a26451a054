"""An index over the ONNX protobuf: who makes a value, who reads it, in which scope.

It is no second IR: every ``Op`` and ``Value`` stands for a message of the model, and an edit goes straight
into that message, so what is not edited stays as it was, unknown fields included. Only the lists of nodes
wait for ``commit``, which writes each changed list once.
"""

from __future__ import annotations

import sys
from array import array
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from itertools import chain
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import GraphProto, NodeProto, TensorProto

from bnfold.graph.collector import collector_paused
from bnfold.graph.constants import Constants
from bnfold.graph.facts import Constant, Shape
from bnfold.graph.mentions import follow_rename, mentioned, read_in_training
from bnfold.graph.op import Op, Scope, Use, Value
from bnfold.graph.shapes import Shapes
from bnfold.model_io import Model, Payload
from bnfold.model_io.tensors import STANDARD_DOMAINS, bodies, may_hold_graphs
from bnfold.reasons import Reason, Refused

_INITIALIZERS_ARE_INPUTS_BELOW_IR = 4


class Graph:
    """The index of a model, and the only means to edit one.

    Args:
        model: The model; edits go into its protobuf.
        assume_constant: Take initializers that are also graph inputs for constants (before IR version 4
            they are anyway).
    """

    def __init__(self, model: Model, *, assume_constant: bool = False) -> None:
        self.model = model
        self.scopes: list[Scope] = []
        # before there are ops: an empty field that is looked at takes memory as long as something holds its node
        self.names = set(mentioned(model.proto))  # taken ones, beside those of nodes and main values
        self._numbers: dict[str, int] = {}  # the lowest that may be free behind each hint that was asked for
        self.has_kept = False  # whether any op is kept
        self._bodies_with: dict[str, list[Scope]] = {}  # by name, the bodies that have a value of their own by it
        self.part_sizes: dict[Op, list[int]] = {}  # what rules need to know of each Concat, once they do
        self.released: dict[Value, None] = {}  # values that lost their last reader to an edit
        self._local_functions = {(function.domain, function.name) for function in model.proto.functions}
        legacy = model.proto.ir_version < _INITIALIZERS_ARE_INPUTS_BELOW_IR
        self._constants = Constants(self, inputs_are_constant=assume_constant or legacy)
        self._shapes = Shapes(self, self._constants)
        with collector_paused():
            self.main = self._index_graph(model.proto.graph, None, _opsets(model.proto.opset_import))
            for function in model.proto.functions:
                self._index_function(function)
        for name in read_in_training(model.proto):
            if (value := self.main.values.get(name)) is not None:
                value.is_output = True
        self._mark_shadowed()

    # --- questions ---------------------------------------------------------------------------------------

    def ops(self) -> Iterator[Op]:
        """Every op of every scope; within a scope in graph order."""
        return chain.from_iterable(scope.live_ops() for scope in self.scopes)

    def constant(self, value: Value) -> Constant | None:
        """The constant behind a value; None if it depends on an input or may be overridden."""
        return self._constants.of(value)

    def may_be_given(self, value: Value) -> bool:
        """Whether a caller may give it: an input, and its initializer is no more than a default."""
        return value.is_input and self._constants.may_be_given(in_body=value.scope.parent is not None)

    def is_too_large(self, value: Value) -> bool:
        """Whether a value is no constant only since it is larger than what the model stores."""
        return value in self._constants.too_large

    @property
    def most_elements(self) -> int:
        """Of a constant that the model does not store."""
        return self._constants.most

    def shape(self, value: Value) -> Shape | None:
        """The shape of a value, None where not even the rank is known."""
        constant = self.constant(value)
        return constant.shape if constant else self._shapes.of(value)

    def at_least_shape(self, value: Value) -> Shape:
        """The rank of a value, and of its sizes those that are easily known; refuses where not even the rank is."""
        shape = self._shapes.at_least(value)
        if shape is None:
            raise Refused(Reason.SHAPE_UNKNOWN, value=value.name)
        return shape

    def known_shape(self, value: Value) -> Shape:
        """The shape of a value; refuses where not even the rank is known."""
        shape = self.shape(value)
        if shape is None:
            raise Refused(Reason.SHAPE_UNKNOWN, value=value.name)
        return shape

    def dtype(self, value: Value) -> np.dtype[Any] | None:
        """The element type of a value, None where it is not known."""
        constant = self.constant(value)
        return constant.dtype if constant else self._shapes.dtype(value)

    def assume(self, shapes: Mapping[str, Shape]) -> None:
        """Takes shapes of the model's inputs for known that it leaves open; the model itself stays as it is."""
        self._shapes.assume(shapes)

    def fresh_name(self, hint: str) -> str:
        """A name that nothing in the model has or mentions, in any scope."""
        name, number = hint, self._numbers.get(hint, 1)
        while self.is_taken(name):
            name, number = f"{hint}_{number}", number + 1
        self._numbers[hint] = number
        self.names.add(name)
        return name

    def is_taken(self, name: str) -> bool:
        """Whether something in the model has or mentions the name, or has had it."""
        return name in self.names or name in self.main.values or self._is_label(name)

    def may_be_called(self, value: Value, name: str) -> bool:
        """Whether a value may take a name that its scope has further down: no body in between has it for its own."""
        return not any(_sees(scope, value) for scope in self._bodies_with.get(name, ()))

    def is_in_a_body(self, name: str) -> bool:
        """Whether a body has a value of its own by that name; it may come before the outer one is made."""
        return name in self._bodies_with

    # --- edits -------------------------------------------------------------------------------------------

    def set_input(self, op: Op, index: int, value: Value | None) -> None:
        """Makes input ``index`` of ``op`` read ``value``; None omits it."""
        node, missing = op.node, index + 1 - len(op.inputs)
        if missing > 0:
            op.inputs = [*op.inputs, *[None] * missing]
            node.input.extend([""] * missing)
        assert value is None or op.scope.find(value.name) is value, f"{op} cannot read {value}"
        self._unread(op, index)
        op.inputs = _with(op.inputs, index, value)
        old, node.input[index] = node.input[index], value.name if value is not None else ""
        follow_rename(node, old, node.input[index])
        if value is not None:
            value.gain(Use(op, index))
        self._constants.forget(op)

    def omit_input(self, op: Op, index: int) -> None:
        """Leaves out an input of ``op``; where it is the last, with those before it that are left out, too."""
        self.set_input(op, index, None)
        left = max((number for number, value in enumerate(op.inputs, 1) if value is not None), default=0)
        op.inputs = op.inputs[:left]
        del op.node.input[left:]

    def set_output(self, op: Op, index: int, value: Value) -> None:
        """Makes ``value`` an output of ``op``; the value it made until now has no producer any more."""
        old = op.outputs[index]
        if old is not None and old.producer is op:
            old.producer = None
        op.outputs = _with(op.outputs, index, value)
        old_name, op.node.output[index] = op.node.output[index], value.name
        follow_rename(op.node, old_name, value.name)
        value.producer, value.index = op, index

    def move_readers(self, old: Value, new: Value) -> None:
        """Makes every reader of ``old`` read ``new``. Whether one is a graph output is not touched."""
        for use in list(old.readers):
            self.set_input(use.op, use.index, new)

    def rename(self, value: Value, name: str) -> None:
        """Gives a value another name wherever it stands, its ``value_info`` included.

        Outputs of a body have a place, not a name, so they are renamed with it; outputs of the model are not.
        """
        del value.scope.values[value.name]
        self.names.add(value.name)
        value.scope.rename_info(value.name, name)
        if value.producer is not None:
            value.producer.node.output[value.index] = name
            follow_rename(value.producer.node, value.name, name)
        for use in value.readers:
            use.op.node.input[use.index] = name
            follow_rename(use.op.node, value.name, name)
        if value.is_output and value.scope.parent is not None:
            for entry in value.scope.proto.output:
                entry.name = name if entry.name == value.name else entry.name
        value.name = name
        value.scope.values[name] = value

    def take_over(self, value: Value, other: Value) -> None:
        """Lets ``value`` stand for ``other`` from now on: its readers, its name, its place as a graph output."""
        assert value.scope is other.scope
        assert self.may_be_called(value, other.name)
        self.move_readers(other, value)
        value.is_output = other.is_output
        value.scope.outputs = [value if output is other else output for output in value.scope.outputs]
        value.scope.forget_info(value.name)  # that of the other name stays
        self.rename(value, other.name)

    def add_constant(self, scope: Scope, name: str, constant: Constant, payload: Payload) -> Value:
        """A new constant of a scope, of a fresh name: an initializer, or a Constant node where there can be none."""
        value = scope.own(name)
        tensor = TensorProto(name=value.name, data_type=onnx.helper.np_dtype_to_tensor_dtype(constant.dtype))
        tensor.dims.extend(constant.shape)
        self.model.attach(tensor, payload)
        self._constants.set(value, constant)
        legacy = self.model.proto.ir_version < _INITIALIZERS_ARE_INPUTS_BELOW_IR
        if isinstance(scope.proto, GraphProto) and not (legacy and scope.parent):
            value.tensor = scope.proto.initializer.add()
            value.tensor.CopyFrom(tensor)
            if legacy:
                scope.proto.input.append(onnx.helper.make_tensor_value_info(value.name, tensor.data_type, tensor.dims))
                value.is_input = True
        else:
            node = onnx.helper.make_node("Constant", [], [value.name], value=tensor)
            value.tensor = node.attribute[0].t
            scope.ops.insert(0, self._new_op(scope, node, ()))
            scope.is_edited = True
        return value

    def as_initializer(self, op: Op, tensor: TensorProto) -> None:
        """Puts an initializer in the place of a node of the model's graph that holds a tensor."""
        value = op.output
        self.remove(op)
        value.tensor = self.model.proto.graph.initializer.add()
        value.tensor.CopyFrom(tensor)
        value.tensor.name = value.name

    def new_value(self, hint: str, like: Value) -> Value:
        """A new value in the scope of another, with its shape and type; something has to produce it."""
        value = like.scope.own(self.fresh_name(hint))
        self._shapes.same(value, like)
        return value

    def add_op(self, after: Op, node: NodeProto) -> Op:
        """Adds a node of ``after``'s scope behind it; its inputs and outputs are looked up by name."""
        followers = after.scope.followers.setdefault(after, [])
        op = self._new_op(after.scope, node, (*after.position, -len(followers)))
        followers.insert(0, op)
        after.scope.is_edited = True
        return op

    def remove(self, op: Op) -> None:
        """Takes an op out of the graph; the values it read lose a reader."""
        for index in range(len(op.inputs)):
            self._unread(op, index)
        for value in op.outputs:
            if value is not None and value.producer is op:
                value.producer = None
        op.pin()
        op.inputs, op.outputs, op.is_removed = (), (), True
        op.scope.is_edited = True

    def replace_constant(self, value: Value, constant: Constant, payload: Payload) -> None:
        """Gives another content to an initializer that ``add_constant`` made."""
        assert value.tensor is not None
        value.tensor.data_type = onnx.helper.np_dtype_to_tensor_dtype(constant.dtype)
        del value.tensor.dims[:]
        value.tensor.dims.extend(constant.shape)
        self.model.exchange(value.tensor, payload)
        self._constants.set(value, constant)
        for use in value.readers:
            self._constants.forget(use.op)

    def commit(self) -> None:
        """Writes the lists of nodes back. The index is empty then; ops know still what is their own."""
        places = [(scope.proto.node, _places(scope)) for scope in self.scopes if scope.is_edited]
        for scope in self.scopes:
            scope.forget()
        self._constants.forget_all()
        del self._shapes, self.released
        for nodes, order in places:  # which takes memory that the ops have let go of
            _put_in_order(nodes, order)

    def _is_label(self, name: str) -> bool:
        place = np.searchsorted(self._labels, hash(name))
        return bool(place < len(self._labels) and self._labels[place] == hash(name))

    @cached_property
    def _labels(self) -> npt.NDArray[np.int64]:
        """Hashes of what nodes are called, sorted: texts take much more, and a chance hit only means another number."""
        return np.sort(np.fromiter((hash(op.label) for scope in self.scopes for op in scope.ops), np.int64))

    def _unread(self, op: Op, index: int) -> None:
        value = op.inputs[index]
        if value is not None:
            value.lose(Use(op, index))
            if not value.readers:
                self.released[value] = None

    # --- building ----------------------------------------------------------------------------------------

    def _index_graph(self, proto: GraphProto, parent: Scope | None, opsets: dict[str, int]) -> Scope:
        scope = Scope(len(self.scopes), proto, parent, opsets)
        self.scopes.append(scope)
        for entry in proto.input:
            scope.own(entry.name).is_input = True
        for tensor in proto.initializer:
            value, outer = scope.own(tensor.name), scope.outer(tensor.name)
            if outer is None or outer.tensor == tensor:
                value.tensor = tensor
        for sparse in proto.sparse_initializer:
            value = scope.own(sparse.values.name)
            if scope.outer(value.name) is None:
                value.sparse = sparse
        self._index_nodes(scope, proto.node)
        scope.outputs = [scope.lookup(entry.name) for entry in proto.output]
        for value in scope.outputs:
            value.is_output = True
        for name in scope.values if parent is not None else ():
            self.names.add(name)
            self._bodies_with.setdefault(name, []).append(scope)
        return scope

    def _index_function(self, function: onnx.FunctionProto) -> None:
        scope = Scope(len(self.scopes), function, None, _opsets(function.opset_import))
        self.scopes.append(scope)
        for name in function.input:
            scope.own(name).is_input = True
        self._index_nodes(scope, function.node)
        scope.outputs = [scope.lookup(name) for name in function.output]
        for value in scope.outputs:
            value.is_output = True
        self.names.update(scope.values)

    def _index_nodes(self, scope: Scope, nodes: Sequence[NodeProto]) -> None:
        for index, node in enumerate(nodes):
            scope.ops.append(self._new_op(scope, node, index))

    def _new_op(self, scope: Scope, node: NodeProto, position: int | tuple[int, ...]) -> Op:
        op = Op(self, scope, node, self._type_of(node), position)
        op.inputs = tuple([scope.lookup(name) if name else None for name in node.input[:]])
        for index, value in enumerate(op.inputs):
            if value is not None:
                value.gain(Use(op, index))
        if may_hold_graphs(node):
            op.bodies = [self._index_graph(body, scope, scope.opsets) for body in bodies(node)]
            for body in op.bodies:
                body.owner = op
        # a node without outputs is no valid one; it is taken for one whose only output is omitted
        op.outputs = tuple([scope.own(name) if name else None for name in node.output[:] or [""]])
        for index, value in enumerate(op.outputs):
            if value is not None:
                value.producer, value.index = op, index
        return op

    def _mark_shadowed(self) -> None:
        for value in chain.from_iterable(pair for scope in self.scopes for pair in scope.hidden):
            for op in (value.producer, *(use.op for use in value.readers)):
                if op is not None:
                    op.shadowed = value.name

    def _type_of(self, node: NodeProto) -> str:
        domain, op_type = node.domain, node.op_type
        if (domain, op_type) in self._local_functions:
            return f"function {domain}::{op_type}"
        return sys.intern(op_type) if domain in STANDARD_DOMAINS else f"{domain}::{op_type}"


def _with(values: Sequence[Value | None], index: int, value: Value | None) -> list[Value | None]:
    """The values of an op with another at one place; in a list, for there may be many, and more edits to come."""
    edited = values if isinstance(values, list) else list(values)
    edited[index] = value
    return edited


def _places(scope: Scope) -> array[int]:
    """Where each node of a scope is to stand, -1 for those that go; new ones are added behind the others."""
    nodes, ops = scope.proto.node, scope.live_ops()
    places = array("q", [-1]) * len(nodes)
    for place, op in enumerate(ops):
        if len(op.position) == 1:
            places[op.position[0]] = place
        else:
            nodes.append(op.node)
            places.append(place)
    for place, op in enumerate(ops):
        op.moved_to(place)
    return places


def _put_in_order(nodes: Any, places: Sequence[int]) -> None:
    """Sorts a list of nodes, without copying any, and drops those that go."""
    each = iter(places)
    nodes.sort(key=lambda _: next(each))  # asked once for each node, from the first to the last
    del nodes[: sum(place < 0 for place in places)]


def _sees(scope: Scope, value: Value) -> bool:
    """Whether a scope is inside a node that comes after a value in the value's scope."""
    owner: Op | None = None
    inner: Scope | None = scope
    while inner is not None and inner is not value.scope:
        owner, inner = inner.owner, inner.parent
    if inner is None or owner is None:
        return False
    return value.producer is None or owner.place > value.producer.place


def _opsets(imports: Sequence[onnx.OperatorSetIdProto]) -> dict[str, int]:
    return {"" if entry.domain in STANDARD_DOMAINS else entry.domain: entry.version for entry in imports}
