"""Which values are computed in the same way: equal operators on equal values have equal numbers.

Values of two models get their numbers from one table, so a value that was renamed, or moved, still has the number of
its counterpart. Constants are told apart by their content.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Hashable, Iterable, Iterator
from functools import cache, cached_property, partial

import numpy as np
import onnx
import onnx.defs

from bnfold.graph import Graph, Op, Scope, Shape, Value
from bnfold.model_io import Model
from bnfold.model_io.protobuf import encoded
from bnfold.model_io.tensors import attribute_graphs
from bnfold.verification.float64.kernels import RANDOM

Number = int
_HEAD = 1 << 12  # bytes by which constants are told apart first
_TYPE_ONLY = {"CastLike": 1, "Shape": 0, "Size": 0}  # so many inputs of these operators are read for what they hold
# Extra outputs mean training mode in old opsets; a Split without sizes makes as many parts as it has outputs.
_OUTPUTS_MATTER = frozenset({"BatchNormalization", "Dropout", "Split"})
# From which input on what they hold decides the shape of what these operators make.
_SIZING = {
    **dict.fromkeys(
        ("NonZero", "Compress", "Unique", "NonMaxSuppression", "ConstantOfShape", "Range", "If", "Loop"), 0
    ),
    **dict.fromkeys(("Reshape", "Expand", "Tile", "Slice", "Pad", "Resize", "Upsample", "CenterCropPad"), 1),
    **dict.fromkeys(("OneHot", "TopK", "Split", "SplitToSequence", "SequenceAt"), 1),
}


# Of which the axes are some of the first input.
_ALONG = frozenset(
    {
        *("ArgMax", "ArgMin", "TopK", "Softmax", "LogSoftmax", "Hardmax", "Concat", "Split", "Compress", "Squeeze"),
        *("Gather", "GatherElements", "ScatterElements", "LpNormalization", "LayerNormalization"),
        *("QuantizeLinear", "DequantizeLinear", "ReduceMean", "ReduceSum", "ReduceProd", "ReduceMax", "ReduceMin"),
        *("ReduceL1", "ReduceL2", "ReduceSumSquare", "ReduceLogSum", "ReduceLogSumExp", "MeanVarianceNormalization"),
    }
)


class Table:
    """Hands out numbers: the same for the same key.

    Attributes:
        firsts: For each number the first value of all that has it, and its model.
    """

    def __init__(self) -> None:
        self.firsts: dict[Number, tuple[Graph, Value]] = {}
        self._numbers: dict[Hashable, Number] = {}
        self._alike: dict[Hashable, _Alike] = {}

    def number(self, key: Hashable) -> Number:
        return self._numbers.setdefault(key, len(self._numbers))

    def content(self, model: Model, tensor: onnx.TensorProto) -> Hashable:
        """The key of a constant: equal for equal types, shapes and bytes. Large ones are seldom read to their end."""
        kind = ("constant", tensor.data_type, tuple(tensor.dims))
        payload = model.payload(tensor)
        chunks = partial(_chunks, model, tensor) if payload is None else payload.chunks
        if payload is None or payload.nbytes <= _HEAD:
            whole = b"".join(chunks())
            head, is_whole = whole[:_HEAD], len(whole) <= _HEAD
        else:
            head, is_whole = bytes(next(iter(chunks()))[:_HEAD]), False
        start = (*kind, hashlib.sha256(head).digest())
        return start if is_whole else (*start, self._alike.setdefault(start, _Alike()).place(chunks))


class _Alike:
    """Constants that start alike. The first is read to its end if there is a second, which most have not."""

    def __init__(self) -> None:
        self._first: Callable[[], Iterable[bytes | memoryview]] | None = None
        self._digests: list[bytes] = []

    def place(self, chunks: Callable[[], Iterable[bytes | memoryview]]) -> int:
        """The same number for the same bytes."""
        if self._first is None:
            self._first = chunks
            return 0
        if not self._digests:
            self._digests.append(_digest(self._first()))
        digest = _digest(chunks())
        if digest not in self._digests:
            self._digests.append(digest)
        return self._digests.index(digest)


def _digest(chunks: Iterable[bytes | memoryview]) -> bytes:
    digest = hashlib.sha256()
    for chunk in chunks:
        digest.update(chunk)
    return digest.digest()


def _chunks(model: Model, tensor: onnx.TensorProto) -> Iterator[bytes]:
    """The bytes of a tensor that stands in the proto."""
    is_text = tensor.data_type == onnx.TensorProto.STRING
    yield repr(list(tensor.string_data)).encode() if is_text else np.ascontiguousarray(model.array(tensor)).tobytes()


class Numbering:
    """The numbers of the values of one model.

    Attributes:
        graph: The model.
        numbers: The number of each value that has one by now.
        values: For each number the first value that has it.
        order: For each value its place in the order of computation.
        constants: Values that depend on no input but its shape and type.
        ragged: Values whose shape depends on what inputs hold.
    """

    def __init__(self, graph: Graph, table: Table, free_inputs: frozenset[str]) -> None:
        self.graph = graph
        self.numbers: dict[Value, Number] = {}
        self.values: dict[Number, Value] = {}
        self.order: dict[Value, int] = {}
        self.constants: set[Value] = set()
        self.ragged: set[Value] = set()
        self._bodies: dict[Scope, Hashable] = {}
        self._table = table
        self._free_inputs = free_inputs
        self._enter(graph.main, None)

    def assign(self, value: Value, number: Number) -> None:
        """Gives a value its number."""
        self.numbers[value] = number
        self.values.setdefault(number, value)
        self._table.firsts.setdefault(number, (self.graph, value))
        self.order.setdefault(value, len(self.order))

    def keys(self, op: Op) -> list[Number]:
        """The numbers of an op's outputs if nothing else is known of them. Its bodies must have theirs."""
        is_plain = len(op.outputs) == 1  # else it is no valid one
        if op.type == "Identity" and is_plain:
            return [self.numbers[op.data(0)]]
        if op.type == "Constant" and is_plain and (tensor := op.attribute("value")) is not None:
            return [self._table.number(self._content(tensor))]  # that of an initializer, which it may be in the other
        key = self._key(op)
        return [self._table.number((key, position)) for position in range(len(op.outputs))]

    def enter_bodies(self, op: Op) -> None:
        """Gives numbers to the inputs and constants of an op's bodies."""
        for role, body in zip(_roles(op), op.bodies, strict=True):
            self._enter(body, (self._outside(op), role))

    def note_constant(self, op: Op) -> None:
        """Finds out whether an op's outputs depend on what any input holds, and not on its shape or type alone."""
        made = [value for value in op.outputs if value is not None]
        if op.type not in RANDOM and self.constants.issuperset(self.read_for_data(op)):
            self.constants.update(made)
        sizing = filter(None, op.inputs[_SIZING.get(op.type, len(op.inputs)) :])
        results = (body.lookup(entry.name) for body in op.bodies for entry in body.proto.output)
        if not (self.ragged.isdisjoint((*op.reads(), *results)) and self.constants.issuperset(sizing)):
            self.ragged.update(made)

    def read_for_data(self, op: Op) -> list[Value]:
        """What an op reads for more than its shape or type, or has a shape that depends on data itself."""
        reads = list(op.reads())
        few = _TYPE_ONLY.get(op.type, len(reads))
        return [value for place, value in enumerate(reads) if place < few or value in self.ragged]

    def _enter(self, scope: Scope, outside: Hashable) -> None:
        self._bodies[scope] = outside
        nest = sum(self._bodies[outer] == outside for outer in _around(scope))  # a Loop in one that reads the same
        for position, entry in enumerate(scope.proto.input):
            value = scope.own(entry if isinstance(entry, str) else entry.name)
            if value.tensor is not None and value.name not in self._free_inputs:
                continue
            default = () if value.tensor is None else self._content(value.tensor)
            key = ("input", value.name, default) if outside is None else ("formal", outside, nest, position)
            self.assign(value, self._table.number(key))
        for value in list(scope.values.values()):
            if value.tensor is not None and value not in self.numbers:
                self.assign(value, self._table.number(self._content(value.tensor)))
                self.constants.add(value)
            elif value.sparse is not None and value not in self.numbers:
                parts = map(self._content, (value.sparse.values, value.sparse.indices))
                self.assign(value, self._table.number(("sparse", tuple(value.sparse.dims), *parts)))
                self.constants.add(value)

        if (parent := scope.parent) is not None and isinstance(scope.proto, onnx.GraphProto):
            for tensor in scope.proto.initializer:
                if (value := scope.own(tensor.name)) not in self.numbers:
                    self.assign(value, self._table.number(self._shadowing(tensor, parent.lookup(tensor.name))))

    def _shadowing(self, tensor: onnx.TensorProto, outer: Value) -> Hashable:
        """Of a body's initializer with the name of an outer value: runtimes disagree on which of the two is meant."""
        inner = self._content(tensor)
        is_same = outer.tensor is not None and self._content(outer.tensor) == inner
        return inner if is_same else ("shadowing", inner, self.numbers.get(outer))

    def _content(self, tensor: onnx.TensorProto) -> Hashable:
        return self._table.content(self.graph.model, tensor)

    def _key(self, op: Op) -> Hashable:
        results = (tuple(self.numbers[body.lookup(entry.name)] for entry in body.proto.output) for body in op.bodies)
        return (self._outside(op), tuple(sorted(zip(_roles(op), results, strict=True))))

    def _outside(self, op: Op) -> Hashable:
        """All of an op but its bodies."""
        inputs = [None if value is None else self.numbers[value] for value in op.inputs]
        while inputs and inputs[-1] is None:
            inputs.pop()
        return (self.signature(op), tuple(inputs))

    def signature(self, op: Op) -> Hashable:
        """What an op does, apart from its inputs and bodies."""
        return (op.type, self.settings(op))

    def settings(self, op: Op) -> Hashable:
        """The same, whatever its type."""
        version = since_version(op.node.domain, op.node.op_type, op.opset)
        own = next((value.name for value in op.outputs if value is not None), "") if _is_random(op) else ""
        made = (value is not None or op.type == "Split" for value in op.outputs)
        outputs = sum(made) if op.type in _OUTPUTS_MATTER else 0
        functions = self._functions if op.type.startswith("function ") else b""
        return (version, tuple(self._attributes(op, version)), own, outputs, functions)

    @cached_property
    def _functions(self) -> bytes:
        """What the functions say that could not be written out where they are called."""
        texts = sorted(encoded(f, deterministic=True) for f in self.graph.model.proto.functions)
        return hashlib.sha256(b"\0".join(texts)).digest()

    def _attributes(self, op: Op, version: int) -> Iterator[Hashable]:
        defaults = _defaults(op.node.domain, op.node.op_type, version)
        for attribute in sorted(op.node.attribute, key=lambda attribute: attribute.name):
            if attribute.HasField("g") or attribute.graphs:
                continue
            if attribute.HasField("t"):
                yield (attribute.name, self._content(attribute.t))
                continue
            plain, default = _told(op, attribute, self._shape), defaults.get(attribute.name)
            if default is None or plain != _told(op, onnx.AttributeProto.FromString(default), self._shape):
                yield (attribute.name, plain)

    def _shape(self, value: Value) -> Shape | None:
        """As it is known of the first value that has this number: what one model knows of it, the other may not."""
        graph, first = self._table.firsts[self.numbers[value]]
        return graph.shape(first)


