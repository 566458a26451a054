"""Models that are wrong in some way: made from right ones, by a number, so that each can be made again.

A mutation either changes a field of the protobuf, whichever it is (a name, a type, a dim, an attribute, a whole node or
graph), or bytes of the file.
"""

from __future__ import annotations

import copy
import math
import random
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import onnx
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message

_BYTES_ONLY = 0.25  # of all mutants
_MOST_MUTATIONS = 4
_INTEGERS = (0, 1, -1, 2, 3, 7, 15, 16, 22, 76, 255, 2**31 - 1, 2**31, -(2**31), 2**40, 2**63 - 1, -(2**63))
_FLOATS = (0.0, -0.0, 1.0, -1.0, math.nan, math.inf, -math.inf, 1e-45, 1e-30, 3e38)
_STRINGS = ("", "x", "BatchNormalization", "Conv", "Loop", "Constant", "ai.onnx.ml", "é", "\x1b[2J\n", "a" * 999)
_BLOBS = (b"", b"\0", b"\0\0\0\0", b"\xff" * 7, b"\xff" * 16, b"x" * 4096)

Field = tuple[Message, FieldDescriptor]


def mutant(originals: Sequence[bytes], number: int) -> bytes:
    """The model of that number: one of the originals, changed in one to four places."""
    rng = random.Random(number)
    return changed(rng.choice(originals), rng)


def changed(data: bytes, rng: random.Random) -> bytes:
    """A model, changed in one to four places.

    Raises:
        DecodeError: it is none.
    """
    if rng.random() < _BYTES_ONLY:
        return _bytes_changed(data, rng)
    model = onnx.load_from_string(data)
    for _ in range(rng.randint(1, _MOST_MUTATIONS)):
        rng.choice(_MUTATIONS)(model, rng)
    return bytes(model.SerializeToString())


# --- of the protobuf ---------------------------------------------------------------------------------------


def _change_a_field(model: onnx.ModelProto, rng: random.Random) -> None:
    fields = list(_fields(model))
    # in proportion to their number a model is mostly value_info; so first the kind of field, then one of it
    kind = rng.choice(sorted({field.full_name for _, field in fields}))
    message, field = rng.choice([pair for pair in fields if pair[1].full_name == kind])
    if field.is_repeated:
        _change_list(model, message, field, rng)
    elif field.message_type is not None and rng.random() < 0.5:
        message.ClearField(field.name)
    else:
        value = _value(model, field, rng)
        if field.message_type is None:
            setattr(message, field.name, value)
        else:
            getattr(message, field.name).CopyFrom(value)


def _change_list(model: onnx.ModelProto, message: Message, field: FieldDescriptor, rng: random.Random) -> None:
    entries = getattr(message, field.name)
    at = rng.randrange(len(entries)) if entries else 0
    match rng.choice(("drop", "repeat", "swap", "add", "change", "clear")):
        case "drop" if entries:
            del entries[at]
        case "repeat" if entries:
            _append(entries, copy.deepcopy(entries[at]))
        case "swap" if entries:
            order = [copy.deepcopy(entry) for entry in entries]
            rng.shuffle(order)
            del entries[:]
            entries.extend(order)
        case "change" if entries and field.message_type is None:
            entries[at] = _value(model, field, rng)
        case "clear":
            del entries[:]
        case _:
            _append(entries, _value(model, field, rng))


def _append(entries: Any, value: Any) -> None:
    entries.extend([value])


def _value(model: onnx.ModelProto, field: FieldDescriptor, rng: random.Random) -> Any:
    """For a field: one that some field like it has, or an odd one."""
    alike = [value for value in _values(model) if _is_of(field, value)]
    if field.message_type is not None:
        return copy.deepcopy(rng.choice(alike)) if alike else field.message_type._concrete_class()
    if alike and rng.random() < 0.5:
        return rng.choice(alike)
    return _odd(field, rng)


def _is_of(field: FieldDescriptor, value: object) -> bool:
    if field.message_type is not None:
        return isinstance(value, Message) and value.DESCRIPTOR.full_name == field.message_type.full_name
    return field.type == FieldDescriptor.TYPE_STRING and isinstance(value, str)


