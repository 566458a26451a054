"""How far apart two models are, measured without bnfold: ``python benchmarks/referee.py BEFORE AFTER [--float64]``.

Prints the largest difference of an output relative to max |y|: over three random inputs and zeros, as ONNX Runtime runs
both, its graph optimisations off; or with ``--float64`` on the first of them, as ONNX's reference implementation does,
all floating-point types made double, so that what is left is the rounding of the weights. There are kernels here for
what is wrong in that, or takes minutes.
"""

from __future__ import annotations

import itertools
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from types import EllipsisType
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, numpy_helper
from onnx.reference import ReferenceEvaluator
from onnx.reference.op_run import OpRun

Array = npt.NDArray[Any]
Index = tuple[slice | int | EllipsisType, ...]
Run = Callable[[Mapping[str, Array]], Sequence[Array]]
OPEN_SIZES = (64, 224, 48, 32, 128, 640, 1)  # tried in turn for what a model leaves open, apart from the first axis
FLOATS = (TensorProto.FLOAT, TensorProto.FLOAT16)
KINDS = (("normal", 1.0), ("uniform", 1.0), ("normal", 5.0), ("normal", 0.0))


# --- float64 -------------------------------------------------------------------------------------------------


def taps(
    x: Array, kernel: Sequence[int], fill: float, given: dict[str, Any]
) -> Iterator[tuple[tuple[int, ...], Array]]:
    """For each tap of a kernel, what of the padded data it meets at every place of the output."""
    rank = len(kernel)
    strides, dilations = (list(given.get(key) or [1] * rank) for key in ("strides", "dilations"))
    reach = [(size - 1) * dilation + 1 for size, dilation in zip(kernel, dilations, strict=True)]
    pads = list(given.get("pads") or [0] * 2 * rank)
    if (auto := given.get("auto_pad") or "NOTSET").startswith("SAME"):
        sizes = list(zip(x.shape[2:], strides, reach, strict=True))
        total = [max((-(-size // s) - 1) * s + r - size, 0) for size, s, r in sizes]
        small, large = [each // 2 for each in total], [each - each // 2 for each in total]
        pads = small + large if auto == "SAME_UPPER" else large + small
    extra = [s - 1 if given.get("ceil_mode") else 0 for s in strides]
    padded = [size + a + b for size, a, b in zip(x.shape[2:], pads[:rank], pads[rank:], strict=True)]
    out = [(size - r + e) // s + 1 for size, r, s, e in zip(padded, reach, strides, extra, strict=True)]
    width = [(a, b + e) for a, b, e in zip(pads[:rank], pads[rank:], extra, strict=True)]
    x = np.pad(x, [(0, 0), (0, 0), *width], constant_values=fill)
    for tap in itertools.product(*map(range, kernel)):
        places = zip(tap, dilations, strides, out, strict=True)
        window: Index = (..., *(slice(t * d, t * d + (o - 1) * s + 1, s) for t, d, s, o in places))
        yield tap, x[window]


class Conv(OpRun):
    """One matrix product for each tap."""

    op_domain = ""

    def _run(self, x: Array, w: Array, b: Array | None = None, **given: Any) -> tuple[Array]:
        group = given.get("group") or 1
        weight = w.reshape(group, len(w) // group, *w.shape[1:])
        result: Any = 0.0
        for tap, met in taps(x, w.shape[2:], 0.0, given):
            columns = met.reshape(len(x), group, w.shape[1], -1)
            of_tap: Index = (..., *tap)
            result = result + weight[of_tap] @ columns
            sizes = met.shape[2:]
        result = result.reshape(len(x), len(w), *sizes)
        return (result if b is None else result + b.reshape(-1, *[1] * len(sizes)),)


class FusedConv(Conv):
    """ONNX Runtime's: a Conv with what is added to it, and an activation."""

    op_domain = "com.microsoft"

    def _run(self, x: Array, w: Array, b: Array | None = None, z: Array | None = None, **given: Any) -> tuple[Array]:
        y = super()._run(x, w, b, **given)[0]
        y = y if z is None else y + z
        limits = given.get("activation_params") or [0.0, 0.0]
        made: dict[str, Callable[[], Array]] = {
            "Relu": lambda: np.maximum(y, 0),
            "Clip": lambda: np.clip(y, *limits),
            "LeakyRelu": lambda: np.where(y < 0, limits[0] * y, y),
            "HardSigmoid": lambda: np.clip(limits[0] * y + limits[1], 0, 1),
            "Sigmoid": lambda: 1 / (1 + np.exp(-y)),
            "Tanh": lambda: np.tanh(y),
        }
        return (made[given.get("activation") or ""](),)


class BatchNormalization(OpRun):
    """ONNX's own is another function for opsets 9 to 13. What training makes beside y is not known."""

    op_domain = ""

    def _run(
        self, x: Array, *parameters: Array, epsilon: float | None = None, training_mode: int = 0, **_: Any
    ) -> tuple[Array]:
        if training_mode:
            others = 0, *range(2, x.ndim)
            parameters = *parameters[:2], x.mean(others), x.var(others)
        scale, shift, mean, var = (each.reshape(-1, *[1] * (x.ndim - 2)) for each in parameters)
        return ((x - mean) / np.sqrt(var + (epsilon or 1e-5)) * scale + shift,)


class MaxPool(OpRun):
    """The largest of all taps; without indices."""

    op_domain = ""

    def _run(self, x: Array, **given: Any) -> tuple[Array]:
        return (np.maximum.reduce([met for _, met in taps(x, given["kernel_shape"], -np.inf, given)]),)


def widened(graph: onnx.GraphProto) -> None:
    """Makes every floating-point type of a graph double."""
    for tensor in graph.initializer:
        widen_tensor(tensor)
    for entry in [*graph.input, *graph.output]:
        if entry.type.tensor_type.elem_type in FLOATS:
            entry.type.tensor_type.elem_type = TensorProto.DOUBLE
    del graph.value_info[:]
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.HasField("t"):
                widen_tensor(attribute.t)
            if attribute.HasField("g"):
                widened(attribute.g)
            if node.op_type == "Cast" and attribute.name == "to" and attribute.i in FLOATS:
                attribute.i = TensorProto.DOUBLE
            if node.op_type == "Constant" and attribute.name in ("value_float", "value_floats"):
                numbers = attribute.f if attribute.name == "value_float" else list(attribute.floats)
                value = numpy_helper.from_array(np.asarray(numbers, np.float64))
                attribute.CopyFrom(onnx.helper.make_attribute("value", value))


def widen_tensor(tensor: TensorProto) -> None:
    if tensor.data_type in FLOATS:
        tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor).astype(np.float64), tensor.name))


def in_float64(path: str) -> Run:
    model = onnx.load(path)
    widened(model.graph)
    evaluator = ReferenceEvaluator(model, new_ops=[BatchNormalization, Conv, FusedConv, MaxPool])

    def run(feed: Mapping[str, Array]) -> Sequence[Array]:
        wide = {name: array.astype(np.float64) if array.dtype.kind == "f" else array for name, array in feed.items()}
        return [np.asarray(value) for value in evaluator.run(None, wide)]

    return run


def under_onnxruntime(path: str) -> Run:
    import onnxruntime as ort  # noqa: PLC0415 -- the other way does without

    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 4
    options.intra_op_num_threads = 1
    session = ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    return lambda feed: session.run(None, feed)


# --- inputs and differences ----------------------------------------------------------------------------------


def feeds(model: onnx.ModelProto, size: int) -> Iterator[dict[str, Array]]:
    """Inputs of all kinds, where every size that is open is ``size``, and the first is 1, or 2 if it is normalised."""
    stored = {tensor.name for tensor in model.graph.initializer}
    first = 1 + any(each.name == "training_mode" and each.i for node in model.graph.node for each in node.attribute)
    for seed, (kind, scale) in enumerate(KINDS):
        random = np.random.default_rng(seed)
        feed = {}
        for entry in model.graph.input:
            tensor = entry.type.tensor_type
            shape = [max(dim.dim_value, 0) or (size if axis else first) for axis, dim in enumerate(tensor.shape.dim)]
            dtype = onnx.helper.tensor_dtype_to_np_dtype(tensor.elem_type)
            x = random.standard_normal(shape) if kind == "normal" else random.random(shape)
            if entry.name not in stored:
                feed[entry.name] = (scale * x if dtype.kind == "f" else random.integers(0, 2, shape)).astype(dtype)
        yield feed


def difference(old: Sequence[Array], new: Sequence[Array]) -> float:
    """The largest of all outputs, relative to max |y|; infinite where only one side is finite, or shapes differ."""
    worst = 0.0
    for a, b in zip(old, new, strict=True):
        if a.shape != b.shape or not (np.isfinite(a) == np.isfinite(b)).all():
            return float("inf")
        fine = np.isfinite(a)
        if fine.any():
            apart = np.abs(a[fine].astype(np.float64) - b[fine])
            worst = max(worst, float(apart.max()) / (float(np.abs(a[fine]).max()) or 1.0))
    return worst


def main(before: str, after: str, *, float64: bool) -> float:
    open_run, most = (in_float64, 1) if float64 else (under_onnxruntime, len(KINDS))
    run, model = open_run(before), onnx.load(before)
    for size in OPEN_SIZES:
        samples = list(feeds(model, size))[:most]
        try:
            old = run(samples[0])
        except Exception:  # a size that the model does not take
            continue
        if difference(old, run(samples[0])):
            raise SystemExit("BEFORE is random")
        other = open_run(after)
        rest = (difference(run(sample), other(sample)) for sample in samples[1:])
        return max([difference(old, other(samples[0])), *rest])
    raise SystemExit("BEFORE does not run")


if __name__ == "__main__":
    print(main(sys.argv[1], sys.argv[2], float64="--float64" in sys.argv))