def _roles(op: Op) -> list[str]:
    """The attribute that holds each body of an op."""
    return [attribute.name for attribute in op.node.attribute for _ in attribute_graphs(attribute)]


def _is_random(op: Op) -> bool:
    """Whether two that are alike may make different things of the same input."""
    if op.type in RANDOM or (op.type == "Dropout" and (op.input(2) is not None or op.opset < 7)):
        return True
    return any(_is_random(inner) for body in op.bodies for inner in body.live_ops())


def _around(scope: Scope) -> Iterator[Scope]:
    while (outer := scope.parent) is not None:
        yield outer
        scope = outer


def effective_attributes(op: Op) -> dict[str, bytes]:
    """The attributes of an op, with the defaults of those that it does not have."""
    defaults = _defaults(op.node.domain, op.node.op_type, since_version(op.node.domain, op.node.op_type, op.opset))
    attributes = [*map(onnx.AttributeProto.FromString, defaults.values()), *op.node.attribute]
    return {attribute.name: _told(op, attribute, op.graph.shape) for attribute in attributes}


def known_attributes(op: Op) -> frozenset[str]:
    """The names of the attributes that the version of an operator has; none if that is not known."""
    try:
        return frozenset(onnx.defs.get_schema(op.node.op_type, op.opset, op.node.domain).attributes)
    except onnx.defs.SchemaError:
        return frozenset()


