"""Operators in float64 that onnx.reference computes slowly, in float32, or not at all.

Each kernel takes the op and its inputs (None where omitted) and returns its outputs. Arrays are (N, C, *spatial).
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx

from bnfold.graph import Op

Array = npt.NDArray[Any]
Kernel = Callable[[Op, Sequence[Array | None]], list[Array]]


RANDOM = frozenset(
    {"RandomNormal", "RandomUniform", "RandomNormalLike", "RandomUniformLike", "Multinomial", "Bernoulli"}
)


class NotComputed(Exception):
    """The operator, or this form of it, is not computed here."""


def _conv(op: Op, inputs: Sequence[Array | None]) -> list[Array]:
    """Y[n, o, p] = b[o] + sum over i, k of W[o, i, k] * X[n, group(o) + i, stride * p + dilation * k - pad]"""
    x, weight, bias = _present(inputs[0]), _present(inputs[1]), _optional(inputs, 2)
    groups, rank = op.attribute("group", 1), x.ndim - 2
    kernel = weight.shape[2:]
    strides, dilations = _ints(op, "strides", rank), _ints(op, "dilations", rank)
    pads = _pads(op, x.shape[2:], kernel, strides, dilations)
    windows = _windows(np.pad(x, [(0, 0), (0, 0), *pads]), kernel, strides, dilations)
    count, out = x.shape[0], windows.shape[2 : 2 + rank]
    per_group = weight.shape[1]
    columns = windows.reshape(count, groups, per_group, *out, *kernel)
    order = [1, 2, *range(3 + rank, 3 + 2 * rank), 0, *range(3, 3 + rank)]
    columns = columns.transpose(order).reshape(groups, per_group * math.prod(kernel), -1)
    y = np.matmul(weight.reshape(groups, weight.shape[0] // groups, -1), columns)
    y = np.moveaxis(y.reshape(weight.shape[0], count, *out), 0, 1)
    return [y if bias is None else y + _channels(bias, y.ndim)]


def _fused_conv(op: Op, inputs: Sequence[Array | None]) -> list[Array]:
    """ONNX Runtime's Conv with an activation: act(conv(x) + z)."""
    y = _conv(op, inputs[:3])[0]
    addend = _optional(inputs, 3)
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


def _conv_transpose(op: Op, inputs: Sequence[Array | None]) -> list[Array]:
    """Y[n, o, stride * p + dilation * k - pad] += W[i, o, k] * X[n, i, p], group by group"""
    x, weight, bias = _present(inputs[0]), _present(inputs[1]), _optional(inputs, 2)
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
    return [y if bias is None else y + _channels(bias, y.ndim)]


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


