"""Kernels that move a window over their input: convolutions and pools."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence

import numpy as np

from bnfold.graph import Op
from bnfold.verification.float64.kernel import Array, NotComputed, channels, optional, present

_BLOCK = 1 << 18  # numbers that are written out at a time, which a processor's cache holds

_WIDE = 64  # positions; with fewer, samples are better multiplied together


def conv(op: Op, inputs: Sequence[Array | None]) -> list[Array]:
    """Y[n, o, p] = b[o] + sum over i, k of W[o, i, k] * X[n, group(o) + i, stride * p + dilation * k - pad]"""
    x, weight, bias = present(inputs[0]), present(inputs[1]), optional(inputs, 2)
    groups, rank = op.attribute("group", 1), x.ndim - 2
    kernel = weight.shape[2:]
    strides, dilations = _ints(op, "strides", rank), _ints(op, "dilations", rank)
    pads = _pads(op, x.shape[2:], kernel, strides, dilations)
    windows = _windows(np.pad(x, [(0, 0), (0, 0), *pads]), kernel, strides, dilations)
    count, out = x.shape[0], windows.shape[2 : 2 + rank]
    y = np.empty((weight.shape[0], count, *out))
    flat = weight.reshape(groups, weight.shape[0] // groups, -1)
    if math.prod(kernel) == 1 and math.prod(out) >= _WIDE:  # then there is nothing to write out
        positions = windows.reshape(count, *flat.shape[::2], math.prod(out))
        y = np.matmul(flat, positions).reshape(count, weight.shape[0], *out)
        return [y if bias is None else y + channels(bias, y.ndim)]
    rows = max(1, _BLOCK * out[0] // max(1, windows.size))
    for start in range(0, out[0], rows):
        block = slice(start, start + rows)
        y[:, :, block] = _convolved(windows[:, :, block], flat, rank).reshape(y[:, :, block].shape)
    y = np.moveaxis(y, 0, 1)
    return [y if bias is None else y + channels(bias, y.ndim)]


def _convolved(windows: Array, weight: Array, rank: int) -> Array:
    """Of shape (groups, outputs of a group, samples and positions)"""
    groups, _, terms = weight.shape
    columns = windows.reshape(windows.shape[0], groups, -1, *windows.shape[2:])
    order = [1, 2, *range(3 + rank, 3 + 2 * rank), 0, *range(3, 3 + rank)]
    return np.asarray(np.matmul(weight, columns.transpose(order).reshape(groups, terms, -1)))


def fused_conv(op: Op, inputs: Sequence[Array | None]) -> list[Array]:
    """ONNX Runtime's Conv with an activation: act(conv(x) + z)."""
    y = conv(op, inputs[:3])[0]
    addend = optional(inputs, 3)
    y = y if addend is None else y + addend
    name, parameters = op.attribute("activation", b"").decode(), op.attribute("activation_params", [])
    activations: dict[str, Callable[[Array], Array]] = {
        "": lambda v: v,
        "Relu": lambda v: np.maximum(v, 0),
        "Tanh": np.tanh,
        "Sigmoid": lambda v: 1 / (1 + np.exp(-v)),
        "LeakyRelu": lambda v: np.where(v < 0, parameters[0] * v, v),
        "Clip": lambda v: np.clip(v, parameters[0], parameters[1]),
        "HardSigmoid": lambda v: np.clip(parameters[0] * v + parameters[1], 0, 1),
    }
    if name not in activations:
        raise NotComputed(f"activation {name}")
    return [activations[name](y)]


