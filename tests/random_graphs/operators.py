"""Operators in float64: those that ONNX's reference implementation lacks, breaks, or runs in float32."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import product
from typing import Any

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from onnx.reference.op_run import OpRun

from random_graphs.builder import Array, Index


class ConvTranspose(OpRun):
    """Every input element adds its multiple of the kernel; groups, dilations and each form of padding included."""

    def _run(self, x: Array, w: Array, bias: Array | None = None, **attributes: Any) -> tuple[Array]:
        spatial = x.ndim - 2
        strides = attributes.get("strides") or [1] * spatial
        dilations = attributes.get("dilations") or [1] * spatial
        extra = attributes.get("output_padding") or [0] * spatial
        pads = attributes.get("pads") or [0] * spatial * 2
        groups = attributes.get("group") or 1
        n, channels, *sizes = x.shape
        kernel = w.shape[2:]
        full = [
            (size - 1) * stride + (taps - 1) * dilation + 1 + more
            for size, stride, taps, dilation, more in zip(sizes, strides, kernel, dilations, extra, strict=True)
        ]
        y = np.zeros((n, groups, w.shape[1], *full), x.dtype)
        parts = x.reshape(n, groups, channels // groups, *sizes)
        weights = w.reshape(groups, channels // groups, *w.shape[1:])
        for tap in product(*map(range, kernel)):
            of_tap: Index = (..., *tap)
            place = tuple(
                slice(at * dilation, at * dilation + (size - 1) * stride + 1, stride)
                for at, dilation, size, stride in zip(tap, dilations, sizes, strides, strict=True)
            )
            y[(slice(None),) * 3 + place] += np.einsum("ngi...,gio->ngo...", parts, weights[of_tap])
        y = y.reshape(n, -1, *full)
        y = y[(slice(None),) * 2 + tuple(slice(pads[k], full[k] - pads[k + spatial]) for k in range(spatial))]
        return (y if bias is None else y + bias.reshape(-1, *[1] * spatial),)


ConvTranspose.op_domain = ""


class Conv(OpRun):
    """As a sum over windows; the reference implementation is slow, and ignores some of auto_pad."""

    def _run(self, x: Array, w: Array, bias: Array | None = None, **attributes: Any) -> tuple[Array]:
        spatial = x.ndim - 2
        strides = attributes.get("strides") or [1] * spatial
        dilations = attributes.get("dilations") or [1] * spatial
        groups = attributes.get("group") or 1
        reach = [(taps - 1) * dilation + 1 for taps, dilation in zip(w.shape[2:], dilations, strict=True)]
        pads = _pads(attributes, x.shape[2:], reach, strides)
        x = np.pad(x, [(0, 0), (0, 0), *pads])
        windows = _slid(x, reach, strides, dilations)
        out, taps = windows.shape[2 : 2 + spatial], "uvw"[:spatial]
        parts = windows.reshape(x.shape[0], groups, -1, *windows.shape[2:])
        weights = w.reshape(groups, -1, *w.shape[1:])
        plane = "hij"[:spatial]
        y = np.einsum(f"ngc{plane}{taps},goc{taps}->ngo{plane}", parts, weights).reshape(x.shape[0], -1, *out)
        return (y if bias is None else y + bias.reshape(-1, *[1] * spatial),)


Conv.op_domain = ""


def _pads(
    attributes: Mapping[str, Any], sizes: Sequence[int], reach: Sequence[int], strides: Sequence[int]
) -> list[tuple[int, int]]:
    mode = attributes.get("auto_pad") or "NOTSET"
    if mode == "VALID":
        return [(0, 0)] * len(sizes)
    if mode == "NOTSET":
        pads = attributes.get("pads") or [0] * len(sizes) * 2
        return list(zip(pads[: len(sizes)], pads[len(sizes) :], strict=True))
    result = []
    for size, window, stride in zip(sizes, reach, strides, strict=True):
        total = max((-(-size // stride) - 1) * stride + window - size, 0)
        less, more = total // 2, total - total // 2
        result.append((less, more) if mode == "SAME_UPPER" else (more, less))
    return result


class BatchNormalization(OpRun):
    """The reference implementation takes a node of opset 9 with a momentum for one in training mode."""

    def _run(
        self, x: Array, gamma: Array, beta: Array, mean: Array, var: Array, **attributes: Any
    ) -> tuple[Array, ...]:
        gamma, beta, mean, var = (array.reshape(-1, *[1] * (x.ndim - 2)) for array in (gamma, beta, mean, var))
        epsilon = attributes["epsilon"]
        running: tuple[Array, ...] = ()
        if attributes.get("training_mode"):
            axes = (0, *range(2, x.ndim))
            momentum = attributes["momentum"]
            batch = x.mean(axes, keepdims=True)[0], x.var(axes, keepdims=True)[0]
            running = tuple(
                (momentum * old + (1 - momentum) * new).reshape(-1) for old, new in zip((mean, var), batch, strict=True)
            )
            mean, var = batch
        y = gamma * (x - mean) / np.sqrt(var + epsilon) + beta
        return y, *running[: len(self.onnx_node.output) - 1]


BatchNormalization.op_domain = ""


class DequantizeLinear(OpRun):
    """Of a weight, per tensor or per axis; the reference implementation begins at opset 19."""

    def _run(self, x: Array, scale: Array, zero: Array | None = None, **attributes: Any) -> tuple[Array]:
        return ((x.astype(np.float64) - _fitted(x, zero, attributes)) * _fitted(x, scale, attributes),)


DequantizeLinear.op_domain = ""


class QuantizeLinear(OpRun):
    """To int8."""

    def _run(self, x: Array, scale: Array, zero: Array | None = None, **attributes: Any) -> tuple[Array]:
        levels = np.rint(x / _fitted(x, scale, attributes)) + _fitted(x, zero, attributes)
        return (np.clip(levels, -128, 127).astype(np.int8),)


QuantizeLinear.op_domain = ""


def _fitted(x: Array, vector: Array | None, attributes: Mapping[str, Any]) -> Array:
    if vector is None:
        return np.zeros(())
    shape = [1] * x.ndim
    if vector.size > 1:
        shape[attributes.get("axis", 1)] = -1
    return vector.astype(np.float64).reshape(shape)


class MaxPool(OpRun):
    """Padding never wins, nor does what rounding up the size adds."""

    def _run(self, x: Array, **attributes: Any) -> tuple[Array]:
        windows, _ = _windows_of(x, attributes, -np.inf)
        return (windows.max(tuple(range(x.ndim, windows.ndim))),)


MaxPool.op_domain = ""


class AveragePool(OpRun):
    """Padding counts if count_include_pad says so; what rounding up the size adds never does."""

    def _run(self, x: Array, **attributes: Any) -> tuple[Array]:
        windows, counts = _windows_of(x, attributes, 0)
        axes = tuple(range(x.ndim, windows.ndim))
        return (windows.sum(axes) / counts.sum(axes),)


AveragePool.op_domain = ""


def _windows_of(x: Array, attributes: Mapping[str, Any], filler: float) -> tuple[Array, Array]:
    """All windows of a pooling operator, and which of their elements count."""
    kernel = attributes["kernel_shape"]
    strides = attributes.get("strides") or [1] * len(kernel)
    dilations = attributes.get("dilations") or [1] * len(kernel)
    reach = [(taps - 1) * dilation + 1 for taps, dilation in zip(kernel, dilations, strict=True)]
    pads = _pads(attributes, x.shape[2:], reach, strides)
    more = [(0, 0)] * len(kernel)
    if attributes.get("ceil_mode"):
        more = [
            _rounded_up(size, pad, window, stride)
            for size, pad, window, stride in zip(x.shape[2:], pads, reach, strides, strict=True)
        ]
    counts = np.pad(
        np.ones_like(x), [(0, 0), (0, 0), *pads], constant_values=float(attributes.get("count_include_pad") or 0)
    )
    padded = np.pad(x, [(0, 0), (0, 0), *pads], constant_values=filler)
    padded, counts = (
        np.pad(array, [(0, 0), (0, 0), *more], constant_values=value)
        for array, value in ((padded, filler), (counts, 0.0))
    )
    return _slid(padded, reach, strides, dilations), _slid(counts, reach, strides, dilations)


def _rounded_up(size: int, pad: tuple[int, int], window: int, stride: int) -> tuple[int, int]:
    """What has to be added at the end for one more window, if that begins inside of the input or its first padding."""
    free = size + sum(pad) - window
    steps = -(-free // stride)
    if steps * stride >= size + pad[0]:
        steps -= 1
    return 0, max(steps * stride - free, 0)


def _slid(x: Array, reach: Sequence[int], strides: Sequence[int], dilations: Sequence[int]) -> Array:
    windows = sliding_window_view(x, reach, tuple(range(2, x.ndim)))
    windows = windows[(slice(None),) * 2 + tuple(slice(None, None, stride) for stride in strides)]
    dilated: Index = (..., *(slice(None, None, dilation) for dilation in dilations))
    return windows[dilated]


class LayerNormalization(OpRun):
    """In the type of the data, whatever ``stash_type`` says."""

    def _run(self, x: Array, scale: Array, bias: Array | None = None, **attributes: Any) -> tuple[Array]:
        axes = tuple(range(attributes["axis"] % x.ndim, x.ndim))
        centred = x - x.mean(axes, keepdims=True)
        y = scale * centred / np.sqrt((centred**2).mean(axes, keepdims=True) + attributes["epsilon"])
        return (y if bias is None else y + bias,)


LayerNormalization.op_domain = ""


class RMSNormalization(OpRun):
    """As above, without the mean."""

    def _run(self, x: Array, scale: Array, **attributes: Any) -> tuple[Array]:
        axes = tuple(range(attributes["axis"] % x.ndim, x.ndim))
        return (scale * x / np.sqrt((x**2).mean(axes, keepdims=True) + attributes["epsilon"]),)


RMSNormalization.op_domain = ""


class GroupNormalization(OpRun):
    """Parameters for each group (before opset 21) or for each channel."""

    def _run(self, x: Array, scale: Array, bias: Array, **attributes: Any) -> tuple[Array]:
        groups = x.reshape(x.shape[0], attributes["num_groups"], -1)
        mean, var = groups.mean(2, keepdims=True), groups.var(2, keepdims=True)
        normal = ((groups - mean) / np.sqrt(var + attributes["epsilon"])).reshape(x.shape)
        scale, bias = (
            np.repeat(vector, x.shape[1] // vector.size).reshape(-1, *[1] * (x.ndim - 2)) for vector in (scale, bias)
        )
        return (normal * scale + bias,)


GroupNormalization.op_domain = ""


class GlobalMaxPool(OpRun):
    """The reference implementation is for images only."""

    def _run(self, x: Array) -> tuple[Array]:
        return (x.max(tuple(range(2, x.ndim)), keepdims=True),)


GlobalMaxPool.op_domain = ""


class GlobalLpPool(OpRun):
    """The reference implementation has none."""

    def _run(self, x: Array, p: int | None = None) -> tuple[Array]:
        power = p or 2
        return ((np.abs(x) ** power).sum(tuple(range(2, x.ndim)), keepdims=True) ** (1 / power),)


GlobalLpPool.op_domain = ""


class Upsample(OpRun):
    """Opset 9; the reference implementation has none. Our graphs scale by 1 or 2 only."""

    def _run(self, x: Array, scales: Array, mode: str | None = None) -> tuple[Array]:
        for axis, scale in enumerate(scales):
            if scale == 2 and mode == "linear":
                x = _doubled(x, axis)
            elif scale != 1:
                x = np.repeat(x, int(scale), axis)
        return (x,)


Upsample.op_domain = ""


def _doubled(x: Array, axis: int) -> Array:
    """Between each value and the next (the last stays) comes their mean."""
    following = np.concatenate([x.take(range(1, x.shape[axis]), axis), x.take([-1], axis)], axis)
    pairs = np.stack([x, (x + following) / 2], axis + 1)
    return pairs.reshape(*x.shape[:axis], -1, *x.shape[axis + 1 :])


OPERATORS = [
    AveragePool,
    BatchNormalization,
    Conv,
    ConvTranspose,
    DequantizeLinear,
    GlobalLpPool,
    GlobalMaxPool,
    GroupNormalization,
    LayerNormalization,
    MaxPool,
    QuantizeLinear,
    RMSNormalization,
    Upsample,
]
