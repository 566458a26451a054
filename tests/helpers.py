"""What tests of the core share: models as text, an oracle in float64, what holds of a folded model, and chance."""

from __future__ import annotations

import itertools
import re
import zlib
from collections.abc import Iterator, Mapping, Sequence
from types import EllipsisType
from typing import Any

import hypothesis.strategies as st
import ml_dtypes
import numpy as np
import numpy.typing as npt
import onnx
import onnx.parser
from hypothesis import Phase, settings
from onnx import GraphProto, ModelProto, NodeProto, TensorProto, numpy_helper
from onnx.reference import ReferenceEvaluator
from onnx.reference.op_run import OpRun

from bnfold.affine import Affine
from bnfold.folding import FoldOptions, plan
from bnfold.folding.record import Entry, Outcome, Plan
from bnfold.model_io import load, to_proto

Array = npt.NDArray[Any]
Feeds = dict[str, Array]
Index = tuple[slice | int | EllipsisType, ...]

NUMPY_TYPES: dict[str, Any] = {
    "float": np.float32,
    "double": np.float64,
    "float16": np.float16,
    "bfloat16": ml_dtypes.bfloat16,
    "int64": np.int64,
    "int32": np.int32,
}
_PARTS = ("scale", "bias", "mean", "var")
_SHORTHAND = re.compile(r"\{(\w+):([\d, ]*)([a-z0-9 ]*)\}")


# --- models as text ------------------------------------------------------------------------------------------


def model_of(text: str, dtype: str = "float") -> ModelProto:
    """A model from ONNX text with three shorthands.

    `T` is the element type. `{w: 4, 3}` is an initializer `w` of that shape with random values, drawn from its name.
    `{bn: 4}`, a name that starts with `bn`, stands for the four parameters of a BatchNormalization. Words behind the
    sizes say more: `positive`, `negative`, `zero` or `one` (of a scale: `bn`'s first parameter), `unshifted` (bias and
    mean are 0), `huge`, `tiny`, or an element type.
    """
    tensors: dict[str, TensorProto] = {}

    def expand(match: re.Match[str]) -> str:
        name, sizes, words = match[1], match[2], match[3].split()
        shape = [int(size) for size in sizes.split(",") if size.strip()]
        parts = [f"{name}_{part}" for part in _PARTS] if name.startswith("bn") else [name]
        for part in parts:
            tensors[part] = numpy_helper.from_array(_values(part, shape, words, dtype), part)
        return ", ".join(parts)

    body = _SHORTHAND.sub(expand, text)
    model = onnx.parser.parse_model(re.sub(r"\bT\b", dtype, body))
    model.graph.initializer.extend(tensors.values())
    return model


def _values(name: str, shape: Sequence[int], words: Sequence[str], dtype: str) -> Array:
    random = np.random.default_rng(zlib.crc32(name.encode()))
    kind = next((NUMPY_TYPES[word] for word in words if word in NUMPY_TYPES), NUMPY_TYPES[dtype])
    part = name.rpartition("_")[2] if name.startswith("bn") else ""
    values = np.asarray(random.normal(size=shape))
    size = np.asarray(random.uniform(0.5, 2, shape))
    if part == "var":
        values = size
    elif part in ("bias", "mean"):
        values = values * 0 if "unshifted" in words else values
    elif "positive" in words:
        values = size
    elif "negative" in words:
        values = -size
    elif "zero" in words:
        values = values * 0
    elif "one" in words:
        values = values * 0 + 1
    elif "huge" in words:
        values = size * 3e4
    elif "tiny" in words:
        values = size * 3e-7
    else:
        values = size * random.choice([-1, 1], shape)
    return values.astype(kind)


# --- the oracle ----------------------------------------------------------------------------------------------


