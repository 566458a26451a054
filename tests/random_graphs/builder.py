"""A graph that grows node by node, every shape known on the way. Names, opset, type and chance live here."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from math import prod
from types import EllipsisType
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import NodeProto, TensorProto, TypeProto, helper, numpy_helper
from onnx.shape_inference import infer_node_outputs

Array = npt.NDArray[Any]
Index = tuple[slice | int | EllipsisType, ...]
Attributes = dict[str, Any]  # of a node, as `make_node` takes them
MAX_ELEMENTS = 2500
NEWEST = onnx.defs.onnx_opset_version()


class Unfit(Exception):
    """This motif cannot stand here; another one is drawn."""


@dataclass(frozen=True, eq=False)
class Tensor:
    """A value of the graph: its name, its real shape, and the axis that per-channel things mean."""

    name: str
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    axis: int = 1
    value: Array | None = None  # of a constant

    @property
    def rank(self) -> int:
        return len(self.shape)

    @property
    def channels(self) -> int:
        return self.shape[self.axis]

    def along(self, axis: int) -> Tensor:
        return replace(self, axis=axis % max(self.rank, 1))


@dataclass
class World:
    """What all scopes of one model share."""

    seed: int
    rng: np.random.Generator
    opset: int
    ir: int
    dtype: np.dtype[Any]
    friendly: float  # how often an affine is made so that much lets it pass
    nasty_names: bool
    unnamed: bool
    names: set[str] = field(default_factory=set)
    functions: list[onnx.FunctionProto] = field(default_factory=list)
    shadows: bool = False  # a body has a name of a graph around it, which runtimes read in different ways


class Builder:
    """One scope: the main graph, a body of a control-flow node, or a function."""

    def __init__(self, world: World, parent: Builder | None = None, *, is_function: bool = False) -> None:
        self.world = world
        self.rng = world.rng
        self.opset = world.opset
        self.dtype = world.dtype
        self.parent = parent
        self.is_function = is_function
        self.nodes: list[NodeProto] = []
        self.initializers: list[TensorProto] = []
        self.sparse: list[onnx.SparseTensorProto] = []
        self.inputs: list[Tensor] = []  # of a graph: the declared ones; of a function: all
        self.passed: list[Tensor] = []  # to a function: what the caller gives for its further inputs
        self.tensors: list[Tensor] = []  # computed values, in order
        self.outputs: list[Tensor] = []
        self.shared: dict[tuple[object, ...], Tensor] = {}
        self.is_plain = False  # constants are written without disguise
        self.free: set[str] = set()  # names in use elsewhere, but where they are not seen

    # --- chance ----------------------------------------------------------------------------------------

    def chance(self, probability: float) -> bool:
        return bool(self.rng.random() < probability)

    def pick(self, options: Sequence[Any]) -> Any:
        return options[int(self.rng.integers(len(options)))]

    def integer(self, low: int, high: int) -> int:
        """Both ends included."""
        return int(self.rng.integers(low, high + 1))

    # --- names -----------------------------------------------------------------------------------------

    def name(self, hint: str) -> str:
        """A new name; a nasty one looks like those that bnfold makes."""
        names = self.world.names
        if self.world.nasty_names and names and self.chance(0.3):
            base = self.pick(sorted(names))
            hint = base + self.pick(
                ["_folded", "_folded_1", "_bias_folded", "_unshifted", "_shift", "_add", "_bias", "_1"]
            )
        name, number = hint, 0
        while name in names and name not in self.free:
            number += 1
            name = f"{hint}{number}"
        names.add(name)
        self.free.discard(name)
        return name

    def visible(self) -> list[str]:
        """The names that a body which stands here can see."""
        around = [] if self.parent is None or self.is_function else self.parent.visible()
        return [value.name for part in (self.inputs, self.tensors) for value in part] + around

    # --- values ----------------------------------------------------------------------------------------

    def input(self, shape: Sequence[int], hint: str = "x", dtype: Any = None) -> Tensor:
        tensor = Tensor(self.name(hint), tuple(shape), np.dtype(dtype or self.dtype))
        self.inputs.append(tensor)
        return tensor

    def store(self, array: Array, hint: str = "c") -> Tensor:
        """A constant as an initializer; in a function, as a Constant node."""
        array = np.asarray(array)
        if self.is_function or (self.world.ir < 4 and self.parent is not None):
            return self.constant_node(array, hint)
        tensor = Tensor(self.name(hint), array.shape, array.dtype, value=array)
        self.initializers.append(self._proto(array, tensor.name))
        return tensor

    def _proto(self, array: Array, name: str) -> TensorProto:
        """The values as bytes, or now and then as numbers."""
        if array.dtype.name in ("float32", "float64", "int64") and self.chance(0.1):
            return helper.make_tensor(
                name, helper.np_dtype_to_tensor_dtype(array.dtype), array.shape, array.reshape(-1).tolist()
            )
        return numpy_helper.from_array(array, name)

    def constant_node(self, array: Array, hint: str = "c") -> Tensor:
        tensor = Tensor(self.name(hint), array.shape, array.dtype, value=array)
        self._append(helper.make_node("Constant", [], [tensor.name], value=numpy_helper.from_array(array)))
        return tensor

    def integers(self, values: Sequence[int] | Array, hint: str = "i") -> Tensor:
        """An int64 constant."""
        array = np.asarray(values, np.int64)
        return self.constant_node(array, hint) if self.chance(0.3) else self.store(array, hint)

    # --- nodes -----------------------------------------------------------------------------------------

    def node(self, op_type: str, *inputs: Tensor | None, along: int | None = None, **attributes: Any) -> Tensor:
        """A node with one output in use. ``along`` is the output's channel axis, as before if not given."""
        (output,) = self.multi(op_type, inputs, 1, **attributes)
        if along is None:
            along = next((value.axis for value in inputs if value is not None and value.value is None), 1)
        output = output.along(max(min(along, output.rank - 1), -output.rank))
        self.tensors[-1] = output
        return output

    def multi(self, op_type: str, inputs: Sequence[Tensor | None], outputs: int, **attributes: Any) -> list[Tensor]:
        names = [self.name(op_type.lower()) for _ in range(outputs)]
        label = "" if self.world.unnamed and self.chance(0.7) else self.name(f"n_{op_type}")
        wanted = {key: value for key, value in attributes.items() if value is not None}
        listed = [value.name if value is not None else "" for value in inputs]
        node = helper.make_node(op_type, listed, names, label, **wanted)
        types = self._infer(node, [value for value in inputs if value is not None])
        self._append(node)
        made = [Tensor(name, *_shape_and_type(types[name])) for name in names]
        if any(prod(value.shape) > MAX_ELEMENTS or min(value.shape, default=1) < 1 for value in made):
            raise Unfit(f"{op_type} makes {[value.shape for value in made]}")
        self.tensors += made
        return made

    def raw(self, node: NodeProto, outputs: Sequence[Tensor]) -> None:
        """A node whose output shapes the caller knows."""
        self._append(node)
        self.tensors += outputs

    def _append(self, node: NodeProto) -> None:
        self.nodes.append(node)

    def _infer(self, node: NodeProto, inputs: Sequence[Tensor]) -> dict[str, TypeProto]:
        try:
            schema = onnx.defs.get_schema(node.op_type, self.opset, "")
            types: dict[str, TypeProto] = infer_node_outputs(
                schema,
                node,
                {value.name: _type(value) for value in inputs},
                {value.name: numpy_helper.from_array(value.value) for value in inputs if value.value is not None},
                opset_imports=[helper.make_opsetid("", self.opset)],
                ir_version=self.world.ir,
            )
            return types
        except Exception as error:  # onnx raises several unrelated kinds
            raise Unfit(f"{node.op_type}: {error}") from error

    def keeping_shape(self, op_type: str, *inputs: Tensor, **attributes: Any) -> Tensor:
        """A node whose result has the shape of its first input: for operators without shape inference."""
        result = replace(inputs[0], name=self.name(op_type.lower()))
        node = helper.make_node(
            op_type, [value.name for value in inputs], [result.name], self.name(f"n_{op_type}"), **attributes
        )
        self.raw(node, [result])
        return result

    # --- attempts --------------------------------------------------------------------------------------

    @contextmanager
    def rollback(self) -> Iterator[None]:
        """Takes back what a motif that raises ``Unfit`` has added."""
        builders = list(self._lineage())
        marks = [[len(part) for part in builder._parts()] for builder in builders]
        functions = len(self.world.functions)
        shared = [dict(builder.shared) for builder in builders]
        try:
            yield
        except Unfit:
            for builder, mark, known in zip(builders, marks, shared, strict=True):
                builder.shared = known
                for part, length in zip(builder._parts(), mark, strict=True):
                    del part[length:]
            del self.world.functions[functions:]
            raise

    def _parts(self) -> list[list[Any]]:
        return [self.nodes, self.initializers, self.sparse, self.inputs, self.passed, self.tensors, self.outputs]

    def _lineage(self) -> Iterator[Builder]:
        builder: Builder | None = self
        while builder is not None:
            yield builder
            builder = builder.parent

    def first_fit(self, motifs: Sequence[Callable[[Builder, Tensor], Tensor]], x: Tensor, tries: int = 8) -> Tensor:
        """What the first of some randomly drawn motifs makes of ``x``."""
        for _ in range(tries):
            motif = self.pick(motifs)
            try:
                with self.rollback():
                    made: Tensor = motif(self, x)
                    return made
            except Unfit:
                continue
        raise Unfit("nothing fits")


def _type(value: Tensor) -> TypeProto:
    return helper.make_tensor_type_proto(helper.np_dtype_to_tensor_dtype(value.dtype), value.shape)


def _shape_and_type(kind: TypeProto) -> tuple[tuple[int, ...], np.dtype[Any]]:
    tensor = kind.tensor_type
    if not tensor.HasField("shape") or not all(dim.HasField("dim_value") for dim in tensor.shape.dim):
        raise Unfit("its shape cannot be inferred")
    return tuple(dim.dim_value for dim in tensor.shape.dim), np.dtype(helper.tensor_dtype_to_np_dtype(tensor.elem_type))
