"""What ONNX's shape inference leaves out, noted in ``value_info`` for it to go on from.

Inference keeps what stands there beside what it finds out itself.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from math import prod

import onnx
import onnx.checker
import onnx.defs
from onnx import GraphProto, NodeProto, TensorProto, TypeProto, numpy_helper
from onnx.helper import make_tensor_type_proto

from bnfold.confined import Exhausted
from bnfold.graph.dims import shape_after
from bnfold.graph.facts import FEW_SIZES, Shape, knowledge, shape_of
from bnfold.graph.inference import has_sizes_below_zero, inferred_types
from bnfold.graph.op import Op, Value
from bnfold.model_io.tensors import STANDARD_DOMAINS

Types = Mapping[str, TypeProto]
Note = tuple[str, int, Shape]
"""The name of a value, its element type and its shape."""


def take_notes(graph: GraphProto, notes: Sequence[Note]) -> bool:
    """Writes them down; whether any is news, as inference may pass over what stands there already."""
    infos = {info.name: info for info in graph.value_info} if notes else {}
    is_news = False
    for name, elem_type, shape in notes:
        info = infos.get(name) or graph.value_info.add(name=name)
        infos[name] = info
        is_news |= _stable(shape_of(info.type)) != _stable(shape)
        info.type.CopyFrom(make_tensor_type_proto(elem_type, shape))
    return is_news


def _stable(shape: Shape | None) -> Shape | None:
    """What it says, apart from names that inference makes up anew each time."""
    return shape and tuple(dim if knowledge(dim) > 1 else None for dim in shape)


def channel_notes(graph: GraphProto, types: Types) -> Iterator[Note]:
    """A BatchNormalization reads and makes as many channels as it has parameters."""
    sizes = {tensor.name: tuple(tensor.dims) for tensor in graph.initializer}
    made = {name for node in graph.node for name in node.output}
    for node in graph.node:
        is_norm = node.op_type == "BatchNormalization" and node.domain in STANDARD_DOMAINS and len(node.input) > 1
        parameters = (sizes.get(node.input[1]) or shape_of(types.get(node.input[1]))) if is_norm else None
        if parameters is None or len(parameters) != 1 or not isinstance(parameters[0], int):
            continue
        for name in made & {node.input[0], *node.output[:1]}:
            shape = shape_of(types.get(name))
            if shape is not None and len(shape) > 1 and not isinstance(shape[1], int):
                yield name, types[name].tensor_type.elem_type, (shape[0], parameters[0], *shape[2:])


def reshape_notes(graph: GraphProto, types: dict[str, TypeProto], values: Mapping[str, Value]) -> Iterator[Note]:
    """A Reshape makes what its target says, be it computed.

    What follows from that may tell the target of the next one, so types are filled in on the way, operator by operator;
    ``values`` are those of the graph, by their names in it.
    """
    told: set[str] = set()  # values of which more is known now
    for node in graph.node:
        value = values.get(node.output[0]) if node.output else None
        op = None if value is None else value.producer
        if value is None or op is None or all(_is_known(types.get(name)) for name in node.output if name):
            continue
        if not told.isdisjoint(node.input):
            told.update(_filled_in(node, op, types, values))
        kind = types.get(value.origin) or types.get(op.data(0).origin) if op.type == "Reshape" else None
        if kind is not None and _improve(types, value.origin, kind, shape_after(op.graph, op)):
            told.add(value.origin)
            yield value.origin, kind.tensor_type.elem_type, shape_of(types[value.origin]) or ()


def _improve(types: dict[str, TypeProto], name: str, kind: TypeProto, shape: Shape | None) -> bool:
    """Whether a shape says more of a value than is known."""
    known = shape_of(types.get(name))
    best = _best(shape, known)
    if best is None or best == known:
        return False
    types[name] = make_tensor_type_proto(kind.tensor_type.elem_type, best)
    return True


def _is_known(kind: TypeProto | None) -> bool:
    shape = shape_of(kind)
    return shape is not None and all(knowledge(dim) >= 2 for dim in shape)


def _filled_in(node: NodeProto, op: Op, types: dict[str, TypeProto], values: Mapping[str, Value]) -> Iterator[str]:
    """Fills in what can be told of what an operator makes; the names of what is known better now."""
    given = {name: kind for name in node.input if name and (kind := types.get(name) or _stored_type(values.get(name)))}
    if op.bodies or len(given) < len(set(filter(None, node.input))):
        return
    data = {name: few for name in given if (few := _few_integers(op, values.get(name))) is not None}
    with suppress(Exception):  # it has several, of sizes that do not fit
        found = types_made(node, op.opset, given, data)
        yield from [name for name, kind in found.items() if _improve(types, name, kind, shape_of(kind))]


def _stored_type(value: Value | None) -> TypeProto | None:
    tensor = None if value is None or value.is_input else value.tensor
    return None if tensor is None else make_tensor_type_proto(tensor.data_type, tensor.dims)


def _few_integers(op: Op, value: Value | None) -> TensorProto | None:
    """A constant as inference reads it: sizes, axes and the like."""
    constant = None if value is None else op.graph.constant(value)
    if constant is None or constant.dtype.kind != "i" or prod(constant.shape) > FEW_SIZES:
        return None
    return numpy_helper.from_array(constant.array())


def types_made(
    node: NodeProto, opset: int, types: Mapping[str, TypeProto], data: Mapping[str, TensorProto]
) -> dict[str, TypeProto]:
    """What ONNX's inference says of the outputs of one operator, by name.

    Args:
        node: The operator, of the standard domain.
        opset: The version of its definition.
        types: Those of its inputs.
        data: Its inputs that are known.

    Raises:
        Exception: The operator does not take what it gets.
    """
    if has_sizes_below_zero(types):
        return {}
    try:
        return inferred_types(opset, node, types, data)
    except Exhausted:
        return {}
    except (onnx.defs.SchemaError, onnx.checker.ValidationError):  # unknown, or a type that it does not have: bfloat16
        return {}


def _best(ours: Shape | None, theirs: Shape | None) -> Shape | None:
    if ours is None or theirs is None or len(ours) != len(theirs):
        return ours if theirs is None else theirs
    return tuple(max(pair, key=knowledge) for pair in zip(theirs, ours, strict=True))
