"""Trained networks with data of their own, for measurements that random weights say nothing about.

Four are trained here in two minutes, of four kinds, on data that packages ship or that is made up: crops of
photographs whose rotation is to be told, tones whose wave form is, and scikit-learn's table of breast cancers. Three
are those of models/, on digits. One more comes with PaddleOCR, if its file is there; what that was trained on is not
to be had, so that it is calibrated on crops of photographs first.

Needs torch, scikit-learn, scikit-image and pillow.
"""

from __future__ import annotations

import io
import runpy
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import onnx
from PIL import Image

import bnfold

if TYPE_CHECKING:
    from torch import nn

Array = npt.NDArray[Any]
MODELS = Path(__file__).parents[1] / "models"
PHOTOGRAPHS = (
    "astronaut.png",
    "coffee.png",
    "chelsea.png",
    "rocket.jpg",
    "china.jpg",
    "flower.jpg",
    "motorcycle_left.png",
)
MEAN, STD = (np.array(values, np.float32).reshape(3, 1, 1) for values in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))
FORMS = 4  # of tones
EPOCHS, BATCH = 15, 50
PADDLE = "rapidocr_onnxruntime__ch_ppocr_mobile_v2.0_cls_infer.onnx"


@dataclass(frozen=True, eq=False)
class Trained:
    """A network, what it was trained on, and more of the same.

    Attributes:
        name: of it.
        model: with its BatchNormalizations in inference mode.
        train: what its statistics come from.
        test: as much again that it has not seen.
        labels: of the test data; None where there are none.
        raw: from what it takes back to pixels of 0 to 1; None for what is no image of three channels.
    """

    name: str
    model: onnx.ModelProto
    train: Array
    test: Array
    labels: Array | None = None
    raw: tuple[Array, Array] | None = None


def photograph(name: str) -> Image.Image:
    """A photograph of scikit-image's or scikit-learn's."""
    import skimage  # noqa: PLC0415 -- not needed for what comes after
    import sklearn.datasets  # noqa: PLC0415

    folders = Path(skimage.__file__).parent / "data", Path(sklearn.datasets.__file__).parent / "images"
    return Image.open(next(folder / name for folder in folders if (folder / name).exists())).convert("RGB")


def crops(count: int, size: tuple[int, int], seed: int) -> Array:
    """Random crops of photographs, of a fifth of the shorter side to all of it, `[N, 3, H, W]` from 0 to 1."""
    rng, images = np.random.default_rng(seed), [photograph(name) for name in PHOTOGRAPHS]
    result = np.empty((count, 3, *size), np.float32)
    for index in range(count):
        image = images[rng.integers(len(images))]
        side = int(rng.uniform(0.2, 1) * min(image.size))
        left, top = (int(rng.integers(0, length - side + 1)) for length in image.size)
        crop = image.crop((left, top, left + side, top + side)).resize(size[::-1], Image.Resampling.BILINEAR)
        result[index] = np.asarray(crop).transpose(2, 0, 1) / 255
    return result


def turned(count: int, seed: int) -> tuple[Array, Array]:
    """Crops that were turned by 0 to 3 quarters of a circle, and by how many."""
    images, labels = crops(count, (32, 32), seed), np.arange(count) % 4
    return np.stack([np.rot90(image, int(turn), (1, 2)) for image, turn in zip(images, labels, strict=True)]), labels


def tones(count: int, seed: int) -> tuple[Array, Array]:
    """A sine, a triangle, a saw or a square of some pitch and loudness, with noise, `[N, 1, 256]`."""
    rng, labels = np.random.default_rng(seed), np.arange(count) % FORMS
    pitch, start, loud = rng.uniform(3, 12, (count, 1)), rng.uniform(0, 1, (count, 1)), rng.uniform(0.3, 1, (count, 1))
    turns = pitch * np.arange(256) / 256 + start
    saw = 2 * (turns % 1) - 1
    forms = np.sin(2 * np.pi * turns), 2 * np.abs(saw) - 1, saw, np.sign(saw)
    waves = np.choose(labels[:, None], forms) * loud + rng.normal(0, 0.2, turns.shape)
    return waves[:, None].astype(np.float32), labels


def cancers() -> tuple[Array, Array]:
    from sklearn.datasets import load_breast_cancer  # noqa: PLC0415

    table, labels = load_breast_cancer(return_X_y=True)
    order = np.random.default_rng(0).permutation(len(table))
    table = (table - table.mean(0)) / table.std(0)
    return table[order].astype(np.float32), labels[order]