def _told(op: Op, attribute: onnx.AttributeProto, shape_of: Callable[[Value], Shape | None]) -> bytes:
    """An attribute, its axes counted from the first one."""
    axes = {"axis": [attribute.i], "axes": attribute.ints}.get(attribute.name, []) if op.type in _ALONG else []
    shape = shape_of(op.data(0)) if min(axes, default=0) < 0 else None
    if shape is None:
        return _serialized(attribute)
    counted = [axis + len(shape) if axis < 0 else axis for axis in axes]
    return _serialized(onnx.helper.make_attribute(attribute.name, counted if attribute.ints else counted[0]))


@cache
def since_version(domain: str, op_type: str, opset: int) -> int:
    """The version of an operator's definition, so that opsets between which it did not change count as equal."""
    try:
        return int(onnx.defs.get_schema(op_type, opset, domain).since_version)
    except onnx.defs.SchemaError:
        return opset


@cache
def takes_numbers(domain: str, op_type: str, opset: int, index: int) -> bool:
    """Whether an input of an operator may be other than an integer, as a shape, an axis or an index may not."""
    try:
        inputs = onnx.defs.get_schema(op_type, opset, domain).inputs
    except onnx.defs.SchemaError:
        return True
    return not inputs or not {"tensor(float)", "tensor(bool)"}.isdisjoint(inputs[min(index, len(inputs) - 1)].types)


@cache
def _defaults(domain: str, op_type: str, version: int) -> dict[str, bytes]:
    try:
        schema = onnx.defs.get_schema(op_type, version, domain)
    except onnx.defs.SchemaError:
        return {}
    return {
        name: _serialized(attribute.default_value)
        for name, attribute in schema.attributes.items()
        if attribute.default_value.name
    }


def _serialized(attribute: onnx.AttributeProto) -> bytes:
    plain = onnx.AttributeProto()
    plain.CopyFrom(attribute)
    plain.ClearField("doc_string")
    return encoded(plain, deterministic=True)
