"""Operators with weights in a row, alone or as a branch of a sum: of one Conv or matrix there would be enough."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from random_graphs.absorbers import conv, gemm, matmul, same_size_conv, weight
from random_graphs.affines import batchnorm, numbers
from random_graphs.builder import Builder, Tensor, Unfit
from random_graphs.constants import constant


def row(b: Builder, x: Tensor) -> Tensor:
    """Two or three Convs, most of them of one tap, or as many matrices; now and then something stands between."""
    for _ in range(b.integer(2, 3)):
        if x.rank >= 3 and b.chance(0.7):
            spatial = x.rank - 2
            x = conv(b, x, kernel=[1] * spatial if b.chance(0.6) else None, keeps=b.chance(0.3))
        else:
            x = b.first_fit([gemm, matmul], x)
        if b.chance(0.1):
            x = b.node("Identity", x)
    return x


def diverse_branches(b: Builder, x: Tensor) -> Tensor:
    """A Diverse Branch Block: k×k, 1×1, 1×1 before k×k, and a mean over windows, each with its BatchNormalization."""
    if x.rank not in (3, 4, 5) or x.axis != 1:
        raise Unfit("no image")
    kernel, spatial = 3, x.rank - 2
    makers: list[Callable[[], Tensor]] = [
        lambda: same_size_conv(b, x, kernel),
        lambda: same_size_conv(b, x, 1),
        lambda: same_size_conv(b, _point(b, x), kernel),
        lambda: same_size_conv(b, same_size_conv(b, x, kernel), 1),
        lambda: _mean(b, x, [kernel] * spatial),
        lambda: _mean(b, _point(b, x), [kernel] * spatial),
    ]
    chosen = b.rng.permutation(len(makers))[: b.integer(2, 4)]
    branches: list[Tensor] = [makers[index]() for index in chosen]
    branches = [batchnorm(b, y, friendly=False) if b.chance(0.5) else y for y in branches]
    total = branches[0]
    for branch in branches[1:]:
        total = b.node("Add" if b.chance(0.8) else "Sub", total, branch)
    return total


def _point(b: Builder, x: Tensor) -> Tensor:
    y = same_size_conv(b, x, 1)
    return batchnorm(b, y, friendly=False) if b.chance(0.3) else y


def _mean(b: Builder, x: Tensor, kernel: list[int]) -> Tensor:
    counts = 1 if b.chance(0.8) else None
    pads = [size // 2 for size in kernel] * 2
    return b.node("AveragePool", x, kernel_shape=kernel, pads=pads, count_include_pad=counts)


def low_rank(b: Builder, x: Tensor) -> Tensor:
    """A Linear and its unmerged LoRA: x·W + c + s·((x·A)·B)."""
    if x.rank < 2:
        raise Unfit("a vector")
    inputs, outputs, rank = x.shape[-1], b.integer(1, 6), b.integer(1, 2)
    base = b.node("MatMul", x, constant(b, weight(b, (inputs, outputs), inputs), "weight"), along=-1)
    if b.chance(0.5):
        base = b.node("Add", base, constant(b, numbers(b, (outputs,)), "bias"), along=-1)
    inner = b.node("Dropout", x) if b.chance(0.2) and b.opset >= 12 else x
    inner = b.node("MatMul", inner, constant(b, weight(b, (inputs, rank), inputs), "weight"), along=-1)
    added = b.node("MatMul", inner, constant(b, weight(b, (rank, outputs), rank), "weight"), along=-1)
    if b.chance(0.7):
        added = b.node("Mul", added, constant(b, np.asarray(b.pick([0.5, 2.0, -1.0]), b.dtype), "s"))
    return b.node("Add", *((base, added) if b.chance(0.5) else (added, base)))


ROWS = [row] * 3 + [diverse_branches] * 2 + [low_rank] * 2