def networks(folder: Path | None = None) -> Iterator[Trained]:
    """All of them; PaddleOCR's from a folder with the file."""
    digits = [np.load(MODELS / f"digits_{part}.npz") for part in ("train", "test", "labels")]
    for name in ("digits_resnet", "digits_mlp", "digits_preact"):
        train, test, labels = digits[0]["image"], digits[1]["image"], digits[2]["test"]
        yield Trained(name, onnx.load(MODELS / f"{name}.onnx"), train, test, labels)
    image, image_labels = turned(3000, 0)
    other, other_labels = turned(3000, 1)
    for build, raw in ((_resnet, (STD, MEAN)), (_mobilenet, (np.full_like(STD, 0.5), np.full_like(MEAN, 0.5)))):
        train, test = ((pixels - raw[1]) / raw[0] for pixels in (image, other))
        yield Trained(f"photo{build.__name__}", _trained(build, train, image_labels), train, test, other_labels, raw)
    (wave, wave_labels), (more, more_labels) = tones(3000, 0), tones(3000, 1)
    yield Trained("tones_conv1d", _trained(_conv1d, wave, wave_labels), wave, more, more_labels)
    table, labels = cancers()
    model = _trained(_mlp, table[:400], labels[:400])
    yield Trained("cancer_mlp", model, table[:400], table[400:], labels[400:])
    if folder is not None:
        train, test = (2 * crops(500, (48, 192), seed) - 1 for seed in (0, 1))
        yield Trained("paddle_cls", bnfold.calibrate(folder / PADDLE, train, check=False).proto(), train, test)


# Four kinds of networks, from the parts of those in models/.


def _parts() -> SimpleNamespace:
    return SimpleNamespace(**runpy.run_path(str(MODELS / "train.py")))


def _resnet() -> nn.Module:
    """Residual blocks, strided, with shortcuts."""
    from torch import nn  # noqa: PLC0415

    parts = _parts()

    def block(inputs: int, outputs: int) -> nn.Module:
        body = nn.Sequential(parts.conv_bn(inputs, outputs, stride=2), nn.ReLU(), parts.conv_bn(outputs, outputs))
        return parts.Residual(body, parts.conv_bn(inputs, outputs, size=1, stride=2))

    blocks = [block(16, 24), block(24, 32), block(32, 48)]
    return nn.Sequential(
        parts.conv_bn(3, 16), nn.ReLU(), *blocks, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(48, 4)
    )


def _mobilenet() -> nn.Module:
    """Depthwise convolutions and pointwise ones, each normalised."""
    from torch import nn  # noqa: PLC0415

    conv_bn, layers = _parts().conv_bn, []
    for inputs, outputs, stride in ((16, 32, 2), (32, 32, 1), (32, 48, 2), (48, 48, 1), (48, 64, 2)):
        layers += [conv_bn(inputs, inputs, stride=stride, groups=inputs), nn.ReLU6()]
        layers += [conv_bn(inputs, outputs, size=1), nn.ReLU6()]
    head = nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, 4)
    return nn.Sequential(conv_bn(3, 16), nn.ReLU6(), *layers, *head)


def _conv1d() -> nn.Module:
    """Convolutions in time, with the normalisation behind the nonlinearity."""
    from torch import nn  # noqa: PLC0415

    layers: list[nn.Module] = []
    for inputs, outputs in ((1, 16), (16, 24), (24, 32), (32, 32)):
        layers += [nn.Conv1d(inputs, outputs, 7, stride=2, padding=3), nn.ELU(), nn.BatchNorm1d(outputs)]
    return nn.Sequential(*layers, nn.AdaptiveMaxPool1d(1), nn.Flatten(), nn.Linear(32, FORMS))


def _mlp() -> nn.Module:
    """Dense layers over a table."""
    from torch import nn  # noqa: PLC0415

    layers: list[nn.Module] = []
    for inputs, outputs in ((30, 32), (32, 24), (24, 16)):
        layers += [nn.Linear(inputs, outputs), nn.BatchNorm1d(outputs), nn.ReLU(), nn.Dropout(0.1)]
    return nn.Sequential(*layers, nn.Linear(16, 2))


def _trained(build: Callable[[], nn.Module], data: Array, labels: Array) -> onnx.ModelProto:
    """The network after training, as an ONNX model in inference mode."""
    import torch  # noqa: PLC0415

    torch.manual_seed(0)
    network = build()
    x, y = torch.from_numpy(np.ascontiguousarray(data, np.float32)), torch.from_numpy(labels.astype(np.int64))
    optimizer = torch.optim.AdamW(network.parameters())
    steps = EPOCHS * -(-len(x) // BATCH)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 0.01, total_steps=steps)
    for _ in range(EPOCHS):
        for rows in torch.randperm(len(x)).split(BATCH):
            optimizer.zero_grad()
            torch.nn.functional.cross_entropy(network(x[rows]), y[rows]).backward()
            optimizer.step()
            schedule.step()
    file = io.BytesIO()
    with warnings.catch_warnings(action="ignore"):
        torch.onnx.export(
            network.eval(), (x[:2],), file, dynamo=False, training=torch.onnx.TrainingMode.EVAL,
            do_constant_folding=False, input_names=["x"], output_names=["logits"], opset_version=17,
            dynamic_axes={"x": {0: "N"}, "logits": {0: "N"}},
        )  # fmt: skip
    return onnx.load_from_string(file.getvalue())
