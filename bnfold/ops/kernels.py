"""What a Conv computes, whatever operators compute it: a Conv, a mean over windows, or two of them in a row."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from math import gcd, prod
from typing import Any

import numpy as np

from bnfold.affine import Affine, FloatArray
from bnfold.graph import Op, is_float
from bnfold.ops.linear import BIAS, CHANNELS, WEIGHT
from bnfold.ops.rule import along, operands_type, refuse_rank_other_than, static
from bnfold.ops.weights import bound
from bnfold.reasons import Reason, Refused

_MOST_WORK = 1 << 38
_MOST_NUMBERS = 1 << 26
Pads = tuple[tuple[int, int], ...]


@dataclass(frozen=True)
class Window:
    """Where the taps of a kernel lie: for each spatial axis its stride, its dilation, and padding before and after."""

    strides: tuple[int, ...]
    dilations: tuple[int, ...]
    pads: Pads

    @property
    def is_padded(self) -> bool:
        return any(map(any, self.pads))

    @property
    def steps_by_one(self) -> bool:
        return all(stride == 1 for stride in self.strides)


@dataclass(frozen=True, eq=False)
class Kernel:
    """A map from I channels to O, as a Conv with these weights would compute it.

    Attributes:
        shape: Of the weights: [O, I/groups, *taps].
        groups: How many groups of channels there are.
        window: Where its taps lie.
        dtype: The type of its weights.
        bias: What is added to each output channel.
        weights: Reads or computes the weights, in float64.
        most: Finds a number that no weight is larger than, in magnitude.
    """

    shape: tuple[int, ...]
    groups: int
    window: Window
    dtype: np.dtype[Any]
    bias: FloatArray
    weights: Callable[[], FloatArray]
    most: Callable[[], float]

    @property
    def taps(self) -> tuple[int, ...]:
        return self.shape[2:]

    @property
    def inputs(self) -> int:
        return self.shape[1] * self.groups

    @property
    def size(self) -> int:
        """How many numbers it is made of."""
        return prod(self.shape) + (self.shape[0] if self.bias.any() else 0)

    @property
    def is_point(self) -> bool:
        """Whether each output reads one position."""
        return prod(self.taps) == 1


def kernel_of(op: Op) -> Kernel:
    """What a Conv or an AveragePool computes.

    Raises:
        Refused: it is not known, or not the same at every position.
    """
    return _KERNELS[op.type](op)


def unbiased(conv: Op) -> Kernel:
    """W*x of a Conv, whatever is added to it"""
    weight, shape = conv.constant(WEIGHT), static(conv, WEIGHT)
    if not is_float(weight.dtype):
        raise Refused(Reason.NOT_FLOAT, value=conv.data(WEIGHT).name)
    groups, window = conv.attribute("group", 1), window_of(conv, shape[2:])
    return Kernel(shape, groups, window, weight.dtype, np.zeros(shape[0]), weight.float64, partial(bound, weight))


def _of_conv(conv: Op) -> Kernel:
    """W*x + b"""
    bias = conv.optional_constant(BIAS)
    return unbiased(conv) if bias is None else replace(unbiased(conv), bias=bias.float64())


def _of_mean(pool: Op) -> Kernel:
    """The mean over a window of n positions  =  W*x with W[c, 0, …] = 1/n, where padding counts or there is none"""
    channels, taps = pool.shape(0)[CHANNELS], tuple(pool.attribute("kernel_shape", ()))
    if not isinstance(channels, int):
        raise Refused(Reason.SHAPE_UNKNOWN, value=pool.data().name)
    window = window_of(pool, taps)
    if pool.attribute("ceil_mode", 0):
        raise Refused(Reason.UNSUPPORTED, op_type=pool.type, detail="ceil_mode")
    if window.is_padded and not pool.attribute("count_include_pad", 0):
        raise Refused(Reason.UNSUPPORTED, op_type=pool.type, detail="padding that does not count")
    shape, share = (channels, 1, *taps), 1 / prod(taps)
    bias, weights = np.zeros(channels), partial(np.full, shape, share)
    return Kernel(shape, channels, window, operands_type(pool), bias, weights, lambda: share)


def of_affine(op: Op, affine: Affine, behind: Kernel) -> Kernel:
    """(s x + t)  =  W*x + t with W[c, 0, …] = s_c, of what a kernel makes for ``op``"""
    channels, rank = behind.shape[0], len(behind.taps)
    refuse_rank_other_than(op, affine, len(behind.shape))
    scale, shift = (values.astype(np.float64) for values in along(op, affine, CHANNELS, channels))
    window = Window((1,) * rank, (1,) * rank, ((0, 0),) * rank)
    shape = (channels, 1, *[1] * rank)
    weights = partial(scale.reshape, shape)
    return Kernel(shape, channels, window, behind.dtype, shift, weights, lambda: float(np.abs(scale).max()))


_KERNELS = {"Conv": _of_conv, "AveragePool": _of_mean}


def window_of(op: Op, taps: Sequence[int]) -> Window:
    """The window of a Conv or a pooling operator with so many taps.

    Raises:
        Refused: its padding depends on the size of the input.
    """
    ones = [1] * len(taps)
    strides, dilations = (tuple(op.attribute(name) or ones) for name in ("strides", "dilations"))
    return Window(strides, dilations, _pads(op, taps, strides, dilations))


def _pads(op: Op, taps: Sequence[int], strides: Sequence[int], dilations: Sequence[int]) -> Pads:
    auto_pad = op.attribute("auto_pad", b"NOTSET")
    if auto_pad == b"VALID":
        return ((0, 0),) * len(taps)
    if auto_pad in (b"NOTSET", b""):
        pads = op.attribute("pads") or [0] * (2 * len(taps))
        return tuple(zip(pads[: len(taps)], pads[len(taps) :], strict=True))
    if any(stride != 1 for stride in strides):
        raise Refused(Reason.UNSUPPORTED, op_type=op.type, detail="auto_pad with a stride depends on the input's size")
    totals = [dilation * (size - 1) for size, dilation in zip(taps, dilations, strict=True)]
    small = [(total // 2, total - total // 2) for total in totals]
    return tuple(small if auto_pad == b"SAME_UPPER" else [(after, before) for before, after in small])


def in_a_row(first: Kernel, second: Kernel) -> Kernel:
    """V*(W*x + b) + c  =  (V W)*x + (V b + c), where one of the two reads single positions

    Raises:
        Refused: there is no Conv that computes both.
    """
    shape, groups = shape_in_a_row(first, second)
    refuse_endless(prod(shape) * first.shape[0] // groups)
    window = _common_window(first, second)
    for kernel in (first, second):
        _refuse_vast(prod(kernel.taps) * kernel.shape[0] * kernel.inputs // groups)
    if not all(np.isfinite(kernel.weights()).all() for kernel in (first, second)):
        raise Refused(Reason.NOT_FINITE, value="a weight")

    def weights() -> FloatArray:
        inner, outer = (_by_tap(kernel, groups) for kernel in (first, second))
        return np.moveaxis(outer @ inner, 1, -1).reshape(shape)

    bias = second.bias
    if first.bias.any():
        of_channels = _by_tap(second, groups).sum(axis=1)
        bias = bias + (of_channels @ first.bias.reshape(groups, -1, 1)).reshape(-1)
    middle = first.shape[0] / groups
    return Kernel(shape, groups, window, first.dtype, bias, weights, lambda: first.most() * second.most() * middle)


def refuse_endless(work: int) -> None:
    """Refuses a product of weights that takes so many multiply-adds, if those take minutes."""
    if work > _MOST_WORK:
        raise Refused(Reason.UNSUPPORTED, op_type="MatMul", detail=f"a product of {work} multiply-adds")


def _refuse_vast(size: int) -> None:
    """Refuses weights so large once they are written out: a mean has none of its own, and groups leave most out."""
    if size > _MOST_NUMBERS:
        raise Refused(Reason.UNSUPPORTED, op_type="Conv", detail=f"{size} weights on the way")


def shape_in_a_row(first: Kernel, second: Kernel) -> tuple[tuple[int, ...], int]:
    """The shape of the weights that compute both, and their groups: the finest that hold those of both."""
    if first.shape[0] != second.inputs or len(first.shape) != len(second.shape) or first.dtype != second.dtype:
        raise Refused(Reason.UNSUPPORTED, op_type="Conv", detail="channels or types do not fit")
    groups = gcd(first.groups, second.groups)
    taps = second.taps if first.is_point else first.taps
    return (second.shape[0], first.inputs // groups, *taps), groups


def _common_window(first: Kernel, second: Kernel) -> Window:
    one, other = first.window, second.window
    if other.is_padded and first.bias.any():
        raise Refused(Reason.SHIFT_MEETS_PADDING)
    if first.is_point and one.steps_by_one:  # its own padding is the other's as well: W*0 = 0
        pads = tuple((a + c, b + d) for (a, b), (c, d) in zip(one.pads, other.pads, strict=True))
        return Window(other.strides, other.dilations, pads)
    if second.is_point and not other.is_padded:
        strides = tuple(a * b for a, b in zip(one.strides, other.strides, strict=True))
        return Window(strides, one.dilations, one.pads)
    raise Refused(Reason.UNSUPPORTED, op_type="Conv", detail="no single kernel computes both")


def _by_tap(kernel: Kernel, groups: int) -> FloatArray:
    """Its weights as matrices [groups, taps, O/groups, I/groups]; what lies outside its own, finer groups is zero."""
    rows, columns = kernel.shape[0] // kernel.groups, kernel.shape[1]
    parts, taps = kernel.groups // groups, prod(kernel.taps)
    weights = kernel.weights().reshape(groups, parts, rows, columns, taps)
    matrices = np.zeros((groups, taps, parts, rows, parts, columns))
    for part in range(parts):
        matrices[:, :, part, :, part] = np.moveaxis(weights[:, part], -1, 1)
    return matrices.reshape(groups, taps, parts * rows, parts * columns)
