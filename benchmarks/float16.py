"""How far float16 models are from the exact values of their own weights, before and after folding.

    python benchmarks/float16.py MODEL... > benchmarks/results/float16.md

Each model's float32 weights are rounded to float16. The truth is that float16 model, BatchNormalizations and all,
evaluated in float64; errors are relative to the largest output.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
from onnx import TensorProto, numpy_helper
from onnx.reference import ReferenceEvaluator

import bnfold


def converted(model: onnx.ModelProto, dtype: type[np.floating]) -> onnx.ModelProto:
    """The model with every floating-point tensor and declared type in another type."""
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    floats = (TensorProto.FLOAT, TensorProto.FLOAT16)
    constants = [attribute.t for node in copy.graph.node for attribute in node.attribute if attribute.HasField("t")]
    for tensor in (*copy.graph.initializer, *constants):
        if tensor.data_type in floats:
            tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor).astype(dtype), tensor.name))
    for entry in (*copy.graph.input, *copy.graph.output, *copy.graph.value_info):
        if entry.type.tensor_type.elem_type in floats:
            entry.type.tensor_type.elem_type = onnx.helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
    return copy


def row(path: Path) -> str:
    half = converted(onnx.load(path), np.float16)
    (entry,) = half.graph.input
    shape = [dim.dim_value or 1 for dim in entry.type.tensor_type.shape.dim]
    x = np.random.default_rng(0).standard_normal(shape).astype(np.float16)
    (truth,) = ReferenceEvaluator(converted(half, np.float64)).run(None, {entry.name: x.astype(np.float64)})
    errors = []
    with tempfile.TemporaryDirectory() as folder:
        before, after = Path(folder) / "before.onnx", Path(folder) / "after.onnx"
        onnx.save(half, before)
        plan = bnfold.optimize(before, after).plan
        for model in (before, after):
            options = ort.SessionOptions()
            options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
            (y,) = ort.InferenceSession(model, options).run(None, {entry.name: x})
            errors.append(np.abs(y.astype(np.float64) - truth).max() / np.abs(truth).max())
    folded = sum(plan.count(outcome) for outcome in (bnfold.Outcome.FOLDED, bnfold.Outcome.REDUCED))
    return (
        f"| {path.stem} | {folded} of {sum(e.is_batchnorm for e in plan.entries)} | {errors[0]:.1e} | {errors[1]:.1e} |"
    )


def main(models: list[str]) -> None:
    print("| model in float16 | BatchNormalizations gone | error before | error after |")
    print("| --- | ---: | ---: | ---: |")
    for model in models:
        print(row(Path(model)), flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
