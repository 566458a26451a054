"""What an index holds: values, the places that read them, operators, scopes."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from functools import cache
from typing import Any, NamedTuple, Protocol

import numpy as np
import onnx
from onnx import AttributeProto, GraphProto, NodeProto, SparseTensorProto, TensorProto

from bnfold.graph.facts import Constant, Shape
from bnfold.model_io import Model
from bnfold.model_io.tensors import STANDARD_DOMAINS
from bnfold.reasons import Reason, Refused

_UNKNOWN = object()
_MISTYPED = object()
_FEW = 4


class Use(NamedTuple):
    """One place where a value is read: input ``index`` of ``op``."""

    op: Op
    index: int  # type: ignore[assignment]  # hides tuple.index, which nobody asks of a use


class Value:
    """A named value of one scope."""

    __slots__ = ("_read", "index", "is_input", "is_output", "name", "origin", "producer", "scope", "sparse", "tensor")

    def __init__(self, name: str, scope: Scope) -> None:
        self.name = name
        self.origin = name  # its name before any edit
        self.scope = scope
        self.producer: Op | None = None
        self.index = 0  # which output of the producer
        self._read: Use | tuple[Use, ...] | dict[Use, None] = ()  # one, as most values have, in no tuple
        self.is_input = False
        self.is_output = False
        self.tensor: TensorProto | None = None  # the initializer it is read from
        self.sparse: SparseTensorProto | None = None  # the same, where it is a sparse one

    def __repr__(self) -> str:
        return f"Value({self.name!r})"

    @property
    def is_stored(self) -> bool:
        """Whether an initializer gives it."""
        return self.tensor is not None or self.sparse is not None

    def forget(self) -> None:
        """Lets go of the ops that make it and read it."""
        self.producer, self._read = None, ()

    @property
    def readers(self) -> Collection[Use]:
        """Its uses, those in subgraphs too, in graph order."""
        return (self._read,) if isinstance(self._read, Use) else self._read

    def gain(self, use: Use) -> None:
        """Adds a reader. Most values have one, some a hundred thousand."""
        if isinstance(self._read, dict):
            self._read[use] = None
        elif not self._read:
            self._read = use
        else:
            readers = (*self.readers, use)
            self._read = readers if len(readers) <= _FEW else dict.fromkeys(readers)

    def lose(self, use: Use) -> None:
        """Takes a reader away."""
        if isinstance(self._read, dict):
            del self._read[use]
        else:
            self._read = tuple(other for other in self.readers if other != use)


class Scope:
    """A graph, the body of a control-flow node, or a model-local function.

    ONNX wants a body to have no name that the graphs around it have, but neither its checker nor all runtimes insist
    on it. A name then means the body's own value here, as ONNX Runtime takes it; onnx.reference takes the outer one
    where a Loop or an initializer gives the inner. So nothing that reads or makes a value of such a name is touched.
    """

    def __init__(
        self, number: int, proto: GraphProto | onnx.FunctionProto, parent: Scope | None, opsets: dict[str, int]
    ) -> None:
        self.number = number  # graphs in the order they are met, then functions
        self.proto = proto
        self.nodes: Sequence[NodeProto] = proto.node
        self.parent = parent
        self.owner: Op | None = None  # the node that it is a body of
        self.opsets = opsets
        self.values: dict[str, Value] = {}
        self.ops: list[Op] = []
        self.outputs: list[Value] = []
        self.followers: dict[Op, list[Op]] = {}  # new ops, behind the op they were added after
        self.is_edited = False
        self.hidden: list[tuple[Value, Value]] = []  # values of its own, and those of outer graphs that have their name
        self._infos: dict[str, onnx.ValueInfoProto] | None = None  # made when asked for

    @property
    def is_function(self) -> bool:
        return isinstance(self.proto, onnx.FunctionProto)

    def own(self, name: str) -> Value:
        """This scope's value of that name, made at its first mention."""
        value = self.values.get(name)
        if value is None:
            value = self.values[name] = Value(name, self)
            if (outer := self.outer(name)) is not None:
                self.hidden.append((value, outer))
        return value

    def outer(self, name: str) -> Value | None:
        """The value of that name in the graphs around this one."""
        return None if self.parent is None else self.parent.find(name)

    def find(self, name: str) -> Value | None:
        """The value that a node of this scope means by that name: its own, or one of a scope around it."""
        return self.values.get(name) or self.outer(name)

    def lookup(self, name: str) -> Value:
        """The same, made here if there is none."""
        return self.find(name) or self.own(name)

    def rename_info(self, old: str, new: str) -> None:
        """Lets the ``value_info`` of a renamed value follow it."""
        info = self.forget_info(old)
        if info is not None:
            info.name = new
            self._named_infos()[new] = info

    def forget_info(self, name: str) -> onnx.ValueInfoProto | None:
        """The ``value_info`` of a value, which no longer follows it."""
        return self._named_infos().pop(name, None)

    def _named_infos(self) -> dict[str, onnx.ValueInfoProto]:
        if self._infos is None:
            self._infos = {info.name: info for info in self.proto.value_info}
        return self._infos

    def forget(self) -> None:
        """Leaves nothing for the collector, which the command line runs without: ops and values hold each other."""
        for value in self.values.values():
            value.forget()
        self.owner = None
        self.values, self.ops, self.outputs, self.followers, self.hidden = {}, [], [], {}, []

    def live_ops(self) -> list[Op]:
        """The ops in graph order, with those that were added and without those that were removed."""
        ops = self.ops
        if self.followers:
            ops = [each for op in ops for each in (op, *self._behind(op))]
        return [op for op in ops if not op.is_removed]

    def _behind(self, op: Op) -> Iterator[Op]:
        for follower in self.followers.get(op, ()):
            yield follower
            yield from self._behind(follower)


