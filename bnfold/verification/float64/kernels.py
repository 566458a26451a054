"""Operators in float64 that onnx.reference computes slowly, in float32, or not at all."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import onnx

from bnfold.graph import Op
from bnfold.verification.float64 import windows
from bnfold.verification.float64.gaussian import GAUSSIAN
from bnfold.verification.float64.kernel import Array, Kernel, NotComputed, as_real, channels, optional, present

RANDOM = frozenset(
    {"RandomNormal", "RandomUniform", "RandomNormalLike", "RandomUniformLike", "Multinomial", "Bernoulli"}
)


def _batch_normalization(op: Op, inputs: Sequence[Array | None]) -> list[Array]:
    x, scale, shift, mean, variance = (present(array) for array in inputs)
    if not op.attribute("spatial", 1) and scale.ndim != 1:
        raise NotComputed("spatial=0")
    if is_training(op):
        axes = tuple(axis for axis in range(x.ndim) if axis != 1)
        mean, variance = x.mean(axis=axes), x.var(axis=axes)
    scale, shift, mean, variance = (channels(array, x.ndim) for array in (scale, shift, mean, variance))
    return [(x - mean) / np.sqrt(variance + epsilon(op)) * scale + shift]


def epsilon(op: Op) -> float:
    """What a normalization adds to the variance."""
    return float(np.float32(op.attribute("epsilon", 1e-5)))


def is_training(op: Op) -> bool:
    """Whether a BatchNormalization normalises with the statistics of its batch."""
    if op.opset >= 14:
        return bool(op.attribute("training_mode", 0))
    if op.opset >= 7:
        return sum(output is not None for output in op.outputs) > 1
    return not op.attribute("is_test", 0)


def _dropout(op: Op, inputs: Sequence[Array | None]) -> list[Array]:
    training = optional(inputs, 2)
    if (training is not None and bool(training)) or (op.opset < 7 and not op.attribute("is_test", 0)):
        raise NotComputed("it is random")
    x = present(inputs[0])
    return [x, np.ones(x.shape, bool)]


def _random(op: Op, inputs: Sequence[Array | None]) -> list[Array]:
    raise NotComputed("it is random")


def _gemm(op: Op, inputs: Sequence[Array | None]) -> list[Array]:
    a, b, c = present(inputs[0]), present(inputs[1]), optional(inputs, 2)
    a = a.T if op.attribute("transA", 0) else a
    b = b.T if op.attribute("transB", 0) else b
    y = op.attribute("alpha", 1.0) * (a @ b)
    return [y if c is None else y + op.attribute("beta", 1.0) * c]


def _fused_matmul(op: Op, inputs: Sequence[Array | None]) -> list[Array]:
    """ONNX Runtime's MatMul with a factor and transposed operands."""
    a, b = present(inputs[0]), present(inputs[1])
    if op.attribute("transBatchA", 0) or op.attribute("transBatchB", 0):
        raise NotComputed("transposed batches")
    a = np.swapaxes(a, -1, -2) if op.attribute("transA", 0) else a
    b = np.swapaxes(b, -1, -2) if op.attribute("transB", 0) else b
    return [op.attribute("alpha", 1.0) * np.matmul(a, b)]


def _layer_normalization(op: Op, inputs: Sequence[Array | None]) -> list[Array]:
    x, scale, shift = present(inputs[0]), present(inputs[1]), optional(inputs, 2)
    axis = op.attribute("axis", -1) % x.ndim
    axes = tuple(range(axis, x.ndim))
    centred = x - x.mean(axis=axes, keepdims=True)
    y = centred / np.sqrt((centred**2).mean(axis=axes, keepdims=True) + epsilon(op)) * scale
    return [y if shift is None else y + shift]


def _rms_normalization(op: Op, inputs: Sequence[Array | None]) -> list[Array]:
    x, scale = present(inputs[0]), present(inputs[1])
    axes = tuple(range(op.attribute("axis", -1) % x.ndim, x.ndim))
    return [x / np.sqrt((x**2).mean(axis=axes, keepdims=True) + epsilon(op)) * scale]


