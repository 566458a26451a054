"""The smallest fault of one weight, one bias or one channel that the verifier tells, and that comparing outputs tells.

    python benchmarks/smallest_faults.py > benchmarks/results/smallest_faults.md

A chain of Conv (3x3), BatchNormalization and Relu is folded, and the fold broken in its middle Conv, by ever less. A
weight moves by a part of the largest of its channel, a bias by a part of itself, a channel's weights by a part of
themselves; in half precision no further than to another number of the type, or it is no fault.

Beside that, outputs under ONNX Runtime on one normal input, where a fault is found if some number is further off than a
tolerance, absolutely and relatively: of 1e-4; and of twice what the right fold needs on that input, which nobody knows
who has to find out whether a fold is right. A dash is where that does not pass the right fold, or nothing can be run.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime as ort
from onnx import helper, numpy_helper

from bnfold.folding import plan
from bnfold.model_io import load, to_proto
from bnfold.verification import Verdict, verify

Array = npt.NDArray[np.float64]
TYPES = ("float32", "float16", "bfloat16", "float64")
SIZES = ((8, 1), (32, 1), (128, 1), (512, 1), (32, 4), (32, 16))  # channels, layers
STEPS = [10 ** (k / 4) for k in range(-56, -3)]  # the faults that are tried, a quarter of a decade apart
USUAL = 1e-4
IMAGE = 12


def chain(dtype: str, channels: int, layers: int) -> onnx.ModelProto:
    random, kind = np.random.default_rng(0), helper.np_dtype_to_tensor_dtype(_numpy_type(dtype))
    nodes, tensors, x = [], [], "x"
    for k in range(layers):
        made = {
            "w": random.standard_normal((channels, channels, 3, 3)) * np.sqrt(2 / (9 * channels)),
            "s": random.uniform(0.5, 1.5, channels),
            "b": random.standard_normal(channels) * 0.3,
            "m": random.standard_normal(channels) * 0.3,
            "v": random.uniform(0.5, 1.5, channels),
        }
        tensors += [numpy_helper.from_array(a.astype(_numpy_type(dtype)), f"{name}{k}") for name, a in made.items()]
        nodes += [
            helper.make_node("Conv", [x, f"w{k}"], [f"c{k}"], f"conv{k}", pads=[1, 1, 1, 1]),
            helper.make_node("BatchNormalization", [f"c{k}", *(f"{name}{k}" for name in "sbmv")], [f"n{k}"], f"bn{k}"),
            helper.make_node("Relu", [f"n{k}"], [f"r{k}"], f"relu{k}"),
        ]
        x = f"r{k}"
    shape = [1, channels, IMAGE, IMAGE]
    first, last = ([helper.make_tensor_value_info(name, kind, shape)] for name in ("x", x))
    graph = helper.make_graph(nodes, "chain", first, last, tensors)
    return helper.make_model(graph, ir_version=8, opset_imports=[helper.make_opsetid("", 17)])


def one_weight(weight: Array, bias: Array, size: float) -> None:
    channel = weight[len(weight) // 2].reshape(-1)
    channel[np.abs(channel).argsort()[channel.size // 2]] += size * np.abs(channel).max()


def one_bias(weight: Array, bias: Array, size: float) -> None:
    bias[np.abs(bias).argmax()] *= 1 + size


def one_channel(weight: Array, bias: Array, size: float) -> None:
    weight[len(weight) // 2] *= 1 + size


FAULTS: tuple[Callable[[Array, Array, float], None], ...] = (one_weight, one_bias, one_channel)


def broken(model: onnx.ModelProto, fault: Callable[[Array, Array, float], None], size: float) -> onnx.ModelProto | None:
    """The fold with a fault; None if the type does not hold it."""
    after = onnx.ModelProto()
    after.CopyFrom(model)
    convs = [node for node in after.graph.node if node.op_type == "Conv"]
    tensors = {tensor.name: tensor for tensor in after.graph.initializer}
    places = [tensors[name] for name in convs[len(convs) // 2].input[1:]]
    stored = [numpy_helper.to_array(tensor) for tensor in places]
    exact = [array.astype(np.float64) for array in stored]
    fault(exact[0], exact[1], size)
    moved = [array.astype(old.dtype) for array, old in zip(exact, stored, strict=True)]
    if all(np.array_equal(*pair) for pair in zip(moved, stored, strict=True)):
        return None
    for tensor, array in zip(places, moved, strict=True):
        tensor.CopyFrom(numpy_helper.from_array(array, tensor.name))
    return after


def smallest(is_found: Callable[[onnx.ModelProto], bool], broken: Callable[[float], onnx.ModelProto | None]) -> str:
    """The smallest of the faults that is found, if larger ones are, too."""
    low, high = 0, len(STEPS)
    while low < high:
        middle = (low + high) // 2
        wrong = broken(STEPS[middle])
        low, high = (low, middle) if wrong is not None and is_found(wrong) else (middle + 1, high)
    return f"{STEPS[low]:.1e}" if low < len(STEPS) else "none"


class Outputs:
    """What both models make of one input, where ONNX Runtime runs them."""

    def __init__(self, before: onnx.ModelProto, after: onnx.ModelProto, dtype: str) -> None:
        kind, shape = _numpy_type(dtype), [d.dim_value for d in before.graph.input[0].type.tensor_type.shape.dim]
        self._feed = {"x": np.random.default_rng(1).standard_normal(shape).astype(kind)}
        self._old = self._run(before)
        self.own = self._apart(after)  # the tightest tolerance that the right fold passes

    def told_by(self, tolerance: float) -> Callable[[onnx.ModelProto], bool]:
        return lambda wrong: self._apart(wrong) > tolerance

    def _apart(self, after: onnx.ModelProto) -> float:
        return float((np.abs(self._old - self._run(after)) / np.maximum(1, np.abs(self._old))).max())

    def _run(self, model: onnx.ModelProto) -> Array:
        options = ort.SessionOptions()
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
        options.log_severity_level = 4
        session = ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
        return np.asarray(session.run(None, self._feed)[0], np.float64)


def found(before: onnx.ModelProto, right: onnx.ModelProto, dtype: str) -> Iterator[str]:
    """The cells of a row."""
    assert verify(before, right, run=False).verdict is Verdict.EQUIVALENT
    outputs: Outputs | None = None
    with suppress(Exception):  # ONNX Runtime has no Conv of some types, and says so by exceptions of its own
        outputs = Outputs(before, right, dtype)
    for fault in FAULTS:
        faults = partial(broken, right, fault)
        yield smallest(lambda wrong: verify(before, wrong, run=False).verdict is Verdict.DIFFERENT, faults)
        yield "-" if outputs is None or outputs.own > USUAL else smallest(outputs.told_by(USUAL), faults)
        yield "-" if outputs is None else smallest(outputs.told_by(2 * outputs.own), faults)


def _numpy_type(dtype: str) -> np.dtype[np.generic]:
    return (
        np.dtype(helper.tensor_dtype_to_np_dtype(onnx.TensorProto.BFLOAT16)) if dtype == "bfloat16" else np.dtype(dtype)
    )


def main() -> None:
    heads = (f"{fault}: verify | {USUAL:.0e} | twice" for fault in ("weight", "bias", "channel"))
    print("| type | channels | layers |", " | ".join(heads), "|")
    print("| --- |" + " ---: |" * 11)
    for dtype in TYPES:
        for channels, layers in SIZES:
            before = chain(dtype, channels, layers)
            cells = found(before, to_proto(plan(load(before)).model), dtype)
            print("|", " | ".join([dtype, str(channels), str(layers), *cells]), "|", flush=True)


if __name__ == "__main__":
    main()