class Index(Protocol):
    """What can be asked of the index that ops and values belong to; only those who edit need more of it.

    That is all that rules and evaluators see of it. ``Graph`` is the one index there is, and says what each means.
    """

    @property
    def model(self) -> Model: ...

    @property
    def main(self) -> Scope: ...

    @property
    def has_kept(self) -> bool: ...

    @property
    def part_sizes(self) -> dict[Op, list[int]]: ...

    @property
    def most_elements(self) -> int: ...

    def ops(self) -> Iterator[Op]: ...

    def constant(self, value: Value) -> Constant | None: ...

    def is_too_large(self, value: Value) -> bool: ...

    def shape(self, value: Value) -> Shape | None: ...

    def known_shape(self, value: Value) -> Shape: ...

    def at_least_shape(self, value: Value) -> Shape: ...

    def dtype(self, value: Value) -> np.dtype[Any] | None: ...

    def may_be_called(self, value: Value, name: str) -> bool: ...


class Op:
    """A node, with the questions that rules ask of it.

    ``type`` is the operator's name alone for ONNX's own operators; any other carries its domain
    (``com.microsoft::FusedConv``), so that no rule takes it for something it is not.
    """

    __slots__ = (
        "_attributes",
        "_label",
        "_node",
        "_position",
        "bodies",
        "graph",
        "inputs",
        "is_kept",
        "is_removed",
        "outputs",
        "scope",
        "shadowed",
        "type",
    )

    def __init__(
        self, graph: Index, scope: Scope, node: NodeProto, op_type: str, position: int | tuple[int, ...] = (0,)
    ) -> None:
        self.graph = graph
        self.scope = scope
        # a million messages of protobuf that Python holds take more than what is in them
        self._node = None if isinstance(position, int) else node
        self.type = op_type
        self._label = "" if node.name else next((name for name in node.output if name), "")
        self._position = position
        self.inputs: Sequence[Value | None] = ()  # a list once it was edited
        self.outputs: Sequence[Value | None] = ()
        self.bodies: Sequence[Scope] = ()
        self.is_kept = False  # the user wants it as it is
        self.shadowed = ""  # a name that it reads or makes, and that does not mean the same to all runtimes
        self.is_removed = False
        self._attributes: dict[str, Any] | None = None

    def __repr__(self) -> str:
        return f"Op({self.type} {self.label!r})"

    def with_node(self, node: NodeProto) -> Op:
        """The same in the same place, but as another node says; the graph knows nothing of it."""
        twin = Op(self.graph, self.scope, node, self.type)
        twin.inputs, twin.outputs, twin.bodies = self.inputs, self.outputs, self.bodies
        return twin

    @property
    def node(self) -> NodeProto:
        """Its message in the model."""
        return self.scope.nodes[self._position] if self._node is None else self._node  # type: ignore[index]  # an int

    @property
    def label(self) -> str:
        """What a report calls it: the node's name, or that of its first output where it has none, before any edit."""
        return self._label or self.node.name

    def moved_to(self, position: int) -> None:
        """Says where its node stands from now on."""
        self._position, self._node = position, None

    def pin(self) -> None:
        """To be called before its node is taken out of the scope's: it can be asked for nevertheless."""
        self._node = self.node

    @property
    def place(self) -> tuple[int, ...]:
        """Its position in the model: what reads a result comes later than what makes it."""
        return (self.scope.number, *self.position)

    @property
    def position(self) -> tuple[int, ...]:
        """Its position in its scope."""
        return (self._position,) if isinstance(self._position, int) else self._position

    @property
    def opset(self) -> int:
        """The version of the operator set that the node belongs to; 0 if the model does not import it."""
        domain = self.node.domain
        return self.scope.opsets.get("" if domain in STANDARD_DOMAINS else domain, 0)

    @property
    def must_stay(self) -> bool:
        """Whether it is kept, or one in its bodies is."""
        return any(inner.is_kept for inner in self.with_inner())

    def with_inner(self) -> Iterator[Op]:
        """This op, and those in its bodies."""
        yield self
        for body in self.bodies:
            for inner in body.ops:
                yield from inner.with_inner()

    def attribute(self, name: str, default: Any = None) -> Any:
        """An attribute's value, bytes for a string.

        Raises:
            Refused: it belongs to a function and only the caller knows it; or it is of another type than in ONNX.
        """
        if self._attributes is None:
            types = _attribute_types(self.type, self.opset)
            self._attributes = {each.name: _attribute_value(each, types) for each in self.node.attribute}
        value = self._attributes.get(name, default)
        if value is _UNKNOWN:
            raise Refused(Reason.ATTRIBUTE_UNKNOWN, attribute=name, op_type=self.type)
        if value is _MISTYPED:
            raise Refused(Reason.MALFORMED, op_type=self.type, detail=f"attribute {name} is of a wrong type")
        return value

    def forget_attributes(self) -> None:
        """To be called when the node's attributes were edited."""
        self._attributes = None

    def input(self, index: int) -> Value | None:
        """The value at an input, None where it is omitted (missing or ``""``)."""
        return self.inputs[index] if index < len(self.inputs) else None

    def reads(self) -> Iterator[Value]:
        """All values that the node reads: its inputs, then what its bodies take from the graphs around them."""
        yield from (value for value in self.inputs if value is not None)
        for body in self.bodies:
            inner = (value for op in body.live_ops() for value in op.reads())
            results = (body.lookup(entry.name) for entry in body.proto.output)
            yield from (value for value in (*inner, *results) if value.scope is not body)

    def data(self, index: int = 0) -> Value:
        """The value at an input that has to be there."""
        value = self.input(index)
        if value is None:
            raise Refused(Reason.UNSUPPORTED, op_type=self.type, detail=f"input {index} is missing")
        return value

    @property
    def output(self) -> Value:
        """The first output."""
        if not self.outputs or self.outputs[0] is None:
            raise Refused(Reason.UNSUPPORTED, op_type=self.type, detail="its first output is omitted")
        return self.outputs[0]

    def constant(self, index: int) -> Constant:
        """The constant at an input.

        Raises:
            Refused: the value is missing, computed from an input, or may be overridden by a caller.
        """
        value = self.data(index)
        constant = self.graph.constant(value)
        if constant is None:
            if self.graph.is_too_large(value):
                raise Refused(Reason.TOO_LARGE, value=value.name, most=self.graph.most_elements)
            overridable = value.is_input and value.tensor is not None
            raise Refused(Reason.OVERRIDABLE if overridable else Reason.NOT_CONSTANT, value=value.name)
        return constant

    def optional_constant(self, index: int) -> Constant | None:
        """The constant at an input, None where the input is omitted."""
        return None if self.input(index) is None else self.constant(index)

    def shape(self, index: int = 0) -> Shape:
        """The shape of an input: for each axis an int, or None where it is not known.

        Raises:
            Refused: not even the rank is known.
        """
        return self.graph.known_shape(self.data(index))


def _attribute_value(attribute: AttributeProto, types: Mapping[str, int]) -> Any:
    if attribute.ref_attr_name:
        return _UNKNOWN
    value = onnx.helper.get_attribute_value(attribute)
    return value if types.get(attribute.name, attribute.type) == attribute.type else _MISTYPED


@cache
def _attribute_types(op_type: str, opset: int) -> Mapping[str, int]:
    """The types that the attributes of one of ONNX's own operators have; of any other operator nothing is known."""
    try:
        schemas = [onnx.defs.get_schema(op_type, opset)]
    except onnx.defs.SchemaError:  # the model does not say which version
        known = onnx.defs.get_all_schemas_with_history()
        schemas = [schema for schema in known if (schema.domain, schema.name) == ("", op_type)]
    types = ((name, attribute.type) for schema in schemas for name, attribute in schema.attributes.items())
    return {name: kind.value for name, kind in types}  # type: ignore[attr-defined]  # onnx's stubs do not know it
