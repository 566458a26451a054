"""Blocks that are trained as several linear operators, as bnfold leaves their ONNX file, beside the plain net.

    pip install torch onnx onnxscript bnfold
    python benchmarks/branches.py > benchmarks/results/branches.md

Each net is trained for a few steps on noise, so that no branch is what it began as, and exported. The plain net has one
Conv or Linear in the place of every block. The blocks are written from their papers: Diverse Branch Block
(arXiv:2103.13425), asymmetric convolutions (arXiv:1908.03930), low-rank adaptation (arXiv:2106.09685).
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path

import onnx
import torch
from torch import Tensor, nn
from torch.nn import functional

import bnfold

Block = Callable[[int, int, int], nn.Module]


class Bordered(nn.Module):  # type: ignore[misc]  # torch is not there when types are checked
    """A BatchNormalization, and around its result what it makes of zero."""

    def __init__(self, channels: int, width: int) -> None:
        super().__init__()
        self.bn = nn.BatchNorm2d(channels)
        self.width = width

    def forward(self, x: Tensor) -> Tensor:
        bn, width = self.bn, self.width
        scale = bn.weight.detach() / torch.sqrt(bn.running_var + bn.eps)
        border = (bn.bias.detach() - bn.running_mean * scale).view(1, -1, 1, 1)
        y = functional.pad(bn(x), [width] * 4)
        for side in (slice(0, width), slice(-width, None)):
            y[:, :, side, :] = border
            y[:, :, :, side] = border
        return y


class Sum(nn.Module):  # type: ignore[misc]  # torch is not there when types are checked
    """Branches of one input that are added."""

    def __init__(self, *branches: nn.Module) -> None:
        super().__init__()
        self.branches = nn.ModuleList(branches)

    def forward(self, x: Tensor) -> Tensor:
        first, *others = self.branches
        total: Tensor = first(x)
        for branch in others:
            total = total + branch(x)
        return total


def conv(
    i: int, o: int, size: int | tuple[int, int], stride: int = 1, groups: int = 1, *, pads: bool = True
) -> nn.Conv2d:
    sizes = (size, size) if isinstance(size, int) else size
    padding = tuple(k // 2 for k in sizes) if pads else 0
    return nn.Conv2d(i, o, sizes, stride, padding, groups=groups, bias=False)


def diverse(i: int, o: int, stride: int, groups: int = 1) -> nn.Module:
    """A Diverse Branch Block."""
    inner = 2 * i if groups > 1 else i
    window = conv(inner, o, 3, stride, groups, pads=False)
    one_before = nn.Sequential(conv(i, inner, 1, 1, groups), Bordered(inner, 1), window, nn.BatchNorm2d(o))
    branches = [nn.Sequential(conv(i, o, 3, stride, groups), nn.BatchNorm2d(o)), one_before]
    if groups > 1:
        branches.append(nn.Sequential(nn.AvgPool2d(3, stride, 1), nn.BatchNorm2d(o)))
    else:
        mean = nn.AvgPool2d(3, stride)
        branches.append(nn.Sequential(conv(i, o, 1), Bordered(o, 1), mean, nn.BatchNorm2d(o)))
        branches.append(nn.Sequential(conv(i, o, 1, stride), nn.BatchNorm2d(o)))
    return Sum(*branches)


def asymmetric(i: int, o: int, stride: int) -> nn.Module:
    """The block of an ACNet."""
    sizes: tuple[tuple[int, int], ...] = ((3, 3), (1, 3), (3, 1))
    return Sum(*(nn.Sequential(conv(i, o, size, stride), nn.BatchNorm2d(o)) for size in sizes))


def plain(i: int, o: int, stride: int, groups: int = 1) -> nn.Module:
    return nn.Conv2d(i, o, 3, stride, 1, groups=groups)


def images(block: Block) -> nn.Module:
    body = [block(3, 8, 2), nn.ReLU(), block(8, 16, 1), nn.ReLU(), block(16, 16, 2), nn.ReLU()]
    return nn.Sequential(*body, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 4))


def depthwise(block: Callable[[int, int, int, int], nn.Module]) -> nn.Module:
    body = [nn.Conv2d(3, 8, 1), nn.ReLU(), block(8, 8, 1, 8), nn.ReLU(), block(8, 8, 2, 8), nn.ReLU()]
    return nn.Sequential(*body, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 4))


class Halved(nn.Module):  # type: ignore[misc]  # torch is not there when types are checked
    """The factor of a low-rank adaptation."""

    def forward(self, x: Tensor) -> Tensor:
        return 0.5 * x


def adapted(i: int, o: int) -> nn.Module:
    """A Linear and the two of low rank that were trained beside it."""
    adapter = nn.Sequential(nn.Dropout(0.1), nn.Linear(i, 2, bias=False), nn.Linear(2, o, bias=False), Halved())
    return Sum(nn.Linear(i, o), adapter)


def sequences(linear: Callable[[int, int], nn.Module]) -> nn.Module:
    return nn.Sequential(linear(16, 32), nn.ReLU(), linear(32, 32), nn.ReLU(), linear(32, 4))


NETS: dict[str, tuple[nn.Module, nn.Module, tuple[int, ...]]] = {
    "Diverse Branch Block": (images(diverse), images(plain), (3, 32, 32)),
    "the same, depthwise": (depthwise(diverse), depthwise(plain), (3, 32, 32)),
    "ACNet": (images(asymmetric), images(plain), (3, 32, 32)),
    "LoRA": (sequences(adapted), sequences(nn.Linear), (5, 16)),
}


def trained(net: nn.Module, shape: tuple[int, ...]) -> nn.Module:
    optimizer = torch.optim.SGD(net.parameters(), 0.02)
    for _ in range(20):
        x = torch.randn(16, *shape)
        loss = functional.mse_loss(net(x).flatten(1)[:, :4], x.flatten(1)[:, :4])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return net.eval()


def export(net: nn.Module, shape: tuple[int, ...], path: Path) -> Path:
    torch.onnx.export(net.eval(), (torch.zeros(1, *shape),), path, dynamo=True, verbose=False)
    return path


def row(name: str, folder: Path) -> str:
    net, counterpart, shape = NETS[name]
    before = export(trained(net, shape), shape, folder / "trained.onnx")
    goal = export(counterpart, shape, folder / "plain.onnx")
    result = bnfold.optimize(before, folder / "folded.onnx", overwrite=True)
    assert result.verification is not None
    counts = (len(onnx.load(path).graph.node) for path in (before, goal, folder / "folded.onnx"))
    return f"| {name} | {' | '.join(map(str, counts))} | {result.verification.verdict.value} |"


def main() -> None:
    torch.manual_seed(0)
    print(f"bnfold {bnfold.__version__}, torch {torch.__version__}\n")
    print("| block | as trained | plain | bnfold | verified |")
    print("| --- | ---: | ---: | ---: | --- |")
    with tempfile.TemporaryDirectory() as folder:
        for name in NETS:
            print(row(name, Path(folder)), flush=True)


if __name__ == "__main__":
    main()