def _max_pool(op: Op, inputs: Sequence[Array | None]) -> list[Array]:
    if len([output for output in op.outputs if output is not None]) > 1:
        raise NotComputed("indices of MaxPool")
    windows, _ = _pooling_windows(op, _present(inputs[0]), -np.inf)
    return [windows.max(axis=tuple(range(windows.ndim // 2 + 1, windows.ndim)))]


def _average_pool(op: Op, inputs: Sequence[Array | None]) -> list[Array]:
    x = _present(inputs[0])
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


def _batch_normalization(op: Op, inputs: Sequence[Array | None]) -> list[Array]:
    x, scale, shift, mean, variance = (_present(array) for array in inputs)
    if not op.attribute("spatial", 1):
        raise NotComputed("spatial=0")
    epsilon = float(np.float32(op.attribute("epsilon", 1e-5)))
    if is_training(op):
        axes = tuple(axis for axis in range(x.ndim) if axis != 1)
        mean, variance = x.mean(axis=axes), x.var(axis=axes)
    scale, shift, mean, variance = (_channels(array, x.ndim) for array in (scale, shift, mean, variance))
    return [(x - mean) / np.sqrt(variance + epsilon) * scale + shift]


def is_training(op: Op) -> bool:
    """Whether a BatchNormalization normalises with the statistics of its batch."""
    if op.opset >= 14:
        return bool(op.attribute("training_mode", 0))
    if op.opset >= 7:
        return sum(output is not None for output in op.outputs) > 1
    return not op.attribute("is_test", 0)


def _dropout(op: Op, inputs: Sequence[Array | None]) -> list[Array]:
    training = _optional(inputs, 2)
    if (training is not None and bool(training)) or (op.opset < 7 and not op.attribute("is_test", 0)):
        raise NotComputed("it is random")
    x = _present(inputs[0])
    return [x, np.ones(x.shape, bool)]


def _random(op: Op, inputs: Sequence[Array | None]) -> list[Array]:
    raise NotComputed("it is random")


def _gemm(op: Op, inputs: Sequence[Array | None]) -> list[Array]:
    a, b, c = _present(inputs[0]), _present(inputs[1]), _optional(inputs, 2)
    a = a.T if op.attribute("transA", 0) else a
    b = b.T if op.attribute("transB", 0) else b
    y = op.attribute("alpha", 1.0) * (a @ b)
    return [y if c is None else y + op.attribute("beta", 1.0) * c]


def _fused_matmul(op: Op, inputs: Sequence[Array | None]) -> list[Array]:
    """ONNX Runtime's MatMul with a factor and transposed operands."""
    a, b = _present(inputs[0]), _present(inputs[1])
    if op.attribute("transBatchA", 0) or op.attribute("transBatchB", 0):
        raise NotComputed("transposed batches")
    a = np.swapaxes(a, -1, -2) if op.attribute("transA", 0) else a
    b = np.swapaxes(b, -1, -2) if op.attribute("transB", 0) else b
    return [op.attribute("alpha", 1.0) * np.matmul(a, b)]


def _layer_normalization(op: Op, inputs: Sequence[Array | None]) -> list[Array]:
    x, scale, shift = _present(inputs[0]), _present(inputs[1]), _optional(inputs, 2)
    axis = op.attribute("axis", -1) % x.ndim
    axes = tuple(range(axis, x.ndim))
    centred = x - x.mean(axis=axes, keepdims=True)
    y = (
        centred
        / np.sqrt((centred**2).mean(axis=axes, keepdims=True) + float(np.float32(op.attribute("epsilon", 1e-5))))
        * scale
    )
    return [y if shift is None else y + shift]


def _group_normalization(op: Op, inputs: Sequence[Array | None]) -> list[Array]:
    x, scale, shift = (_present(array) for array in inputs)
    groups = op.attribute("num_groups")
    parts = x.reshape(x.shape[0], groups, -1)
    centred = parts - parts.mean(axis=2, keepdims=True)
    variance = (centred**2).mean(axis=2, keepdims=True)
    y = (centred / np.sqrt(variance + float(np.float32(op.attribute("epsilon", 1e-5))))).reshape(x.shape)
    if op.opset < 21:  # one scale for each group
        scale, shift = (np.repeat(array, x.shape[1] // groups) for array in (scale, shift))
    return [y * _channels(scale, x.ndim) + _channels(shift, x.ndim)]


def _global_pool(reduce: Callable[..., Array]) -> Kernel:
    def pool(op: Op, inputs: Sequence[Array | None]) -> list[Array]:
        del op
        x = _present(inputs[0])
        return [reduce(x, axis=tuple(range(2, x.ndim)), keepdims=True)]

    return pool


def _cast(op: Op, inputs: Sequence[Array | None]) -> list[Array]:
    return [cast(_present(inputs[0]), op.attribute("to"))]


def _cast_like(op: Op, inputs: Sequence[Array | None]) -> list[Array]:
    del op
    x, like = _present(inputs[0]), _present(inputs[1])
    return [x.astype(like.dtype)]


def cast(array: Array, elem_type: int) -> Array:
    """To a type, where every floating-point type stands for the real numbers."""
    if elem_type == onnx.TensorProto.STRING or array.dtype.kind in "UO":
        raise NotComputed("Cast of strings")
    return array.astype(as_real(onnx.helper.tensor_dtype_to_np_dtype(elem_type)))


def as_real(dtype: npt.DTypeLike) -> np.dtype[Any]:
    """The type in which values of this type are computed."""
    dtype = np.dtype(dtype)
    is_float = dtype.kind == "f" or (dtype.kind == "V" and "float" in dtype.name)
    return np.dtype(np.float64) if is_float else dtype


def _constant_of_shape(op: Op, inputs: Sequence[Array | None]) -> list[Array]:
    value = op.attribute("value")
    fill = np.zeros(1, np.float32) if value is None else onnx.numpy_helper.to_array(value)
    return [np.full(tuple(int(size) for size in _present(inputs[0])), fill.reshape(-1)[0], as_real(fill.dtype))]


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


def _channels(vector: Array, rank: int) -> Array:
    return vector.reshape(1, -1, *[1] * (rank - 2))


def _present(array: Array | None) -> Array:
    if array is None:
        raise NotComputed("an input is missing")
    return array


def _optional(inputs: Sequence[Array | None], index: int) -> Array | None:
    return inputs[index] if index < len(inputs) else None


def _global_lp_pool(op: Op, inputs: Sequence[Array | None]) -> list[Array]:
    x, p = _present(inputs[0]), op.attribute("p", 2)
    return [(np.abs(x) ** p).sum(axis=tuple(range(2, x.ndim)), keepdims=True) ** (1 / p)]


def _dequantize(op: Op, inputs: Sequence[Array | None]) -> list[Array]:
    """(x - zero point) * scale, along an axis if they are vectors"""
    x, scale, zero = _present(inputs[0]), _present(inputs[1]), _optional(inputs, 2)
    if op.attribute("block_size", 0) or scale.ndim > 1:
        raise NotComputed("blocked quantisation")
    shape = [1] * x.ndim
    if scale.size > 1:
        shape[op.attribute("axis", 1)] = -1
    centred = x.astype(np.float64) - (0.0 if zero is None else zero.astype(np.float64).reshape(shape))
    return [centred * scale.reshape(shape if x.ndim else scale.shape)]


def _along_axis(function: Callable[[Array], Array]) -> Kernel:
    """Softmax and its relatives: along the last axis; before opset 13 over all axes from ``axis`` on at once."""

    def kernel(op: Op, inputs: Sequence[Array | None]) -> list[Array]:
        x = _present(inputs[0])
        if op.opset >= 13:
            axis = op.attribute("axis", -1)
            return [np.moveaxis(function(np.moveaxis(x, axis, -1)), -1, axis)]
        axis = op.attribute("axis", 1) % max(x.ndim, 1)
        return [function(x.reshape(int(np.prod(x.shape[:axis])), -1)).reshape(x.shape)]

    return kernel


def _softmax(x: Array) -> Array:
    raised = np.exp(x - x.max(axis=-1, keepdims=True))
    return np.asarray(raised / raised.sum(axis=-1, keepdims=True))


def _log_softmax(x: Array) -> Array:
    lowered = x - x.max(axis=-1, keepdims=True)
    return np.asarray(lowered - np.log(np.exp(lowered).sum(axis=-1, keepdims=True)))


KERNELS: dict[str, Kernel] = {
    "Softmax": _along_axis(_softmax),
    "LogSoftmax": _along_axis(_log_softmax),
    "Conv": _conv,
    "com.microsoft::FusedConv": _fused_conv,
    "com.microsoft::FusedMatMul": _fused_matmul,
    "ConvTranspose": _conv_transpose,
    "MaxPool": _max_pool,
    "AveragePool": _average_pool,
    "BatchNormalization": _batch_normalization,
    "Dropout": _dropout,
    **dict.fromkeys(RANDOM, _random),
    "DequantizeLinear": _dequantize,
    "Gemm": _gemm,
    "GlobalAveragePool": _global_pool(np.mean),
    "GlobalLpPool": _global_lp_pool,
    "GlobalMaxPool": _global_pool(np.max),
    "GroupNormalization": _group_normalization,
    "LayerNormalization": _layer_normalization,
    "Cast": _cast,
    "CastLike": _cast_like,
    "ConstantOfShape": _constant_of_shape,
    "Identity": lambda op, inputs: [_present(inputs[0])],
    "Relu": lambda op, inputs: [np.maximum(_present(inputs[0]), 0)],
    "MatMul": lambda op, inputs: [np.matmul(_present(inputs[0]), _present(inputs[1]))],
}