def conv_transpose(op: Op, inputs: Sequence[Array | None]) -> list[Array]:
    """Y[n, o, stride * p + dilation * k - pad] += W[i, o, k] * X[n, i, p], group by group"""
    x, weight, bias = present(inputs[0]), present(inputs[1]), optional(inputs, 2)
    groups, rank = op.attribute("group", 1), x.ndim - 2
    kernel, size = weight.shape[2:], x.shape[2:]
    strides, dilations = _ints(op, "strides", rank), _ints(op, "dilations", rank)
    extra = op.attribute("output_padding") or [0] * rank
    count, outputs = x.shape[0], weight.shape[1] * groups
    flat = np.moveaxis(x, 1, 0).reshape(groups, x.shape[1] // groups, -1)
    taps = np.matmul(weight.reshape(groups, x.shape[1] // groups, -1).transpose(0, 2, 1), flat)
    taps = taps.reshape(outputs, *kernel, count, *size)
    full = [
        stride * (n - 1) + dilation * (k - 1) + 1 + more
        for n, k, stride, dilation, more in zip(size, kernel, strides, dilations, extra, strict=True)
    ]
    y = np.zeros((outputs, count, *full))
    for offset in itertools.product(*map(range, kernel)):
        target = tuple(
            slice(k * dilation, k * dilation + stride * (n - 1) + 1, stride)
            for k, dilation, stride, n in zip(offset, dilations, strides, size, strict=True)
        )
        y[(slice(None), slice(None), *target)] += taps[(slice(None), *offset)]
    crop = _cropped(op, size, full, strides, extra)
    y = np.moveaxis(y, 0, 1)[(slice(None), slice(None), *crop)]
    return [y if bias is None else y + channels(bias, y.ndim)]


def _cropped(
    op: Op, size: Sequence[int], full: Sequence[int], strides: Sequence[int], extra: Sequence[int]
) -> list[slice]:
    """The part of the full result that the padding leaves; the rest of the output size formula is the operator's."""
    rank = len(size)
    wanted, auto = op.attribute("output_shape"), op.attribute("auto_pad", b"NOTSET").decode()
    if wanted is None and not auto.startswith("SAME"):
        pads = op.attribute("pads") or [0] * 2 * rank
        return [slice(pads[axis], full[axis] - pads[axis + rank]) for axis in range(rank)]
    crops = []
    for axis in range(rank):
        length = wanted[-rank:][axis] if wanted is not None else size[axis] * strides[axis]
        total = full[axis] - length
        if total < 0:
            raise NotComputed("output_shape larger than what the operator makes")
        begin = total // 2 if auto == "SAME_UPPER" else total - total // 2
        crops.append(slice(begin, begin + length))
    del extra  # part of `full`
    return crops


def max_pool(op: Op, inputs: Sequence[Array | None]) -> list[Array]:
    if len([output for output in op.outputs if output is not None]) > 1:
        raise NotComputed("indices of MaxPool")
    windows, _ = _pooling_windows(op, present(inputs[0]), -np.inf)
    return [windows.max(axis=tuple(range(windows.ndim // 2 + 1, windows.ndim)))]


def average_pool(op: Op, inputs: Sequence[Array | None]) -> list[Array]:
    x = present(inputs[0])
    windows, counted = _pooling_windows(op, x, 0.0)
    axes = tuple(range(windows.ndim // 2 + 1, windows.ndim))
    return [windows.sum(axis=axes) / counted.sum(axis=axes)]


def _pooling_windows(op: Op, x: Array, fill: float) -> tuple[Array, Array]:
    """The windows of a pool, and the same windows of ones where an entry counts for the average."""
    rank = x.ndim - 2
    kernel = op.attribute("kernel_shape")
    strides, dilations = _ints(op, "strides", rank), _ints(op, "dilations", rank)
    pads = _pads(op, x.shape[2:], kernel, strides, dilations)
    over = [0] * rank
    if op.attribute("ceil_mode", 0):
        over = [
            _overhang(size, k, stride, dilation, pad)
            for size, k, stride, dilation, pad in zip(x.shape[2:], kernel, strides, dilations, pads, strict=True)
        ]
    widths = [(begin, end + more) for (begin, end), more in zip(pads, over, strict=True)]
    counts_pads = bool(op.attribute("count_include_pad", 0))
    ones = np.ones((1, 1, *x.shape[2:]))
    ones = np.pad(ones, [(0, 0), (0, 0), *pads], constant_values=float(counts_pads))
    ones = np.pad(ones, [(0, 0), (0, 0), *((0, more) for more in over)])
    padded = np.pad(x, [(0, 0), (0, 0), *widths], constant_values=fill)
    return _windows(padded, kernel, strides, dilations), _windows(ones, kernel, strides, dilations)


def _overhang(size: int, kernel: int, stride: int, dilation: int, pad: tuple[int, int]) -> int:
    """How far the last window of ceil_mode reaches beyond the padding."""
    reach = size + sum(pad) - dilation * (kernel - 1) - 1
    steps = -(-reach // stride)
    if steps * stride >= size + pad[0]:  # a window that would start in the padding does not count
        steps -= 1
    return max(0, steps * stride - reach)


def _windows(x: Array, kernel: Sequence[int], strides: Sequence[int], dilations: Sequence[int]) -> Array:
    """A view of shape (N, C, *positions, *kernel)."""
    rank = len(kernel)
    reach = tuple(dilation * (k - 1) + 1 for k, dilation in zip(kernel, dilations, strict=True))
    if any(have < need for have, need in zip(x.shape[2:], reach, strict=True)):
        raise NotComputed("the kernel is larger than its input")
    view = np.lib.stride_tricks.sliding_window_view(x, reach, axis=tuple(range(2, 2 + rank)))
    steps = [slice(None, None, stride) for stride in strides]
    return view[(slice(None), slice(None), *steps, *(slice(None, None, dilation) for dilation in dilations))]


def _pads(
    op: Op, size: Sequence[int], kernel: Sequence[int], strides: Sequence[int], dilations: Sequence[int]
) -> list[tuple[int, int]]:
    rank, auto = len(kernel), op.attribute("auto_pad", b"NOTSET").decode()
    if not auto.startswith("SAME"):
        pads = op.attribute("pads") if auto != "VALID" else None
        return [(pads[axis], pads[axis + rank]) for axis in range(rank)] if pads else [(0, 0)] * rank
    result = []
    for n, k, stride, dilation in zip(size, kernel, strides, dilations, strict=True):
        total = max(0, (-(-n // stride) - 1) * stride + dilation * (k - 1) + 1 - n)
        small, large = total // 2, total - total // 2
        result.append((small, large) if auto == "SAME_UPPER" else (large, small))
    return result


def _ints(op: Op, name: str, rank: int) -> list[int]:
    return list(op.attribute(name) or [1] * rank)


def sees_all(op: Op, inputs: Sequence[Array | None]) -> bool:
    """Whether every weight of a kernel meets an entry of the input somewhere, and not padding only.

    At 2x2 the rim of a padded 5x5 kernel does not.
    """
    if op.type not in ("Conv", "com.microsoft::FusedConv"):
        return True
    x, weight = present(inputs[0]), present(inputs[1])
    kernel, rank = weight.shape[2:], x.ndim - 2
    strides, dilations = _ints(op, "strides", rank), _ints(op, "dilations", rank)
    pads = _pads(op, x.shape[2:], kernel, strides, dilations)
    for size, k, stride, dilation, (begin, end) in zip(x.shape[2:], kernel, strides, dilations, pads, strict=True):
        starts = np.arange(0, size + begin + end - dilation * (k - 1), stride) - begin
        places = starts[:, None] + dilation * np.arange(k)
        if not ((places >= 0) & (places < size)).any(axis=0).all():
            return False
    return True
