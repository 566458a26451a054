"""A whole random model from a seed."""

from __future__ import annotations

from collections import Counter
from contextlib import suppress
from dataclasses import dataclass

import numpy as np
import onnx
from onnx import ModelProto, TypeProto, helper

from random_graphs.absorbers import ABSORBERS
from random_graphs.affines import AFFINES, RARE
from random_graphs.branches import BRANCHES, focused
from random_graphs.builder import NEWEST, Array, Builder, Tensor, Unfit, World
from random_graphs.layout import LAYOUT, channels_first
from random_graphs.passers import BLOCKERS, POINTWISE, RESAMPLING
from random_graphs.rows import ROWS
from random_graphs.scopes import DOMAIN, SCOPES

_FLOATS = ["float64"] * 14 + ["float32"] * 4 + ["float16"]
_KINDS = [ABSORBERS] * 6 + [AFFINES] * 6 + [POINTWISE] * 3 + [RESAMPLING] * 2 + [LAYOUT] * 3 + [BRANCHES] * 7
_KINDS += [ROWS] * 2
_KINDS += [SCOPES, BLOCKERS, RARE]
_WEIGHTS = [1.0] * (len(_KINDS) - 3) + [0.8, 0.5, 0.25]


@dataclass(frozen=True, eq=False)
class Case:
    """A model, what to feed it, whether its own notes on shapes may be wrong, and whether it has shadowed names.

    Norms are folded of some, for all that has to hold anyway holds then, too.
    """

    seed: int
    model: ModelProto
    feeds: list[dict[str, Array]]
    has_wrong_notes: bool
    shadows: bool = False
    folds_norms: bool = False

    @property
    def dtype(self) -> str:
        """The type of its floating-point numbers."""
        infos = (*self.model.graph.output, *self.model.graph.input)
        numbers = [info.type.tensor_type.elem_type for info in infos]
        types = [np.dtype(helper.tensor_dtype_to_np_dtype(number)) for number in numbers if number]
        return next((kind.name for kind in types if kind.kind == "f"), "float64")

    @property
    def op_types(self) -> Counter[str]:
        return Counter(node.op_type for node in self.model.graph.node)


def random_case(seed: int) -> Case:
    """The model of a seed; the same in every run.

    Raises:
        Unfit: nothing came of it.
    """
    b = Builder(_world(seed))
    is_focused = b.chance(0.4)
    x = b.input((b.integer(1, 2), b.pick([3, 4, 8]), 4, b.pick([2, 4])) if is_focused and b.chance(0.8) else _shape(b))
    if is_focused:
        with suppress(Unfit):
            x = b.first_fit([focused], x, tries=16)
    x = _grown(b, x)
    if not b.nodes:
        raise Unfit("empty")
    return case_of(b, x)


def _world(seed: int) -> World:
    rng = np.random.default_rng(seed)
    opset = int(rng.choice([int(rng.integers(9, NEWEST + 1)), 9, 11, 13, 17, 18, 21, NEWEST], p=[0.44] + [0.08] * 7))
    ir = int(rng.choice([3, 4])) if opset <= 10 and rng.random() < 0.4 else int(rng.choice([8, 9, 10]))
    return World(
        seed=seed,
        rng=rng,
        opset=opset,
        ir=ir,
        dtype=np.dtype(str(rng.choice(_FLOATS))),
        friendly=float(rng.choice([0.2, 0.5, 0.9])),
        nasty_names=bool(rng.random() < 0.25),
        unnamed=bool(rng.random() < 0.3),
    )


def _shape(b: Builder) -> tuple[int, ...]:
    rank = b.pick([4, 4, 4, 4, 4, 3, 3, 2, 2, 5])
    channels = b.pick([1, 2, 3, 4, 4, 4, 6, 8])
    if b.chance(0.2) and channels <= 4:  # nothing tells the axes apart
        return (channels,) * rank if b.chance(0.5) else (1, *(channels,) * (rank - 1))
    return b.integer(1, 2), channels, *(b.integer(2, 6 if rank < 5 else 3) for _ in range(rank - 2))


def _grown(b: Builder, x: Tensor) -> Tensor:
    chances = np.array(_WEIGHTS) / sum(_WEIGHTS)
    for _ in range(b.integer(2, 8)):
        motifs = _KINDS[int(b.rng.choice(len(_KINDS), p=chances))]
        try:
            y = b.first_fit(motifs, x, tries=4)
        except Unfit:
            continue
        if b.chance(0.06):
            b.outputs.append(x)
        x = channels_first(b, y) if b.chance(0.4) else y
        if b.chance(0.05) and len(b.tensors) > 3:  # go on from somewhere else
            earlier = b.pick(b.tensors)
            if earlier.dtype == b.dtype and earlier.rank > 1:
                b.outputs.append(x)
                x = earlier
    return x