def _group_normalization(op: Op, inputs: Sequence[Array | None]) -> list[Array]:
    x, scale, shift = (present(array) for array in inputs)
    groups = op.attribute("num_groups")
    parts = x.reshape(x.shape[0], groups, -1)
    centred = parts - parts.mean(axis=2, keepdims=True)
    variance = (centred**2).mean(axis=2, keepdims=True)
    y = (centred / np.sqrt(variance + epsilon(op))).reshape(x.shape)
    if op.opset < 21:  # one scale for each group
        scale, shift = (np.repeat(array, x.shape[1] // groups) for array in (scale, shift))
    return [y * channels(scale, x.ndim) + channels(shift, x.ndim)]


def _global_pool(reduce: Callable[..., Array]) -> Kernel:
    def pool(op: Op, inputs: Sequence[Array | None]) -> list[Array]:
        del op
        x = present(inputs[0])
        return [reduce(x, axis=tuple(range(2, x.ndim)), keepdims=True)]

    return pool


def _cast(op: Op, inputs: Sequence[Array | None]) -> list[Array]:
    return [cast(present(inputs[0]), op.attribute("to"))]


def _cast_like(op: Op, inputs: Sequence[Array | None]) -> list[Array]:
    del op
    x, like = present(inputs[0]), present(inputs[1])
    return [x.astype(like.dtype)]


def cast(array: Array, elem_type: int) -> Array:
    """To a type, where every floating-point type stands for the real numbers."""
    if elem_type == onnx.TensorProto.STRING or array.dtype.kind in "UO":
        raise NotComputed("Cast of strings")
    return array.astype(as_real(onnx.helper.tensor_dtype_to_np_dtype(elem_type)))


def _constant_of_shape(op: Op, inputs: Sequence[Array | None]) -> list[Array]:
    value = op.attribute("value")
    fill = np.zeros(1, np.float32) if value is None else onnx.numpy_helper.to_array(value)
    return [np.full(tuple(int(size) for size in present(inputs[0])), fill.reshape(-1)[0], as_real(fill.dtype))]


def _global_lp_pool(op: Op, inputs: Sequence[Array | None]) -> list[Array]:
    x, p = present(inputs[0]), op.attribute("p", 2)
    return [(np.abs(x) ** p).sum(axis=tuple(range(2, x.ndim)), keepdims=True) ** (1 / p)]


def _dequantize(op: Op, inputs: Sequence[Array | None]) -> list[Array]:
    """(x - zero point) * scale, along an axis if they are vectors"""
    x, scale, zero = quantized(op, inputs)
    return [(x.astype(np.float64) - zero) * scale]


def unrounded(op: Op, inputs: Sequence[Array | None]) -> list[Array]:
    """A QuantizeLinear that does not round: x / scale + zero point, within the range of its integer type."""
    x, scale, zero = quantized(op, inputs)
    zero_point = optional(inputs, 2)
    kind = op.attribute("output_dtype", 0) or onnx.TensorProto.UINT8
    dtype = onnx.helper.tensor_dtype_to_np_dtype(kind) if zero_point is None else zero_point.dtype
    if dtype.kind not in "iu":
        raise NotComputed(f"quantisation to {dtype.name}")
    limits = np.iinfo(dtype)
    return [np.clip(x / scale + zero, limits.min, limits.max)]


def quantized(op: Op, inputs: Sequence[Array | None]) -> tuple[Array, Array, Array]:
    """The value, the scale and the zero point of an operator, the latter two so that they broadcast."""
    x, scale, zero = present(inputs[0]), present(inputs[1]), optional(inputs, 2)
    if op.attribute("block_size", 0) or scale.ndim > 1:
        raise NotComputed("blocked quantisation")
    shape = [1] * x.ndim
    if scale.size > 1:
        shape[op.attribute("axis", 1)] = -1
    centre = np.zeros(()) if zero is None else zero.astype(np.float64)
    return (
        x,
        scale.reshape(shape if x.ndim else scale.shape),
        centre.reshape(shape if x.ndim and zero is not None else centre.shape),
    )


def _along_axis(function: Callable[[Array], Array]) -> Kernel:
    """Softmax and its relatives: along the last axis; before opset 13 over all axes from ``axis`` on at once."""

    def kernel(op: Op, inputs: Sequence[Array | None]) -> list[Array]:
        x = present(inputs[0])
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


def _elementwise(function: Callable[..., Array]) -> Kernel:
    """Of real numbers; integers have rules of their own."""

    def kernel(op: Op, inputs: Sequence[Array | None]) -> list[Array]:
        arrays = list(map(present, inputs))
        if op.opset < 7 or any(array.dtype != np.float64 for array in arrays):
            raise NotComputed("integers, or an axis along which it broadcasts")
        return [np.asarray(function(*arrays))]

    return kernel


def _transpose(op: Op, inputs: Sequence[Array | None]) -> list[Array]:
    return [np.transpose(present(inputs[0]), op.attribute("perm"))]


def _reshape(op: Op, inputs: Sequence[Array | None]) -> list[Array]:
    x = present(inputs[0])
    sizes = [int(size) for size in (op.attribute("shape") if len(inputs) == 1 else present(inputs[1]))]
    if not op.attribute("allowzero", 0):
        sizes = [x.shape[place] if size == 0 else size for place, size in enumerate(sizes)]
    return [x.reshape(sizes)]


KERNELS: dict[str, Kernel] = {
    **GAUSSIAN,
    "Softmax": _along_axis(_softmax),
    "LogSoftmax": _along_axis(_log_softmax),
    "Conv": windows.conv,
    "com.microsoft::FusedConv": windows.fused_conv,
    "com.microsoft::FusedMatMul": _fused_matmul,
    "ConvTranspose": windows.conv_transpose,
    "MaxPool": windows.max_pool,
    "AveragePool": windows.average_pool,
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
    "RMSNormalization": _rms_normalization,
    "SimplifiedLayerNormalization": _rms_normalization,
    "Cast": _cast,
    "CastLike": _cast_like,
    "ConstantOfShape": _constant_of_shape,
    "Add": _elementwise(np.add),
    "Sub": _elementwise(np.subtract),
    "Mul": _elementwise(np.multiply),
    "Div": _elementwise(np.divide),
    "Sigmoid": _elementwise(lambda x: 1 / (1 + np.exp(-x))),
    "Tanh": _elementwise(np.tanh),
    "Transpose": _transpose,
    "Reshape": _reshape,
    "Identity": lambda op, inputs: [present(inputs[0])],
    "Relu": lambda op, inputs: [np.maximum(present(inputs[0]), 0)],
    "MatMul": lambda op, inputs: [np.matmul(present(inputs[0]), present(inputs[1]))],
}