def _odd(field: FieldDescriptor, rng: random.Random) -> Any:
    match field.type:
        case FieldDescriptor.TYPE_STRING:
            return rng.choice(_STRINGS)
        case FieldDescriptor.TYPE_BYTES:
            return rng.choice(_BLOBS)
        case FieldDescriptor.TYPE_FLOAT | FieldDescriptor.TYPE_DOUBLE:
            return rng.choice(_FLOATS)
        case FieldDescriptor.TYPE_ENUM:
            return rng.choice(field.enum_type.values).number
        case FieldDescriptor.TYPE_INT32:
            return rng.choice([value for value in _INTEGERS if -(2**31) <= value < 2**31])
        case FieldDescriptor.TYPE_UINT64:
            return rng.choice([value for value in _INTEGERS if value >= 0])
    return rng.choice(_INTEGERS)


def _fields(message: Message) -> Iterator[Field]:
    """Every field that could be set, of every message in it."""
    for field in message.DESCRIPTOR.fields:
        yield message, field
    for field, value in message.ListFields():
        if field.message_type is not None:
            for part in value if field.is_repeated else (value,):
                yield from _fields(part)


def _values(message: Message) -> Iterator[object]:
    for field, value in message.ListFields():
        for part in value if field.is_repeated else (value,):
            yield part
            if field.message_type is not None:
                yield from _values(part)


def _nodes(message: Message) -> list[onnx.NodeProto]:
    return [value for value in _values(message) if isinstance(value, onnx.NodeProto)]


def _rewire(model: onnx.ModelProto, rng: random.Random) -> None:
    """An input of a node becomes any value: a cycle, a weight, a value of another graph, the node itself."""
    nodes = [node for node in _nodes(model) if node.input]
    if nodes:
        node = rng.choice(nodes)
        names = [name for other in _nodes(model) for name in (*other.input, *other.output)]
        node.input[rng.randrange(len(node.input))] = rng.choice([*names, ""])


def _replace_operator(model: onnx.ModelProto, rng: random.Random) -> None:
    if nodes := _nodes(model):
        rng.choice(nodes).op_type = rng.choice([*(node.op_type for node in nodes), *_OPERATORS])


def _retype_attribute(model: onnx.ModelProto, rng: random.Random) -> None:
    """An attribute of another type, its name kept."""
    if attributes := [value for value in _values(model) if isinstance(value, onnx.AttributeProto)]:
        attribute = rng.choice(attributes)
        name = attribute.name
        attribute.CopyFrom(copy.deepcopy(rng.choice([*attributes, *_ATTRIBUTES])))  # it may be one inside itself
        attribute.name = name


def _retype_tensor(model: onnx.ModelProto, rng: random.Random) -> None:
    """A tensor of another type that has the data which that asks for."""
    if tensors := [value for value in _values(model) if isinstance(value, onnx.TensorProto)]:
        tensor = rng.choice(tensors)
        kind = rng.choice([kind for kind in onnx.TensorProto.DataType.values() if kind])
        count = min(math.prod(tensor.dims), 4096) if all(dim >= 0 for dim in tensor.dims) else 1
        dims, name = ([count] if rng.random() < 0.2 else list(tensor.dims)), tensor.name
        if math.prod(dims) != count:
            return
        filled: Any = [b"a"] * count if kind == onnx.TensorProto.STRING else [rng.choice((0, 1))] * count
        tensor.CopyFrom(onnx.helper.make_tensor(name, kind, dims, filled))


def _resize_tensor(model: onnx.ModelProto, rng: random.Random) -> None:
    """A float tensor of other dims that has the data which those ask for."""
    if tensors := [value for value in _values(model) if isinstance(value, onnx.TensorProto)]:
        tensor = rng.choice(tensors)
        dims = [rng.choice((0, 1, 2, 3, 5)) for _ in range(rng.randint(0, 5))]
        filled = [rng.choice(_FLOATS) for _ in range(math.prod(dims))]
        tensor.CopyFrom(onnx.helper.make_tensor(tensor.name, onnx.TensorProto.FLOAT, dims, filled))


