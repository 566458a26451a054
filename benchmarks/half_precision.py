"""What folding does to models in half precision, beside the float32 models that they were made from.

    python benchmarks/half_precision.py MODEL... > benchmarks/results/half_precision.md

Each float32 model is converted to float16, BatchNormalizations and all: that is the model as it is. It is folded, and
beside both stands what comes of folding the float32 model and converting then. Errors are root mean squares over some
random inputs, as parts of that of the reference: the float32 model, or the exact values of the half model's own
weights.

ONNX Runtime's CPU provider computes half models in float32, so that weights are all that is in half precision there.
Other devices store every value between two nodes in it as well; for those, each is rounded to 11 bits here.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime as ort
from onnx import TensorProto, numpy_helper

import bnfold

_RUNS = 8
Arrays = list[npt.NDArray[np.float64]]


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


def stored_in_half(model: onnx.ModelProto) -> onnx.ModelProto:
    """A float32 model that rounds what each node makes to the digits of half precision (Dekker 1971, Veltkamp)."""
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    graph = copy.graph
    types = {entry.name: entry.type for entry in onnx.shape_inference.infer_shapes(model).graph.value_info}
    floats = {name for name, kind in types.items() if kind.tensor_type.elem_type == TensorProto.FLOAT}
    floats |= {entry.name for entry in graph.output}
    graph.initializer.append(numpy_helper.from_array(np.asarray(2**13 + 1, np.float32), "split"))
    nodes = list(graph.node)
    del graph.node[:]
    for node in nodes:
        made = graph.node.add()
        made.CopyFrom(node)
        for index, name in enumerate(node.output):
            if name in floats:
                exact, large, low = (f"{name}/{part}" for part in ("exact", "large", "low"))
                made.output[index] = exact
                graph.node.append(onnx.helper.make_node("Mul", [exact, "split"], [large]))
                graph.node.append(onnx.helper.make_node("Sub", [large, exact], [low]))
                graph.node.append(onnx.helper.make_node("Sub", [large, low], [name]))
    return copy


def outputs(model: onnx.ModelProto) -> Arrays:
    """The first output for each of some random inputs."""
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    (entry,) = session.get_inputs()
    shape = [size if isinstance(size, int) else 1 for size in entry.shape]
    random = np.random.default_rng(0)
    inputs = [random.standard_normal(shape).astype(np.float16).astype(np.float32) for _ in range(_RUNS)]
    return [session.run(None, {entry.name: x})[0].astype(np.float64) for x in inputs]


def error(found: Arrays, wanted: Arrays) -> float:
    squares = sum(np.square(one - other).sum() for one, other in zip(found, wanted, strict=True))
    return float(np.sqrt(squares / sum(np.square(other).sum() for other in wanted)))


def row(path: Path) -> str:
    full = onnx.load(path)
    half = converted(full, np.float16)
    planned = bnfold.plan(half)
    models = half, bnfold.fold(half), converted(bnfold.fold(full), np.float16)
    weights = [converted(model, np.float32) for model in models]
    wanted, own = outputs(full), outputs(weights[0])
    stored = [outputs(stored_in_half(model)) for model in weights]
    errors = [error(own, wanted), *(error(outputs(model), wanted) for model in weights[1:])]
    errors += [error(found, wanted) for found in stored]
    errors += [error(found, own) for found in stored[:2]]
    count = sum(entry.is_batchnorm for entry in planned.entries)
    gone, reduced = planned.count(bnfold.Outcome.FOLDED), planned.count(bnfold.Outcome.REDUCED)
    folded = f"{gone} of {count}" + (f", {reduced} reduced" if reduced else "")
    return f"| {' | '.join([path.stem, folded, *(f'{each:.1e}' for each in errors)])} |"


def main(models: list[str]) -> None:
    print("| | BatchNormalizations | weights in half | | | values too | | | values too, from its own weights | |")
    print(
        "| model | folded in half | as it is | folded | folded first "
        "| as it is | folded | folded first | as it is | folded |"
    )
    print("| --- |" + " ---: |" * 9)
    for model in models:
        print(row(Path(model)), flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
