# /// script
# requires-python = ">=3.11"
# dependencies = ["bnfold"]
# ///
"""What calibration gives back: the tables of docs/calibration.md, on the digits and the networks of models/.

    python benchmarks/calibrate_quality.py

Needs the repository (models/), and no PyTorch. Takes a minute or two.
"""

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime
from onnx import helper, numpy_helper

import bnfold
from bnfold.calibration import calibrate, drift

MODELS = Path(__file__).parents[1] / "models"
IMAGES, LABELS = np.load(MODELS / "digits_test.npz")["image"], np.load(MODELS / "digits_labels.npz")["test"]
TRAIN = np.load(MODELS / "digits_train.npz")["image"]
SIZES = 1, 2, 8, 32, 256
Array = npt.NDArray[Any]
NETWORKS = "digits_resnet", "digits_mlp", "digits_preact"


def correct(model: onnx.ModelProto, images: Array = IMAGES) -> int:
    """How many of the 797 test images the model gets right."""
    return int((logits(model, images).argmax(1) == LABELS).sum())


def logits(model: onnx.ModelProto, images: Array) -> Array:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    outputs: Array = session.run(["logits"], {"image": images})[0]
    return outputs


def share(count: int) -> str:
    return f"{count / len(LABELS):.4f}"


def row(*cells: object) -> None:
    print(f"| {' | '.join(map(str, cells))} |")


def table(*heads: str) -> None:
    print()
    row(*heads)
    row("---", *["---:"] * (len(heads) - 1))


# Statistics forgotten.


def forgotten(model: onnx.ModelProto) -> onnx.ModelProto:
    """Mean 0 and variance 1 everywhere."""
    result = onnx.ModelProto()
    result.CopyFrom(model)
    tensors = {tensor.name: tensor for tensor in result.graph.initializer}
    for node in result.graph.node:
        if node.op_type == "BatchNormalization":
            for index, value in ((3, 0), (4, 1)):
                old = tensors[node.input[index]]
                old.CopyFrom(numpy_helper.from_array(np.full(tuple(old.dims), value, np.float32), old.name))
    return result


def show_forgotten() -> None:
    table("network", "trained", "forgotten", "method", *(f"batch {size}" for size in SIZES))
    for name in NETWORKS:
        model = onnx.load(MODELS / f"{name}.onnx")
        reset = forgotten(model)
        for method in ("sequential", "paper", "pooled"):
            sizes = [size for size in SIZES if size > 1 or method == "sequential"]
            found = [
                share(correct(calibrate(reset, TRAIN, method=method, batch_size=s, check=False).proto())) for s in sizes
            ]
            row(name, share(correct(model)), share(correct(reset)), method, *["-"] * (len(SIZES) - len(sizes)), *found)
        for momentum in (0.9, 0.99):
            results = (calibrate(reset, TRAIN, batch_size=s, method="ema", momentum=momentum) for s in SIZES[1:])
            found = [share(correct(result.proto())) for result in results]
            row(name, "", "", f"ema {momentum}", "-", *found)


# Inputs that changed.


def blurred(images: Array, sigma: float) -> Array:
    """A Gaussian blur, with zeros around the image."""
    steps = np.arange(-3, 4)
    kernel = np.exp(-(steps**2) / (2 * sigma**2))
    kernel /= kernel.sum()
    for axis in (2, 3):
        padded = np.pad(images, [(3, 3) if a == axis else (0, 0) for a in range(4)])
        images = sum(weight * np.take(padded, range(k, k + 8), axis) for k, weight in enumerate(kernel))
    return images