def _call_a_function(model: onnx.ModelProto, rng: random.Random) -> None:
    """Some nodes become the body of a function, which one of them calls: perhaps itself."""
    if not model.functions or rng.random() < 0.3:
        body = [copy.deepcopy(node) for node in model.graph.node[:3]]
        names = [name for node in body for name in (*node.input, *node.output)] or ["x"]
        imports = list(model.opset_import)
        function = onnx.helper.make_function("d", f"F{len(model.functions)}", names[:2], names[-1:], body, imports)
        model.functions.append(function)
        model.opset_import.append(onnx.helper.make_opsetid("d", 1))
    function = rng.choice(model.functions)
    if nodes := _nodes(model):
        node = rng.choice(nodes)
        node.domain, node.op_type = function.domain, function.name


def _give_a_body(model: onnx.ModelProto, rng: random.Random) -> None:
    """A node becomes an If, Loop or Scan over a part of the model."""
    if nodes := _nodes(model):
        node = rng.choice(nodes)
        body = copy.deepcopy(model.graph)
        if rng.random() < 0.7:
            del body.node[rng.randrange(len(body.node) + 1) :]
            del body.input[:]
        node.op_type, node.domain = rng.choice(("If", "Loop", "Scan", "SequenceMap")), ""
        for name in rng.choice((("then_branch", "else_branch"), ("body",))):
            node.attribute.append(onnx.helper.make_attribute(name, body))


_OPERATORS = (
    *("BatchNormalization", "Conv", "ConvTranspose", "Gemm", "MatMul", "Mul", "Add", "Sub", "Div", "Relu", "Concat"),
    *("Reshape", "Transpose", "Squeeze", "Unsqueeze", "Flatten", "Expand", "Slice", "Gather", "Pad", "Split", "Cast"),
    *("Constant", "ConstantOfShape", "Shape", "Identity", "Einsum", "LayerNormalization", "QuantizeLinear", "Resize"),
    *("DequantizeLinear", "Where", "Clip", "ReduceMean", "AveragePool", "PRelu", "Dropout", "Pow", "Sqrt", "CastLike"),
)
_ATTRIBUTES = (
    *(onnx.helper.make_attribute("a", value) for value in (1, -1, 2**62, 0.5, math.nan, "NOTSET", "é", [1, 0], [0.5])),
    *(onnx.helper.make_attribute("a", value) for value in (["a", "b"], b"\xff", onnx.GraphProto(), onnx.TensorProto())),
    *(onnx.AttributeProto(name="a", type=kind) for kind in onnx.AttributeProto.AttributeType.values()),
    onnx.AttributeProto(name="a", ref_attr_name="b", type=onnx.AttributeProto.INTS),
    onnx.AttributeProto(name="a", i=3),  # no type, as old exporters write it
)
_MUTATIONS: tuple[Callable[[onnx.ModelProto, random.Random], None], ...] = (
    *(_change_a_field,) * 6,
    *(_rewire, _replace_operator, _retype_attribute, _retype_tensor, _resize_tensor, _call_a_function, _give_a_body),
)


# --- of the bytes ------------------------------------------------------------------------------------------


def _bytes_changed(data: bytes, rng: random.Random) -> bytes:
    changed = bytearray(data)
    for _ in range(rng.randint(1, _MOST_MUTATIONS)):
        start, stop = sorted(rng.randrange(len(changed) + 1) for _ in range(2))
        match rng.choice(("flip", "flip", "set", "cut", "drop", "splice")):
            case "flip" if start < len(changed):
                changed[start] ^= 1 << rng.randrange(8)
            case "set" if start < len(changed):
                changed[start] = rng.choice((0, 1, 0x7F, 0x80, 0xFF))
            case "cut":
                del changed[stop:]
            case "drop":
                del changed[start : min(stop, start + 16)]
            case _:
                changed[stop:stop] = changed[start : start + 64]
    return bytes(changed)
