"""What ONNX's shape inference leaves out, noted in ``value_info`` for it to go on from.

Inference keeps what stands there beside what it finds out itself.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from onnx import GraphProto, TypeProto
from onnx.helper import make_tensor_type_proto

from bnfold.graph.dims import shape_after
from bnfold.graph.facts import Shape, knowledge, shape_of
from bnfold.graph.op import Value
from bnfold.model_io.tensors import STANDARD_DOMAINS

Types = Mapping[str, TypeProto]
Note = tuple[str, int, Shape]
"""The name of a value, its element type and its shape."""


def take_notes(graph: GraphProto, notes: Sequence[Note]) -> bool:
    """Writes them down; whether there were any."""
    infos = {info.name: info for info in graph.value_info} if notes else {}
    for name, elem_type, shape in notes:
        info = infos.get(name) or graph.value_info.add(name=name)
        infos[name] = info
        info.type.CopyFrom(make_tensor_type_proto(elem_type, shape))
    return bool(notes)


def channel_notes(graph: GraphProto, types: Types) -> Iterator[Note]:
    """A BatchNormalization reads and makes as many channels as it has parameters."""
    sizes = {tensor.name: tuple(tensor.dims) for tensor in graph.initializer}
    made = {name for node in graph.node for name in node.output}
    for node in graph.node:
        is_norm = node.op_type == "BatchNormalization" and node.domain in STANDARD_DOMAINS and len(node.input) > 1
        parameters = (sizes.get(node.input[1]) or shape_of(types.get(node.input[1]))) if is_norm else None
        if parameters is None or len(parameters) != 1 or not isinstance(parameters[0], int):
            continue
        for name in made & {node.input[0], node.output[0]}:
            shape = shape_of(types.get(name))
            if shape is not None and len(shape) > 1 and not isinstance(shape[1], int):
                yield name, types[name].tensor_type.elem_type, (shape[0], parameters[0], *shape[2:])


def reshape_notes(types: Types, values: Mapping[str, Value]) -> Iterator[Note]:
    """A Reshape makes what its target says, be it computed. ``values`` are those of the graph, by their names in it."""
    for name, value in values.items():
        op = value.producer
        if op is None or op.type != "Reshape":
            continue
        theirs = shape_of(types.get(name))
        is_open = theirs is None or any(knowledge(dim) < 2 for dim in theirs)
        if not is_open or (kind := types.get(name) or types.get(op.data(0).origin)) is None:
            continue
        ours = shape_after(op.graph, op)
        best = _best(ours, theirs)
        if best is not None and best != theirs:
            yield name, kind.tensor_type.elem_type, best


def _best(ours: Shape | None, theirs: Shape | None) -> Shape | None:
    if ours is None or theirs is None or len(ours) != len(theirs):
        return ours if theirs is None else theirs
    return tuple(max(pair, key=knowledge) for pair in zip(theirs, ours, strict=True))