def corrupted(images: Array) -> dict[str, Array]:
    rng = np.random.default_rng(0)
    found = {"clean": images}
    found |= {f"noise {level}": images + rng.normal(0, level, images.shape) for level in (0.1, 0.2, 0.3, 0.5)}
    found |= {f"blur {sigma}": blurred(images, sigma) for sigma in (0.5, 0.8, 1.2)}
    found |= {f"contrast {factor}": images * factor for factor in (0.6, 0.3, 0.15)}
    found |= {f"brightness +{more}": images + more for more in (0.2, 0.4)}
    found |= {"pixels 0 to 16": images * 16, "other normalisation": (images - 0.3) / 0.4, "inverted": 1 - images}
    return {name: data.astype(np.float32) for name, data in found.items()}


def ranks(values: list[float]) -> Array:
    return np.argsort(np.argsort(values))


def show_corrupted(name: str) -> None:
    table(name, "accuracy", "recalibrated", "drift score", "worst layer", "verdict")
    model = onnx.load(MODELS / f"{name}.onnx")
    scores, worst, losses = [], [], []
    for condition, images in corrupted(IMAGES).items():
        before, result = correct(model, images), drift(model, images)
        after = correct(calibrate(model, images, check=False).proto(), images)
        row(
            condition,
            share(before),
            share(after),
            f"{result.score:.2g}",
            f"{result.worst.score:.2g}",
            result.verdict.value,
        )
        if condition != "inverted":  # information is lost there, not shifted
            scores.append(result.score)
            worst.append(result.worst.score)
            losses.append(float(-before))
    for what, found in (("mean", scores), ("worst layer", worst)):
        correlation = np.corrcoef(ranks(found), ranks(losses))[0, 1]
        print(
            f"\nSpearman's correlation of the {what} score with the loss, {len(losses)} conditions: {correlation:.2f}"
        )


# Weights and activations quantised, BatchNormalizations kept.


def quantised(model: onnx.ModelProto, bits: int, *, activations: bool, by_channel: bool = True) -> onnx.ModelProto:
    """Every weight, and every input of a Conv or Gemm if asked, through QuantizeLinear and DequantizeLinear.

    Weights: symmetric, one scale per output channel or tensor, in int8 of which only 2**bits - 1 values are used.
    Activations: uint8, range from 64 training images.
    """
    result = onnx.ModelProto()
    result.CopyFrom(model)
    graph = result.graph
    tensors = {tensor.name: tensor for tensor in graph.initializer}
    ranges = _ranges(model) if activations else {}
    nodes: list[onnx.NodeProto] = []
    for index, node in enumerate(graph.node):
        if node.op_type in ("Conv", "Gemm"):
            weight = numpy_helper.to_array(tensors[node.input[1]])
            node.input[1] = _dequantised_weight(graph, nodes, weight, bits, f"w{index}", by_channel)
            if node.input[0] in ranges:
                node.input[0] = _through_uint8(graph, nodes, node.input[0], ranges[node.input[0]], f"a{index}")
        nodes.append(node)
    kept = [onnx.NodeProto.FromString(node.SerializeToString()) for node in nodes]
    del graph.node[:]
    graph.node.extend(kept)
    return result


def _dequantised_weight(
    graph: onnx.GraphProto, nodes: list[onnx.NodeProto], weight: Array, bits: int, name: str, by_channel: bool
) -> str:
    most = 2 ** (bits - 1) - 1
    largest = np.abs(weight).max(tuple(range(1, weight.ndim)))
    scale = (largest if by_channel else np.full_like(largest, largest.max())) / most + 1e-12
    levels = np.round(weight / scale.reshape(-1, *[1] * (weight.ndim - 1))).astype(np.int8)
    parts = {f"{name}_q": levels, f"{name}_s": scale.astype(np.float32), f"{name}_z": np.zeros(len(scale), np.int8)}
    graph.initializer.extend(numpy_helper.from_array(array, part) for part, array in parts.items())
    nodes.append(helper.make_node("DequantizeLinear", list(parts), [name], axis=0))
    return name


