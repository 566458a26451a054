# /// script
# requires-python = ">=3.11"
# dependencies = [
#     "numpy==2.4.6",
#     "onnx==1.23.2",
#     "onnxruntime==1.32.0",
#     "onnxscript==0.7.2",
#     "scikit-learn==1.9.1",
#     "torch==2.13.0",
# ]
# ///
"""Train three small networks on scikit-learn's digits and export each in the forms that users have.

    python models/train.py [FOLDER]

writes the digits and, for each network, three ONNX files: BatchNormalization in inference mode, in training mode,
and spelt out in arithmetic. README.md beside this script says what each file is for.
"""

import copy
import sys
import warnings
from pathlib import Path

import numpy as np
import onnxruntime
import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.onnx import TrainingMode

EPOCHS, BATCH, PEAK_LEARNING_RATE = 60, 50, 0.01
FORMS = "", ".train", ".decomposed"


# The networks.


def conv_bn(inputs: int, outputs: int, size: int = 3, stride: int = 1, groups: int = 1) -> nn.Sequential:
    """Normalise what a convolution computes, as in ResNet and MobileNet."""
    conv = nn.Conv2d(inputs, outputs, size, stride, padding=size // 2, groups=groups, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(outputs))


def bn_relu_conv(inputs: int, outputs: int, size: int) -> nn.Sequential:
    """Normalise what a convolution is given, as in pre-activation ResNet and DenseNet."""
    conv = nn.Conv2d(inputs, outputs, size, padding=size // 2, bias=False)
    return nn.Sequential(nn.BatchNorm2d(inputs), nn.ReLU(), conv)


class Residual(nn.Module):
    """relu(body(x) + shortcut(x))"""

    def __init__(self, body: nn.Module, shortcut: nn.Module) -> None:
        super().__init__()
        self.body, self.shortcut = body, shortcut

    def forward(self, x: Tensor) -> Tensor:
        return (self.body(x) + self.shortcut(x)).relu()


class Dense(nn.Sequential):
    """A DenseNet layer: what it computes is concatenated to what it was given."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([x, super().forward(x)], dim=1)


class TransposedBN(nn.Module):
    """Features last: swap axes, normalise, swap back (PatchTST)."""

    def __init__(self, features: int) -> None:
        super().__init__()
        self.bn = nn.BatchNorm1d(features)

    def forward(self, x: Tensor) -> Tensor:
        return self.bn(x.transpose(1, 2)).transpose(1, 2)


class FlattenedBN(nn.Module):
    """Features last: all tokens of the batch as rows of one matrix (LeViT)."""

    def __init__(self, features: int) -> None:
        super().__init__()
        self.bn = nn.BatchNorm1d(features)

    def forward(self, x: Tensor) -> Tensor:
        return self.bn(x.flatten(0, 1)).reshape_as(x)


def digits_resnet() -> nn.Module:
    """BN after every operator with weights: convolutions of all kinds, a shortcut, a dense layer."""
    separable = nn.Sequential(conv_bn(16, 16, groups=16), nn.ReLU(), conv_bn(16, 16, size=1))
    strided = nn.Sequential(conv_bn(16, 24, stride=2), nn.ReLU(), conv_bn(24, 24))
    return nn.Sequential(
        nn.Sequential(conv_bn(1, 16), nn.ReLU()),
        Residual(separable, nn.Identity()),
        Residual(strided, shortcut=conv_bn(16, 24, size=1, stride=2)),
        nn.Sequential(conv_bn(24, 48, size=1), nn.ReLU()),
        nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten()),
        nn.Sequential(nn.Linear(48, 32), nn.BatchNorm1d(32), nn.ReLU()),
        nn.Linear(32, 10),
    )


def digits_mlp() -> nn.Module:
    """The rows of the image as eight tokens (MatMul on rank 3), then dense layers (Gemm) and a Dropout."""
    return nn.Sequential(
        nn.Flatten(1, 2),
        nn.Sequential(nn.Linear(8, 32), TransposedBN(32), nn.ReLU()),
        nn.Sequential(nn.Linear(32, 32), FlattenedBN(32), nn.ReLU()),
        nn.Flatten(),
        nn.Sequential(nn.Linear(256, 48), nn.BatchNorm1d(48), nn.ReLU(), nn.Dropout(0.2)),
        nn.Linear(48, 10),
    )


def digits_preact() -> nn.Module:
    """BN before the convolution and after a concatenation (DenseNet), on the image itself, and as a neck (re-id)."""

    def dense(inputs: int) -> Dense:
        return Dense(bn_relu_conv(inputs, 24, size=1), bn_relu_conv(24, 8, size=3))

    return nn.Sequential(
        nn.Sequential(nn.BatchNorm2d(1), nn.Conv2d(1, 16, 3, padding=1, bias=False)),
        nn.Sequential(dense(16), dense(24)),
        nn.Sequential(bn_relu_conv(32, 24, size=1), nn.AvgPool2d(2)),
        nn.Sequential(dense(24), dense(32)),
        nn.Sequential(nn.BatchNorm2d(40), nn.ReLU()),
        nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.BatchNorm1d(40)),
        nn.Linear(40, 10),
    )


# BatchNormalization spelt out in arithmetic, as older converters wrote it.


class _Constants(nn.Module):
    def __init__(self, **constants: Tensor) -> None:
        super().__init__()
        for name, value in constants.items():
            self.register_buffer(name, value.detach().clone())

    def along_channels(self, name: str, x: Tensor) -> Tensor:
        return getattr(self, name).reshape(1, -1, *[1] * (x.dim() - 2))


class SubDivMulAdd(_Constants):
    """(x - mean) / std * gamma + beta"""

    def __init__(self, bn: nn.BatchNorm1d | nn.BatchNorm2d) -> None:
        std = (bn.running_var + bn.eps).sqrt()
        super().__init__(mean=bn.running_mean, std=std, gamma=bn.weight, beta=bn.bias)

    def forward(self, x: Tensor) -> Tensor:
        mean, std, gamma, beta = (self.along_channels(name, x) for name in ("mean", "std", "gamma", "beta"))
        return (x - mean) / std * gamma + beta


class MulAdd(_Constants):
    """x * scale + shift"""

    def __init__(self, bn: nn.BatchNorm1d | nn.BatchNorm2d) -> None:
        scale = bn.weight / (bn.running_var + bn.eps).sqrt()
        super().__init__(scale=scale, shift=bn.bias - bn.running_mean * scale)

    def forward(self, x: Tensor) -> Tensor:
        return x * self.along_channels("scale", x) + self.along_channels("shift", x)


def spelt_out(network: nn.Module, arithmetic: type[_Constants]) -> nn.Module:
    """A copy of the network with every BN replaced."""
    network = copy.deepcopy(network)
    for parent in list(network.modules()):
        for name, child in parent.named_children():
            if isinstance(child, nn.BatchNorm1d | nn.BatchNorm2d):
                setattr(parent, name, arithmetic(child))
    return network


# Data, training, export.


def digits() -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Images and labels, 1000 to train and 797 to test, the two interleaved evenly over the data set."""
    data = load_digits()
    image = (data.images[:, np.newaxis] / 16).astype(np.float32)
    is_train = np.arange(1797) * 1000 % 1797 < 1000  # 1000 and 1797 share no factor, so exactly 1000 are true
    images = {"train": image[is_train], "test": image[~is_train]}
    labels = {"train": data.target[is_train], "test": data.target[~is_train]}
    return images, labels


def train(network: nn.Module, image: Tensor, label: Tensor) -> None:
    """Train in place; leaves the network in evaluation mode."""
    optimizer = torch.optim.AdamW(network.parameters(), weight_decay=0.01)
    steps = EPOCHS * len(image) // BATCH
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, PEAK_LEARNING_RATE, total_steps=steps)
    network.train()
    for _ in range(EPOCHS):
        for rows in torch.randperm(len(image)).split(BATCH):
            optimizer.zero_grad()
            cross_entropy(network(image[rows]), label[rows], label_smoothing=0.1).backward()
            optimizer.step()
            schedule.step()
    network.eval()


def export(network: nn.Module, path: Path, mode: TrainingMode, **options: bool | int) -> None:
    """The TorchScript exporter: the newer one folds every BN itself, also when asked for training mode.

    In training mode it traces in training mode: the running statistics in the file have moved towards the example.
    """
    network = copy.deepcopy(network)
    example = torch.randn(2, 1, 8, 8)
    with warnings.catch_warnings(action="ignore"):  # it is deprecated, and says so
        torch.onnx.export(
            network,
            (example,),
            path,
            dynamo=False,
            training=mode,
            input_names=["image"],
            output_names=["logits"],
            dynamic_axes={"image": {0: "batch"}, "logits": {0: "batch"}},
            **options,
        )


def correct_answers(path: Path, image: np.ndarray, label: np.ndarray) -> int:
    """How many of the images ONNX Runtime gets right."""
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    (logits,) = session.run(["logits"], {"image": image})
    return int(np.sum(logits.argmax(axis=1) == label))


def main(folder: Path) -> None:
    """Write the digits and every form of every network into the folder."""
    torch.use_deterministic_algorithms(True)
    torch.set_num_threads(1)
    images, labels = digits()
    np.savez_compressed(folder / "digits_train.npz", image=images["train"])
    np.savez_compressed(folder / "digits_test.npz", image=images["test"])
    np.savez_compressed(folder / "digits_labels.npz", **labels)

    for build, arithmetic in (digits_resnet, MulAdd), (digits_mlp, SubDivMulAdd), (digits_preact, SubDivMulAdd):
        torch.manual_seed(0)
        network = build()
        train(network, torch.from_numpy(images["train"]), torch.from_numpy(labels["train"]))

        plain, training, decomposed = (folder / f"{build.__name__}{form}.onnx" for form in FORMS)
        export(network, plain, TrainingMode.EVAL, do_constant_folding=False, opset_version=17)
        export(network, training, TrainingMode.TRAINING, do_constant_folding=False, opset_version=17)
        export(spelt_out(network, arithmetic), decomposed, TrainingMode.EVAL, opset_version=11)
        for path in plain, decomposed:
            correct = correct_answers(path, images["test"], labels["test"])
            print(f"{path.name}: {correct} of {len(labels['test'])} ({correct / len(labels['test']):.4f})")


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parent)