def case_of(b: Builder, last: Tensor) -> Case:
    """What a builder has grown, as a model with inputs to feed it."""
    read = {name for node in b.nodes for name in node.input}
    ends = [value for value in b.tensors if value.name not in read and value.dtype == b.dtype and b.chance(0.7)]
    made = {name for node in b.nodes for name in node.output}
    outputs = list({value.name: value for value in [*b.outputs, *ends, last] if value.name in made}.values())
    if not outputs:
        raise Unfit("nothing comes out")
    if b.chance(0.03):  # a constant, or the input itself, comes out as well
        names = {tensor.name for tensor in b.initializers}
        constants = [value for value in b.shared.values() if value.name in names]
        outputs.append(b.pick([*constants, b.inputs[0]]))
    model = _model(b, outputs)
    notes = b.pick(["none", "none", "none", "right", "right", "wrong"])
    if notes != "none":
        model = _annotated(b, model, wrong=notes == "wrong")
    if b.chance(0.1):
        _mention(b, model)
    return Case(b.world.seed, model, _feeds(b), notes == "wrong", b.world.shadows, b.world.seed % 4 == 0)


def _mention(b: Builder, model: ModelProto) -> None:
    """Notes on values that are long gone, by names that bnfold might give."""
    for name in {b.pick(sorted(b.world.names)) for _ in range(20)}:
        for suffix in ("_folded", "_bias"):
            if name + suffix not in b.world.names:
                kind = b.pick([onnx.TensorProto.INT64, onnx.TensorProto.FLOAT])
                model.graph.value_info.append(helper.make_tensor_value_info(name + suffix, kind, [7] * b.integer(1, 3)))


def _model(b: Builder, outputs: list[Tensor]) -> ModelProto:
    symbolic = b.chance(0.4)
    vague = b.chance(0.3)
    inputs = [_info(value, symbolic=symbolic) for value in b.inputs]
    overridable = b.chance(0.06)
    for tensor in b.initializers:
        if b.world.ir < 4 or (overridable and b.chance(0.3)):
            inputs.append(helper.make_tensor_value_info(tensor.name, tensor.data_type, list(tensor.dims)))
    results = [_info(value, symbolic=symbolic, vague=vague) for value in outputs]
    graph = helper.make_graph(b.nodes, "random", inputs, results, b.initializers, sparse_initializer=b.sparse)
    opsets = [helper.make_opsetid("", b.opset)]
    if b.world.functions:
        opsets.append(helper.make_opsetid(DOMAIN, 1))
    return helper.make_model(graph, opset_imports=opsets, ir_version=b.world.ir, functions=b.world.functions)


def _info(value: Tensor, *, symbolic: bool = False, vague: bool = False) -> onnx.ValueInfoProto:
    """An input or output; its batch may be symbolic, its sizes unknown."""
    shape: list[int | str | None] = list(value.shape)
    if vague:
        shape = [None] * len(shape)
    elif symbolic and shape:
        shape[0] = "N"
    info = helper.make_tensor_value_info(value.name, helper.np_dtype_to_tensor_dtype(value.dtype), shape)
    if symbolic and shape and not vague and value.name.startswith("x"):
        return info
    if symbolic and not vague and shape:  # a result's batch need not be N
        info.type.tensor_type.shape.dim[0].Clear()
    return info


def _annotated(b: Builder, model: ModelProto, *, wrong: bool) -> ModelProto:
    model = onnx.shape_inference.infer_shapes(model)
    for info in model.graph.value_info:
        if wrong and b.chance(0.3) and info.type.HasField("tensor_type"):
            _falsify(b, info.type)
    return model


def _falsify(b: Builder, kind: TypeProto) -> None:
    dims = kind.tensor_type.shape.dim
    if dims and b.chance(0.7):
        dims[b.integer(0, len(dims) - 1)].dim_value = 7
    else:
        dims.add().dim_value = 1


def _feeds(b: Builder) -> list[dict[str, Array]]:
    """Random inputs; both ways through each If."""
    fed = {value.name: _sample(b, value) for value in b.inputs if value.dtype != np.bool_}
    conditions = [value.name for value in b.inputs if value.dtype == np.bool_]
    ways = [False, True] if conditions else [True]
    return [fed | {name: np.asarray(way) for name in conditions} for way in ways]


def _sample(b: Builder, value: Tensor) -> Array:
    return np.asarray(b.rng.normal(0.3, 1.5, value.shape), value.dtype)