def _through_uint8(
    graph: onnx.GraphProto, nodes: list[onnx.NodeProto], value: str, limits: tuple[float, float], name: str
) -> str:
    low, high = min(limits[0], 0.0), max(limits[1], 0.0)
    scale = np.float32((high - low) / 255)
    parts = [f"{name}_s", f"{name}_z"]
    arrays: list[Array] = [np.asarray(scale), np.asarray(np.round(-low / scale), np.uint8)]
    graph.initializer.extend(numpy_helper.from_array(array, part) for part, array in zip(parts, arrays, strict=True))
    nodes.append(helper.make_node("QuantizeLinear", [value, *parts], [f"{name}_q"]))
    nodes.append(helper.make_node("DequantizeLinear", [f"{name}_q", *parts], [name]))
    return name


def _ranges(model: onnx.ModelProto) -> dict[str, tuple[float, float]]:
    open_model = onnx.ModelProto()
    open_model.CopyFrom(model)
    names = {node.input[0] for node in model.graph.node if node.op_type in ("Conv", "Gemm")} - {"image"}
    open_model.graph.output.extend(onnx.ValueInfoProto(name=name) for name in names)
    session = onnxruntime.InferenceSession(open_model.SerializeToString(), providers=["CPUExecutionProvider"])
    values = session.run(list(names), {"image": TRAIN[:64]})
    found = {name: (float(value.min()), float(value.max())) for name, value in zip(names, values, strict=True)}
    return found | {"image": (0.0, 1.0)}


def show_quantised() -> None:
    table("network", "float32", "quantised to", "before", "after re-estimation", "residual")
    for name in ("digits_resnet", "digits_preact"):
        model = onnx.load(MODELS / f"{name}.onnx")
        for what, bits, activations in (
            ("int8 weights and activations", 8, True), ("4-bit weights", 4, False),
            ("4-bit weights, int8 activations", 4, True), ("3-bit weights", 3, False), ("2-bit weights", 2, False),
        ):  # fmt: skip
            coarse = quantised(model, bits, activations=activations)
            result = calibrate(coarse, TRAIN)
            after = share(correct(result.proto()))
            row(
                name,
                share(correct(model)),
                what,
                share(correct(coarse)),
                after,
                f"{result.residual:.0e}" if result.residual else "0",
            )


# Folded, quantised, and matched to the float model.


def told(model: onnx.ModelProto, truth: np.ndarray) -> str:
    """The share of test images that are right, and of those that are judged as by the float model."""
    found = logits(model, IMAGES).argmax(1)
    return f"{share(int((found == LABELS).sum()))} / {share(int((found == truth).sum()))}"


def show_matched() -> None:
    table(
        "network", "quantised to", "folded: before", "mean", "mean-variance", "unfolded: before", "re-estimated"
    )  # fmt: skip
    for name in ("digits_resnet", "digits_preact"):
        model = onnx.load(MODELS / f"{name}.onnx")
        folded, truth = bnfold.fold(model), logits(model, IMAGES).argmax(1)
        for bits, activations, by_channel in (
            (8, True, True), (8, True, False), (4, True, True), (4, False, True), (4, False, False),
            (3, False, True), (3, False, False), (2, False, True),
        ):  # fmt: skip
            how = {"activations": activations, "by_channel": by_channel}
            coarse, open_coarse = (quantised(each, bits, **how) for each in (folded, model))
            matched = [
                calibrate(coarse, TRAIN, reference=folded, method=method, check=False).proto()
                for method in ("mean", "mean-variance")
            ]
            row(
                name,
                f"{bits} bits by {'channel' if by_channel else 'tensor'}{', int8 activations' * activations}",
                *(told(each, truth) for each in (coarse, *matched, open_coarse)),
                told(calibrate(open_coarse, TRAIN, check=False).proto(), truth),
            )


if __name__ == "__main__":
    print(f"onnxruntime {onnxruntime.__version__}, onnx {onnx.__version__}, numpy {np.__version__}; 797 test images")
    show_forgotten()
    show_corrupted("digits_resnet")
    show_quantised()
    show_matched()