class ConvTranspose(OpRun):
    """By scattering, from the definition: ONNX's own does not know groups."""

    op_domain = ""

    def _run(self, x: Array, w: Array, b: Array | None = None, **attributes: Any) -> tuple[Array]:
        given = {key: value for key, value in attributes.items() if value is not None}
        rank = x.ndim - 2
        group = given.get("group", 1)
        strides, dilations = (list(given.get(key) or [1] * rank) for key in ("strides", "dilations"))
        extra = list(given.get("output_padding") or [0] * rank)
        reach = [(size - 1) * dilation + 1 for size, dilation in zip(w.shape[2:], dilations, strict=True)]
        full = [(size - 1) * s + r + e for size, s, r, e in zip(x.shape[2:], strides, reach, extra, strict=True)]
        auto_pad = given.get("auto_pad") or "NOTSET"
        pads = list(given.get("pads") or [0] * 2 * rank)
        if auto_pad.startswith("SAME"):
            total = [max(f - size * s, 0) for f, size, s in zip(full, x.shape[2:], strides, strict=True)]
            small = [size // 2 for size in total]
            large = [size - half for size, half in zip(total, small, strict=True)]
            pads = small + large if auto_pad == "SAME_UPPER" else large + small
        out_group = w.shape[1]
        result = np.zeros((x.shape[0], out_group * group, *full), x.dtype)
        in_group = x.shape[1] // group
        for i, j in itertools.product(range(x.shape[1]), range(out_group)):
            channel = i // in_group * out_group + j
            for at in itertools.product(*map(range, x.shape[2:])):
                for tap in itertools.product(*map(range, w.shape[2:])):
                    to = tuple(p * s + t * d for p, s, t, d in zip(at, strides, tap, dilations, strict=True))
                    here: Index = (slice(None), i, *at)
                    there: Index = (slice(None), channel, *to)
                    result[there] += x[here] * w[(i, j, *tap)]
        window = tuple(slice(pads[axis], full[axis] - pads[axis + rank]) for axis in range(rank))
        result = result[(slice(None), slice(None), *window)]
        return (result if b is None else result + b.reshape(1, -1, *[1] * rank),)


class BatchNormalization(OpRun):
    """In inference mode, of every opset: ONNX's own trains from opset 9 to 13, where it means to infer."""

    op_domain = ""

    def _run(
        self, x: Array, scale: Array, bias: Array, mean: Array, var: Array, epsilon: float | None = None, **_: Any
    ) -> tuple[Array, ...]:
        shape = (1, -1, *[1] * (x.ndim - 2))
        wide = [np.asarray(array, np.float64).reshape(shape) for array in (scale, bias, mean, var)]
        exact = float(np.float32(1e-5 if epsilon is None else epsilon))
        y = wide[0] * (x.astype(np.float64) - wide[2]) / np.sqrt(wide[3] + exact) + wide[1]
        return (y.astype(x.dtype), *[np.zeros(scale.shape, scale.dtype)] * (len(self.onnx_node.output) - 1))


class _Arithmetic(OpRun):
    """Before opset 7 the right operand is broadcast from `axis` on."""

    op_domain = ""

    def _run(self, x: Array, y: Array, **_: Any) -> tuple[Array]:
        given = {attribute.name: attribute.i for attribute in self.onnx_node.attribute}
        if "axis" in given:
            y = y.reshape(y.shape + (1,) * (x.ndim - given["axis"] % x.ndim - y.ndim))
        return (FUNCTIONS[type(self).__name__](x, y),)


class Dropout(OpRun):
    """Before opset 7, where ONNX's reference implementation has none."""

    op_domain = ""

    def _run(self, x: Array, **_: Any) -> tuple[Array]:
        return (x,)


FUNCTIONS = {"Add": np.add, "Sub": np.subtract, "Mul": np.multiply, "Div": np.divide}
OLD_ARITHMETIC = [type(name, (_Arithmetic,), {}) for name in FUNCTIONS]


def own_ops(model: ModelProto) -> list[type[OpRun]]:
    """What ONNX's reference implementation lacks or has wrong, for the opset of this model."""
    is_old = any(entry.domain == "" and entry.version < 7 for entry in model.opset_import)
    return [BatchNormalization, ConvTranspose, *([Dropout, *OLD_ARITHMETIC] if is_old else ())]


def run(model: ModelProto, feeds: Mapping[str, Any]) -> dict[str, Array]:
    """Every value of the main graph, by ONNX's reference implementation."""
    with np.errstate(all="ignore"):
        session = ReferenceEvaluator(model, new_ops=own_ops(model))
        results = session.run(None, dict(feeds), intermediate=True)
    assert isinstance(results, dict)
    return results


def inputs_of(model: ModelProto) -> Iterator[onnx.ValueInfoProto]:
    """The inputs that a caller has to give."""
    initializers = {tensor.name for tensor in model.graph.initializer}
    return (entry for entry in model.graph.input if entry.name not in initializers)


def feeds_of(model: ModelProto, dims: Mapping[str, int] | None = None, seed: int = 0) -> list[Feeds]:
    """Random inputs of the declared types and shapes; one set for each combination of boolean inputs."""
    random = np.random.default_rng(seed)
    choices: dict[str, list[Array]] = {}
    for entry in inputs_of(model):
        tensor = entry.type.tensor_type
        shape = [(dims or {}).get(dim.dim_param, 2) if dim.dim_param else dim.dim_value for dim in tensor.shape.dim]
        kind = onnx.helper.tensor_dtype_to_np_dtype(tensor.elem_type)
        if kind == np.bool_:
            choices[entry.name] = [np.array(True), np.array(False)]
        elif np.issubdtype(kind, np.integer):
            choices[entry.name] = [np.full(shape, 2, kind)]
        else:
            choices[entry.name] = [np.asarray(random.normal(size=shape)).astype(kind)]
    return [dict(zip(choices, values, strict=True)) for values in itertools.product(*choices.values())]


def assert_close(actual: Array, expected: Array, relative: float, what: str = "") -> None:
    """Equal within a part of the largest magnitude; NaN and infinity at the same places."""
    actual, expected = (np.asarray(array, np.float64) for array in (actual, expected))
    finite = np.abs(expected[np.isfinite(expected)])
    scale = float(finite.max()) if finite.size else 1.0
    np.testing.assert_allclose(actual, expected, rtol=0, atol=relative * max(scale, 1e-30), err_msg=what)


# --- folding, and what must hold of the result ---------------------------------------------------------------


def folded(model: ModelProto, **options: Any) -> tuple[Plan, ModelProto]:
    """The plan for a model, and the model that comes of it."""
    planned = plan(load(model), FoldOptions(**options))
    return planned, to_proto(planned.model)


def told(entry: Entry) -> str:
    """An entry of a plan in one line, as the case files write it."""
    if entry.outcome is Outcome.KEPT:
        reasons = ", ".join(refusal.reason.name + _place(refusal.node, entry.node) for refusal in entry.refusals)
        return f"{entry.node} kept: {reasons}"
    line = f"{entry.node} {entry.outcome.value}"
    if entry.into:
        line += " into " + ", ".join(entry.into)
    if entry.through:
        line += " through " + ", ".join(entry.through)
    return line


def _place(node: str, own: str) -> str:
    return f" at {node}" if node not in ("", own) else ""


def assert_same_interface(before: ModelProto, after: ModelProto) -> None:
    """Names and types of graph inputs and outputs have not changed, nor anything else that a caller sees."""
    assert list(after.graph.output) == list(before.graph.output)
    assert list(inputs_of(after)) == list(inputs_of(before))
    assert after.graph.name == before.graph.name
    assert after.ir_version == before.ir_version
    assert list(after.opset_import) == list(before.opset_import)


def is_accepted(model: ModelProto) -> bool:
    """Whether ONNX's checker has nothing to say against a model, its notes on shapes included."""
    try:
        onnx.checker.check_model(model, full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError):
        return False
    return True


def assert_same_meaning(before: Mapping[str, Array], after: Mapping[str, Array], relative: float) -> None:
    """A value keeps its name only if it keeps its meaning."""
    for name in before.keys() & after.keys() - {""}:
        if np.asarray(before[name]).dtype.kind in "fV":
            assert_close(after[name], before[name], relative, what=name)
        else:
            np.testing.assert_array_equal(after[name], before[name], err_msg=name)


def assert_nothing_dead(before: ModelProto, after: ModelProto) -> None:
    """No initializer, node or note is left that nothing needs, beyond those that were there already."""
    assert _dead(after) <= _dead(before)


def all_nodes(model: ModelProto) -> list[NodeProto]:
    """Those in bodies and functions too."""
    return [node for graph in _scopes(model) for node in graph.node]


def label(node: NodeProto) -> str:
    """What reports call a node."""
    return node.name or next(filter(None, node.output), "")


def is_there(node: NodeProto, model: ModelProto) -> bool:
    """Whether a model has this very node, byte for byte."""
    return any(_bytes(other) == _bytes(node) for other in all_nodes(model))


def _bytes(node: NodeProto) -> bytes:
    return bytes(node.SerializeToString(deterministic=True))


def _dead(model: ModelProto) -> set[tuple[str, str]]:
    read = {name for graph in _scopes(model) for node in graph.node for name in node.input}
    read |= {_name(entry) for graph in _scopes(model) for entry in graph.output}
    dead: set[tuple[str, str]] = set()
    for graph in _scopes(model):
        made = {name for node in graph.node for name in node.output}
        for node in graph.node:
            if not read & {name for name in node.output if name}:
                dead.add(("node", node.op_type))
        known = made | {_name(entry) for entry in graph.input}
        if isinstance(graph, GraphProto):
            dead |= {("initializer", tensor.name) for tensor in graph.initializer if tensor.name not in read}
            known |= {tensor.name for tensor in graph.initializer}
            dead |= {
                ("annotation", note.tensor_name)
                for note in graph.quantization_annotation
                if note.tensor_name not in known
            }
        dead |= {("value_info", info.name) for info in graph.value_info if info.name not in known}
    return dead


def _name(entry: Any) -> str:
    return entry if isinstance(entry, str) else str(entry.name)


def _scopes(model: ModelProto) -> Iterator[Any]:
    waiting: list[Any] = [model.graph, *model.functions]
    while waiting:
        graph = waiting.pop()
        yield graph
        for node in graph.node:
            for attribute in node.attribute:
                waiting += [attribute.g] if attribute.HasField("g") else []
                waiting += attribute.graphs


# --- what hypothesis draws: no deadline, always the same examples --------------------------------------------

# the answer of a rule is checked on a few examples of many operators, and small as they are
few = settings(deadline=None, derandomize=True, max_examples=5, database=None, phases=[Phase.explicit, Phase.generate])
many = settings(deadline=None, derandomize=True, max_examples=100, database=None)

SCALES = st.sampled_from([1.0, -1.0, 0.0]) | st.floats(-4, 4).filter(lambda value: value == 0 or abs(value) > 0.01)
POSITIVE = st.floats(0.01, 4)
SHIFTS = st.just(0.0) | st.floats(-4, 4)


@st.composite
def affines(draw: st.DrawFn, shape: Sequence[int], axes: Sequence[int] | None = None) -> Affine:
    """An affine of a value of this shape, which varies along one of `axes` (all by default), or none, seldom two."""
    possible = [axis for axis in (range(len(shape)) if axes is None else axes) if shape[axis] > 1]
    varying = set(draw(st.lists(st.sampled_from(possible), max_size=2, unique=True))) if possible else set()
    if len(varying) == 2 and draw(st.integers(0, 2)):
        varying.pop()
    own = tuple(size if axis in varying else 1 for axis, size in enumerate(shape))
    count = int(np.prod(own))
    scales = draw(st.sampled_from([SCALES, POSITIVE, st.just(1.0)]))
    shifts = draw(st.sampled_from([SHIFTS, st.just(0.0)]))
    scale = np.array(draw(st.lists(scales, min_size=count, max_size=count))).reshape(own)
    shift = np.array(draw(st.lists(shifts, min_size=count, max_size=count))).reshape(own)
    return Affine(scale, shift)


def vectors(size: int, low: float, high: float, dtype: type = np.float32) -> st.SearchStrategy[Array]:
    """Numbers that the type holds exactly."""

    def number(value: float) -> Array:
        return np.asarray(value).astype(dtype)

    numbers = st.floats(low, high, width=64).map(number)
    return st.lists(numbers, min_size=size, max_size=size).map(lambda values: np.array(values, dtype))
