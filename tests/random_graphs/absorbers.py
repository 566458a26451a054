"""Operators with weights or scales of their own: each can take an affine in on one side or both."""

from __future__ import annotations

from functools import partial
from math import prod
from typing import Any

import numpy as np
from onnx import helper

from random_graphs.affines import numbers, scales
from random_graphs.builder import Array, Builder, Tensor, Unfit
from random_graphs.constants import constant

# --- convolutions --------------------------------------------------------------------------------------------


def weight(b: Builder, shape: tuple[int, ...], fan_in: int) -> Array:
    values: Array = numbers(b, shape) / np.sqrt(max(fan_in, 1)) * 1.3
    return values


def conv(
    b: Builder, x: Tensor, *, keeps: bool = False, out: int | None = None, kernel: list[int] | None = None
) -> Tensor:
    """Any Conv; ``keeps``: one that keeps the size of the plane."""
    x = _image(x)
    spatial = x.rank - 2
    group = b.pick([group for group in (1, 1, 2, 3, x.channels) if x.channels % group == 0])
    out = out or group * b.integer(1, max(1, (6 if b.chance(0.93) else 20) // group))
    if out % group:
        group = 1
    kernel = kernel or [b.pick([1, 1, 2, 3]) for _ in range(spatial)]
    attributes = _keeping(b, kernel) if keeps else _windows(b, kernel, x.shape[2:])
    _refuse_too_large(x, kernel, attributes)
    array = weight(b, (out, x.channels // group, *kernel), x.channels // group * prod(kernel))
    if group > 1 or b.chance(0.3):
        attributes["group"] = group
    weights = _conv_weight(b, array)
    inputs: list[Tensor | None] = [x, weights]
    if b.chance(0.5):
        inputs.append(_bias(b, out, is_quantised=weights.value is None))
    elif b.chance(0.1):
        inputs.append(None)
    return b.node("Conv", *inputs, along=1, **attributes)


def same_size_conv(b: Builder, x: Tensor, kernel: int) -> Tensor:
    """A Conv of so many taps along each axis whose result has the shape of its input."""
    return conv(b, x, keeps=True, out=x.channels, kernel=[kernel] * (x.rank - 2))


def _bias(b: Builder, channels: int, *, is_quantised: bool) -> Tensor:
    if not is_quantised or b.chance(0.5):
        return constant(b, numbers(b, (channels,)), "bias")
    scale = np.asarray(b.rng.uniform(1e-6, 1e-5, channels if b.chance(0.5) else ()), np.float32)
    levels = np.rint(numbers(b, (channels,)) / scale).astype(np.int32)
    attributes = {"axis": 0} if scale.ndim else {}
    return b.node("DequantizeLinear", b.store(levels, "levels"), b.store(scale, "bscale"), **attributes)


def _image(x: Tensor) -> Tensor:
    if not 3 <= x.rank <= 5:
        raise Unfit("no image")
    return x.along(1)


def _refuse_too_large(x: Tensor, kernel: list[int], attributes: dict[str, Any]) -> None:
    """Shape inference lets a window pass that is larger than what it slides over."""
    spatial = len(kernel)
    dilations, pads = attributes.get("dilations", [1] * spatial), attributes.get("pads", [0] * spatial * 2)
    same = attributes.get("auto_pad", "").startswith("SAME")
    for axis, size in enumerate(x.shape[2:]):
        if not same and (kernel[axis] - 1) * dilations[axis] + 1 > size + pads[axis] + pads[axis + spatial]:
            raise Unfit("a window too large")


def _keeping(b: Builder, kernel: list[int]) -> dict[str, Any]:
    if any(size % 2 == 0 for size in kernel):
        kernel[:] = [size + 1 - size % 2 for size in kernel]
    dilations = [b.pick([1, 1, 2]) for _ in kernel]
    if b.chance(0.2) and all(dilation == 1 for dilation in dilations):
        return {"auto_pad": b.pick(["SAME_UPPER", "SAME_LOWER"])}
    half = [(size - 1) * dilation // 2 for size, dilation in zip(kernel, dilations, strict=True)]
    attributes: dict[str, Any] = {"pads": half + half}
    if any(dilation != 1 for dilation in dilations):
        attributes["dilations"] = dilations
    return attributes


def _windows(b: Builder, kernel: list[int], sizes: tuple[int, ...]) -> dict[str, Any]:
    attributes: dict[str, Any] = {}
    if b.chance(0.4):
        attributes["kernel_shape"] = kernel
    if b.chance(0.3):
        attributes["strides"] = [b.pick([1, 2]) for _ in kernel]
    if b.chance(0.2):
        attributes["dilations"] = [b.pick([1, 2]) for _ in kernel]
    if b.chance(0.25) and "dilations" not in attributes:
        attributes["auto_pad"] = b.pick(["VALID", "SAME_UPPER", "SAME_LOWER", "NOTSET"])
    elif b.chance(0.45):
        attributes["pads"] = [b.pick([0, 1, 1, 2]) for _ in kernel * 2]
    return attributes


def _conv_weight(b: Builder, array: Array) -> Tensor:
    if b.dtype == np.float32 and b.opset >= 13 and not b.is_plain and b.chance(0.25):
        return quantised(b, array, axis=0)
    return constant(b, array, "weight")


def quantised(b: Builder, array: Array, axis: int) -> Tensor:
    """A weight behind DequantizeLinear, per tensor or per axis; or fake-quantised, with a float weight in front."""
    per_axis = b.chance(0.5)
    others = tuple(other for other in range(array.ndim) if other != axis)
    largest = np.abs(array).max(others if per_axis else None)
    scale = (np.where(largest > 0, largest, 1) / 127).astype(np.float32)
    shape = [-1 if other == axis else 1 for other in range(array.ndim)] if per_axis else []
    attributes = {"axis": axis} if per_axis or b.chance(0.3) else {}
    zero = b.store(np.zeros(scale.shape, np.int8), "zero")
    scales_ = b.store(scale, "wscale")
    if b.chance(0.4):
        levels = b.node("QuantizeLinear", constant(b, array, "weight"), scales_, zero, **attributes)
        return b.node("DequantizeLinear", levels, scales_, zero, **attributes)
    integers = np.clip(np.rint(array / scale.reshape(shape)), -127, 127).astype(np.int8)
    inputs = [b.store(integers, "levels"), scales_] + ([zero] if b.chance(0.5) else [])
    return b.node("DequantizeLinear", *inputs, **attributes)


def conv_transpose(b: Builder, x: Tensor) -> Tensor:
    x = _image(x)
    spatial = x.rank - 2
    group = b.pick([group for group in (1, 1, 2, 3, x.channels) if x.channels % group == 0])
    kernel = [b.pick([1, 2, 3]) for _ in range(spatial)] if b.chance(0.7) else [1] * spatial
    out = b.integer(1, max(1, 6 // group))
    attributes: dict[str, Any] = {"group": group} if group > 1 or b.chance(0.2) else {}
    if b.chance(0.4):
        attributes["strides"] = [2] * spatial
        if b.chance(0.4):
            attributes["output_padding"] = [b.pick([0, 1]) for _ in kernel]
    if b.chance(0.3):
        attributes["pads"] = [b.pick([0, 0, 1]) for _ in kernel * 2]
    elif b.chance(0.15):
        attributes["dilations"] = [2] * spatial
    inputs = [x, constant(b, weight(b, (x.channels, out, *kernel), x.channels // group), "weight")]
    if b.chance(0.5):
        inputs.append(constant(b, numbers(b, (out * group,)), "bias"))
    return b.node("ConvTranspose", *inputs, along=1, **attributes)


def deform_conv(b: Builder, x: Tensor) -> Tensor:
    x = _image(x)
    if b.opset < SINCE["deform_conv"] or x.rank != 4:
        raise Unfit("no DeformConv")
    group, out = b.pick([group for group in (1, 1, 2) if x.channels % group == 0]), 2 * b.integer(1, 2)
    taps = [b.pick([1, 2]), 2]
    sizes = [size - tap + 1 for size, tap in zip(x.shape[2:], taps, strict=True)]
    if min(sizes) < 1:
        raise Unfit("too small")
    offsets = b.store(b.rng.uniform(-0.6, 0.6, (x.shape[0], 2 * prod(taps), *sizes)).astype(b.dtype), "offset")
    inputs = [x, constant(b, weight(b, (out, x.channels // group, *taps), x.channels), "weight"), offsets]
    if b.chance(0.5):
        inputs.append(constant(b, numbers(b, (out,)), "bias"))
    return b.node("DeformConv", *inputs, along=1, group=group)


# --- recurrent -----------------------------------------------------------------------------------------------

_GATES = {"LSTM": 4, "GRU": 3, "RNN": 1}


def recurrent(b: Builder, x: Tensor, op: str) -> Tensor:
    """Of features that are channels: [N, C, T] becomes [T, N, C] first."""
    if x.rank != 3:
        raise Unfit("no sequence")
    x = b.node("Transpose", x.along(1), perm=[2, 0, 1], along=2)
    hidden, gates = 2, _GATES[op]
    inputs = [
        x,
        constant(b, weight(b, (1, gates * hidden, x.channels), x.channels), "weight"),
        constant(b, weight(b, (1, gates * hidden, hidden), hidden), "recurrence"),
    ]
    if b.chance(0.6):
        inputs.append(constant(b, numbers(b, (1, 2 * gates * hidden)), "bias"))
    return b.node(op, *inputs, along=-1, hidden_size=hidden)


# --- matrices ------------------------------------------------------------------------------------------------


def gemm(b: Builder, x: Tensor) -> Tensor:
    """Constant B or constant A, every shape of C."""
    if x.rank != 2:
        raise Unfit("no matrix")
    of_left = b.chance(0.8)
    flip_x, flip_w = b.chance(0.2), b.chance(0.4)
    rows, columns = x.shape[::-1] if flip_x else x.shape
    summed, kept, out = (columns, rows, b.integer(1, 5)) if of_left else (rows, columns, b.integer(1, 5))
    shape = (summed, out) if of_left else (out, summed)
    w = _matrix(b, weight(b, shape[::-1] if flip_w else shape, summed), int(of_left != flip_w))
    m, n = (kept, out) if of_left else (out, kept)
    attributes: dict[str, Any] = {
        "transA" if of_left else "transB": int(flip_x),
        "transB" if of_left else "transA": int(flip_w),
    }
    attributes |= {name: b.pick([1.0, 0.5, -2.0]) for name in ("alpha", "beta") if b.chance(0.3)}
    if b.chance(0.05):
        attributes["beta"] = 0.0
    inputs = [x, w] if of_left else [w, x]
    addend = b.pick([None, (n,), (n,), (n,), (1, n), (m, 1), (m, n), (1,), ()])
    if addend is not None or b.opset < 11:
        inputs.append(constant(b, numbers(b, addend or ()), "addend"))
    return b.node("Gemm", *inputs, along=1 if of_left else 0, **attributes)


def _matrix(b: Builder, array: Array, axis: int) -> Tensor:
    """A weight; ``axis`` is that of its columns or rows that stay."""
    if b.dtype == np.float32 and b.opset >= 13 and not b.is_plain and b.chance(0.15):
        return quantised(b, array, axis)
    return constant(b, array, "weight")


def matmul(b: Builder, x: Tensor) -> Tensor:
    if x.rank < 2:
        raise Unfit("a vector")
    out = b.integer(1, 5)
    if x.rank > 2 and b.chance(0.05):
        return b.node("MatMul", x, constant(b, weight(b, x.shape[-1:], x.shape[-1]), "weight"), along=-1)
    if b.chance(0.75):
        batch = x.shape[:-2] if b.chance(0.1) else (1,) * b.integer(0, 1)
        w = _matrix(b, weight(b, (*batch, x.shape[-1], out), x.shape[-1]), len(batch) + 1)
        y = b.node("MatMul", x, w, along=-1)
    else:
        w = constant(b, weight(b, (out, x.shape[-2]), x.shape[-2]), "weight")
        y = b.node("MatMul", w, x, along=-2)
    if b.chance(0.4):
        size = y.shape[-1] if y.axis == y.rank - 1 else 1
        y = b.node("Add", y, constant(b, numbers(b, (size,)), "bias"), along=y.axis)
    return y


def einsum(b: Builder, x: Tensor) -> Tensor:
    """One constant operand, on either side; the channels are summed or kept."""
    if b.opset < 12 or not 2 <= x.rank <= 4:
        raise Unfit("no Einsum")
    labels = "nabc"[: x.rank]
    channel = labels[x.axis]
    out = b.integer(1, 5)
    kind = b.pick(["mix", "mix", "mix", "scale", "implicit"])
    shape: tuple[int, ...]
    if kind == "mix":
        own, result, shape = "o" + channel, labels.replace(channel, "o"), (out, x.channels)
        if b.chance(0.5):
            own, shape = own[::-1], shape[::-1]
    elif kind == "scale":
        own, result, shape = channel, labels, (x.channels,)
    else:
        own, result, shape = channel, "", (x.channels,)
    w = constant(b, weight(b, shape, x.channels), "weight")
    first = b.chance(0.5)
    terms = f"{own},{labels}" if first else f"{labels},{own}"
    equation = f"{terms}->{result}" if result else f"{terms}->{labels.replace(channel, '')}"
    axis = result.index("o") if kind == "mix" else (x.axis if result else 0)
    if not result and x.rank < 3:
        raise Unfit("nothing would be left")
    return b.node("Einsum", *((w, x) if first else (x, w)), equation=equation, along=axis)


# --- normalizations ------------------------------------------------------------------------------------------


def instance_norm(b: Builder, x: Tensor) -> Tensor:
    if x.rank < 3 or prod(x.shape[2:]) < 4:
        raise Unfit("no plane")
    own = [
        constant(b, scales(b, (x.shape[1],), friendly=False), "gamma"),
        constant(b, numbers(b, (x.shape[1],)), "beta"),
    ]
    return b.node("InstanceNormalization", x, *own, epsilon=b.pick([0.01, 0.0625]), along=1)


def group_norm(b: Builder, x: Tensor) -> Tensor:
    if b.opset < 18 or x.rank < 3 or prod(x.shape[2:]) < 4:
        raise Unfit("no GroupNormalization")
    channels = x.shape[1]
    groups = b.pick([groups for groups in (1, 2, 3, channels) if channels % groups == 0])
    size = channels if b.opset >= 21 else groups
    own = [constant(b, scales(b, (size,), friendly=False), "gamma"), constant(b, numbers(b, (size,)), "beta")]
    return b.keeping_shape("GroupNormalization", x.along(1), *own, num_groups=groups, epsilon=b.pick([0.01, 0.0625]))


def layer_norm(b: Builder, x: Tensor, op: str = "LayerNormalization") -> Tensor:
    axis = b.integer(1, x.rank - 1) if x.rank > 1 else 0
    if b.opset < SINCE["layer_norm"] or x.rank < 2 or prod(x.shape[axis:]) < 3:
        raise Unfit("no LayerNormalization")
    shape = x.shape[axis:] if b.chance(0.8) else x.shape[-1:]
    own = [constant(b, scales(b, shape, friendly=False), "gamma")]
    if op == "LayerNormalization" and b.chance(0.7):
        own.append(constant(b, numbers(b, shape), "beta"))
    code = helper.np_dtype_to_tensor_dtype(b.dtype)
    stash = {"stash_type": code} if b.dtype == np.float32 and b.chance(0.2) else {}
    attributes = {"epsilon": b.pick([0.01, 0.0625]), "axis": axis - x.rank if b.chance(0.5) else axis}
    return b.node(op, x, *own, along=-1, **attributes, **stash)


def rms_norm(b: Builder, x: Tensor) -> Tensor:
    if b.opset < SINCE["rms_norm"]:
        raise Unfit("no RMSNormalization")
    return layer_norm(b, x, "RMSNormalization")


# the opsets in which some operators begin
SINCE = {"einsum": 12, "einsum_gate": 12, "grid_sample": 16, "layer_norm": 17, "group_norm": 18, "rms_norm": 23}
SINCE |= {"deform_conv": 19}
NORMS = [instance_norm, group_norm, layer_norm, rms_norm]
ABSORBERS = [conv] * 8 + [conv_transpose] * 2 + [gemm] * 3 + [matmul] * 3 + [einsum] + NORMS
ABSORBERS += [deform_conv] * 2 + [partial(recurrent, op=op) for op in _GATES]
