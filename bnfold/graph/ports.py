"""The inputs and outputs of a model, and whether those of two models agree."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace

import onnx
import onnx.checker

from bnfold.graph.facts import Dim, Shape
from bnfold.graph.functions import are_bounded
from bnfold.graph.index import Graph
from bnfold.graph.inference import inferable
from bnfold.graph.op import Op, Value
from bnfold.model_io import Model, ModelError
from bnfold.model_io.protobuf import copied
from bnfold.model_io.tensors import all_tensors, type_name
from bnfold.reasons import Refused

_PASSES_INDICES = frozenset({"Identity", "Cast", "Unsqueeze", "Squeeze", "Reshape", "Flatten", "Transpose"})


class InterfaceError(ModelError):
    """The two models cannot be compared. Its text is one line."""


@dataclass(frozen=True)
class Port:
    """An input or output.

    Attributes:
        name: Its name.
        kind: ``tensor``, or what else it is (``sequence``, ``optional``, ``map``, ``sparse_tensor``).
        elem_type: Number of the element type of a tensor, 0 if it is not given.
        shape: A size, a name or None for each axis; None if not even the rank is given.
    """

    name: str
    kind: str
    elem_type: int = 0
    shape: Shape | None = None

    def __str__(self) -> str:
        if self.kind != "tensor":
            return f"{self.name!r} {self.kind}"
        return f"{self.name!r} {told(self.elem_type)}[{'?' if self.shape is None else sizes_told(self.shape)}]"

    def accepts(self, other: Port) -> bool:
        """Whether nothing that is said of one contradicts what is said of the other."""
        if self.kind != other.kind or (self.elem_type and other.elem_type and self.elem_type != other.elem_type):
            return False
        if self.shape is None or other.shape is None:
            return True
        return len(self.shape) == len(other.shape) and all(
            left == right or not (isinstance(left, int) and isinstance(right, int))
            for left, right in zip(self.shape, other.shape, strict=True)
        )


def sizes_told(shape: Shape) -> str:
    """Sizes as the command line takes them; `?` for those that are not known."""
    return ",".join("?" if dim is None else str(dim) for dim in shape)


def told(elem_type: int) -> str:
    """The name of an element type, or its number if it has none."""
    return type_name(elem_type).lower() or f"type {elem_type}"


def required_inputs(model: Model) -> list[Port]:
    """The inputs that a caller has to give; those with an initializer have a default."""
    given = {tensor.name for tensor in model.proto.graph.initializer}
    given |= {sparse.values.name for sparse in model.proto.graph.sparse_initializer}
    return [_port(entry) for entry in model.proto.graph.input if entry.name not in given]


def lost_defaults(before: Model, after: Model) -> list[str]:
    """The inputs with a default that callers of ``before`` may give, and callers of ``after`` may not.

    Before IR version 4 every initializer had to be an input, and is a constant nevertheless.
    """
    if before.proto.ir_version < 4:
        return []
    given = {port.name for port in required_inputs(before)}
    kept = {entry.name for entry in after.proto.graph.input}
    return [entry.name for entry in before.proto.graph.input if entry.name not in given | kept]


def outputs_of(model: Model) -> list[Port]:
    """The outputs."""
    return [_port(entry) for entry in model.proto.graph.output]


def matched_outputs(before: Model, after: Model, renamed: Mapping[str, str]) -> dict[str, str]:
    """Checks that two models can be compared.

    Args:
        before: A model.
        after: Another.
        renamed: Outputs of ``before`` that have another name in ``after``.

    Returns:
        Each output of ``before`` with its name in ``after``.

    Raises:
        InterfaceError: Inputs or outputs differ in number, name, type or shape.
    """
    _match("input", required_inputs(before), required_inputs(after), {})
    try:
        _match("output", outputs_of(before), outputs_of(after), renamed)
    except InterfaceError:  # some converters declare an output as a scalar, whatever it is
        _match("output", _no_false_scalars(before), _no_false_scalars(after), renamed)
    return {port.name: renamed.get(port.name, port.name) for port in outputs_of(before)}


def _match(role: str, before: Iterable[Port], after: Iterable[Port], renamed: Mapping[str, str]) -> None:
    left = {renamed.get(port.name, port.name): port for port in before}
    right = {port.name: port for port in after}
    if unknown := [name for name in renamed if name not in {port.name for port in left.values()}]:
        raise InterfaceError(f"BEFORE has no {role} {unknown[0]!r}")
    if lost := [name for name in left if name not in right]:
        raise InterfaceError(f"AFTER has no {role} {lost[0]!r}; it has {', '.join(map(repr, right)) or 'none'}")
    if extra := [name for name in right if name not in left]:
        raise InterfaceError(f"BEFORE has no {role} {extra[0]!r}; it has {', '.join(map(repr, left)) or 'none'}")
    for name, port in left.items():
        if not port.accepts(right[name]):
            raise InterfaceError(f"{role} {port} of BEFORE is {right[name]} in AFTER")


def _port(entry: onnx.ValueInfoProto) -> Port:
    kind = (entry.type.WhichOneof("value") or "tensor_type").removesuffix("_type")
    if kind != "tensor":
        return Port(entry.name, kind)
    tensor = entry.type.tensor_type
    shape = tuple(_dim(dim) for dim in tensor.shape.dim) if tensor.HasField("shape") else None
    return Port(entry.name, kind, tensor.elem_type, shape)


def _dim(dim: onnx.TensorShapeProto.Dimension) -> Dim:
    if dim.HasField("dim_value") and dim.dim_value >= 0:  # some exporters write -1 for "any"
        return int(dim.dim_value)
    return dim.dim_param or None


def reordered(before: Model, after: Model, names: Mapping[str, str]) -> str:
    """Which of ``inputs`` and ``outputs`` come in another order: empty, one or both."""
    inputs = [port.name for port in required_inputs(before)] != [port.name for port in required_inputs(after)]
    outputs = list(names.values()) != [port.name for port in outputs_of(after)]
    return " and ".join(["inputs"] * inputs + ["outputs"] * outputs)


def mistyped(model: Model) -> str:
    """An output whose operators give it another element type than the model declares; empty if there is none.

    ONNX Runtime does not load such a model, and onnx.checker does not see it.
    """
    for declared, found in zip(outputs_of(model), _computed_outputs(model), strict=True):
        if declared.elem_type and found.elem_type and declared.elem_type != found.elem_type:
            return f"output {declared} is {told(found.elem_type)}, by the operators that make it"
    return ""


def _computed_outputs(model: Model) -> list[Port]:
    """The outputs as their operators make them; nothing is said of what cannot be told."""
    proto = copied(model.proto)
    if not are_bounded(proto):
        del proto.functions[:]
    for entry in proto.graph.output:
        entry.ClearField("type")  # only what is not declared is inferred
    with suppress(Exception):  # its error types are not public; then it cannot be told
        proto = inferable(proto).inferred()
    return list(map(_port, proto.graph.output))


def _no_false_scalars(model: Model) -> list[Port]:
    """The outputs; what is declared to be a scalar has the shape that its operators give it, if any."""
    return [
        replace(port, shape=found.shape) if port.shape == () and found.shape else port
        for port, found in zip(outputs_of(model), _computed_outputs(model), strict=True)
    ]


def invalid(model: Model) -> str:
    """What onnx.checker finds wrong with a model, empty if nothing; it need not look at the large tensors."""
    proto = copied(model.proto)
    for tensor in all_tensors(proto):
        if model.payload(tensor) is not None:
            for name in ("dims", "raw_data", "external_data", "data_location"):
                tensor.ClearField(name)
            tensor.dims.append(0)
            tensor.raw_data = b""
    for entry in (*proto.graph.input, *proto.graph.output):
        if entry.type.HasField("tensor_type"):  # the checker wants a shape, though the format and all runtimes do not
            entry.type.tensor_type.shape.SetInParent()
    try:
        onnx.checker.check_model(proto)
    except onnx.checker.ValidationError as error:
        return " ".join(str(error).split())
    return ""


def index_range(graph: Graph, name: str) -> int | None:
    """How many entries there are for an integer input to choose from, where the graph shows that."""
    sizes = list(_indexed(graph, graph.main.own(name), 0))
    return min(sizes, default=None)


def _indexed(graph: Graph, value: Value, depth: int) -> Iterator[int]:
    for use in value.readers:
        if use.op.type in ("Gather", "GatherElements") and use.index == 1:
            yield _size_along(graph, use.op) or 1
        elif use.op.type in _PASSES_INDICES and depth < 8 and use.index == 0 and use.op.outputs[0] is not None:
            yield from _indexed(graph, use.op.outputs[0], depth + 1)


def _size_along(graph: Graph, gather: Op) -> int | None:
    data = gather.input(0)
    shape = (None if data is None else graph.shape(data)) or ()
    try:
        axis = gather.attribute("axis", 0)
    except Refused:  # of another type, or the caller's
        return None
    size = shape[axis] if -len(shape) <= axis < len(shape) else None
    return size if isinstance(size, int) else None
