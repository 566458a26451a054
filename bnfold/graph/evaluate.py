"""Operators that exporters put between a parameter and its reader, evaluated on constants.

Each function takes the op and the arrays of its inputs (None where omitted). Floating-point arrays come as
float64, so that a chain of arithmetic is not rounded on its way; Cast rounds because it says so.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import prod
from typing import Any

import ml_dtypes
import numpy as np
import numpy.typing as npt
import onnx

from bnfold.graph.facts import Array
from bnfold.graph.op import Op, Value
from bnfold.graph.quantization import is_integer
from bnfold.rounding import rounded

Evaluator = Callable[[Op, Sequence[Array]], Array]
MAX_ELEMENTS = 1 << 22  # of a constant, in a model that stores less: a few bytes can ask for 2**40 of them
_BROADCAST_IS_NUMPYS_FROM = 7
_AXES_ARE_AN_INPUT_FROM = 13
_TRAINING_MODE_IS_AN_ATTRIBUTE_FROM = 14
_IS_TEST_BELOW = 7
_DEFAULT_EPSILON = float(np.float32(1e-5))
_FLOATS = ("float16", "bfloat16", "float32", "float64")
_FLOATS8 = ("float8_e4m3fn", "float8_e4m3fnuz", "float8_e5m2", "float8_e5m2fnuz")


class NotEvaluated(Exception):
    """The op has a form that is not evaluated; the value then counts as computed."""


class TooLarge(NotEvaluated):
    """A constant that the model does not store, and that is larger than what it stores."""


def aligned(op: Op, left_rank: int, right: Array) -> Array:
    """The right operand of Add, Sub, Mul or Div as numpy would broadcast it.

    Before opset 7 a smaller right operand needs ``broadcast=1`` and may start at ``axis``.
    """
    if op.opset >= _BROADCAST_IS_NUMPYS_FROM or right.ndim == left_rank:
        return right
    axis = op.attribute("axis")
    if not op.attribute("broadcast", 0) or axis is None:
        return right
    axis = axis % left_rank if left_rank else 0
    return right.reshape(right.shape + (1,) * (left_rank - axis - right.ndim))


def axes_of(op: Op, arrays: Sequence[Array]) -> tuple[int, ...] | None:
    """The axes of Squeeze and Unsqueeze: an attribute before opset 13, an input from then on."""
    given = arrays[1] if len(arrays) > 1 else None
    axes = op.attribute("axes") if op.opset < _AXES_ARE_AN_INPUT_FROM else given
    return None if axes is None else tuple(int(axis) for axis in axes)


def reshaped(op: Op, data: Array, target: Sequence[int]) -> Array:
    """Reshape with ONNX's 0 (copy the dimension) and -1 (what is left)."""
    if not op.attribute("allowzero", 0):
        target = [data.shape[axis] if size == 0 else size for axis, size in enumerate(target)]
    return data.reshape([int(size) for size in target])


def _arithmetic(function: Callable[[Array, Array], Array]) -> Evaluator:
    def evaluate(op: Op, arrays: Sequence[Array]) -> Array:
        left, right = arrays[0], aligned(op, arrays[0].ndim, arrays[1])
        shape = np.broadcast_shapes(left.shape, right.shape)
        _bound(op, shape)
        left, right = (np.broadcast_to(array, shape) for array in (left, right))
        once = tuple(_once(abs(a) + abs(b)) for a, b in zip(left.strides, right.strides, strict=True))
        return np.broadcast_to(function(left[once], right[once]), shape)

    return evaluate


def _once(stride: int) -> slice:
    """All of an axis, or one index of it where all hold the same numbers in memory."""
    return slice(None) if stride else slice(0, 1)


def converted(array: Array, dtype: npt.DTypeLike) -> Array:
    """In another type; what only broadcasts is not made in full, and then it cannot be written to."""
    core = array[tuple(map(_once, array.strides))]
    made = core.astype(dtype)
    return made if core.shape == array.shape else np.broadcast_to(made, array.shape)


def _divide(left: Array, right: Array) -> Array:
    if np.issubdtype(right.dtype, np.integer):
        if (left < 0).any() or (right <= 0).any():
            raise NotEvaluated
        return np.asarray(left // right)
    return np.asarray(left / right)


def is_training(op: Op) -> bool:
    """Whether a BatchNormalization normalises with the statistics of the batch that it is given."""
    if op.opset >= _TRAINING_MODE_IS_AN_ATTRIBUTE_FROM:
        return bool(op.attribute("training_mode", 0))
    if op.opset < _IS_TEST_BELOW:
        return not op.attribute("is_test", 0)
    return len([value for value in op.outputs if value is not None]) > 1


def inputs_read(op: Op) -> Sequence[Value | None]:
    """The inputs that an operator computes with."""
    return op.inputs[:3] if op.type == "BatchNormalization" and is_training(op) else op.inputs


def _batch_normalization(op: Op, arrays: Sequence[Array]) -> Array:
    """With the statistics that are given; in training mode with those of the constant, as a weight is standardised."""
    x, *vectors = arrays
    if x.ndim < 2 or any(vector.shape != x.shape[1:2] for vector in vectors):
        raise NotEvaluated
    gamma, beta, *given = (vector.reshape(-1, *[1] * (x.ndim - 2)) for vector in vectors)
    if not (given or x.size):  # which has no mean
        raise NotEvaluated
    axes = (0, *range(2, x.ndim))
    shape, x = x.shape, x[tuple(map(_once, x.strides))]  # what is repeated changes no mean
    mean, variance = given or (x.mean(axes, keepdims=True), x.var(axes, keepdims=True))
    made = gamma * (x - mean) / np.sqrt(variance + op.attribute("epsilon", _DEFAULT_EPSILON)) + beta
    return np.broadcast_to(np.asarray(made, x.dtype), shape)  # scale and statistics may be of other types


def _mod(op: Op, arrays: Sequence[Array]) -> Array:
    """Of integers alone: the last bit of a float decides whether a multiple is left."""
    if not all(is_integer(array.dtype) for array in arrays) or not arrays[1].all():
        raise NotEvaluated
    return _arithmetic(np.fmod if op.attribute("fmod", 0) else np.mod)(op, arrays)


def _cast(op: Op, arrays: Sequence[Array]) -> Array:
    to = op.attribute("to")
    if not isinstance(to, int):  # before opset 6 a name
        raise NotEvaluated
    return cast(arrays[0], np.dtype(onnx.helper.tensor_dtype_to_np_dtype(to)), saturates=saturates(op))


def saturates(op: Op) -> bool:
    """Whether a Cast or CastLike to float8 cuts what is out of range."""
    return bool(op.attribute("saturate", 1))


def cast(array: Array, target: np.dtype[Any], *, saturates: bool) -> Array:
    """What Cast makes of numbers, rounded once. Real ones may come in float64, whatever their type.

    Raises:
        NotEvaluated: Runtimes differ, or ONNX leaves it open: a real number is cut to an integer (0.7 * 10 is 7 in
            float32 and less in float64), a float8 overflows and does not saturate, the type is a rare one.
    """
    is_whole = is_integer(array.dtype) or array.dtype.kind == "b"
    if is_integer(target) or target.kind == "b":
        if not is_whole:
            raise NotEvaluated
        wide = array.astype(np.int64) if array.dtype.kind == "V" else array  # numpy has no way from int4 to uint4
        return wide.astype(target)
    if target.name not in (*_FLOATS, *_FLOATS8) or array.dtype.kind in "cOSU":
        raise NotEvaluated
    exact = array.astype(np.float64, copy=False)
    if target.name in _FLOATS8:
        largest = float(ml_dtypes.finfo(target).max)  # type: ignore[no-untyped-call]  # it ships no types for this
        if not saturates and (np.abs(exact) > largest).any():
            raise NotEvaluated
        exact = np.clip(exact, -largest, largest)
    elif is_whole and target.kind == "f":
        return array.astype(target)
    return rounded(exact, target)


def _reshape(op: Op, arrays: Sequence[Array]) -> Array:
    return reshaped(op, arrays[0], arrays[1].tolist() if len(arrays) > 1 else op.attribute("shape"))


def _transpose(op: Op, arrays: Sequence[Array]) -> Array:
    return arrays[0].transpose(op.attribute("perm"))


def _unsqueeze(op: Op, arrays: Sequence[Array]) -> Array:
    return np.expand_dims(arrays[0], axes_of(op, arrays) or ())


def _squeeze(op: Op, arrays: Sequence[Array]) -> Array:
    return np.squeeze(arrays[0], axes_of(op, arrays))


def _flatten(op: Op, arrays: Sequence[Array]) -> Array:
    shape, axis = arrays[0].shape, op.attribute("axis", 1)
    axis = axis % len(shape) if axis < 0 else axis
    return arrays[0].reshape(int(np.prod(shape[:axis])), -1)


def _expand(op: Op, arrays: Sequence[Array]) -> Array:
    data, target = arrays
    shape = np.broadcast_shapes(data.shape, tuple(int(size) for size in target))
    _bound(op, shape)
    return np.broadcast_to(data, shape)


def _constant_of_shape(op: Op, arrays: Sequence[Array]) -> Array:
    value = op.attribute("value")
    fill = np.zeros(1, np.float32) if value is None else onnx.numpy_helper.to_array(value)
    shape = tuple(int(size) for size in arrays[0])
    _bound(op, shape)
    return np.broadcast_to(fill, shape)


def _concat(op: Op, arrays: Sequence[Array]) -> Array:
    _bound(op, [sum(array.size for array in arrays)])
    return np.concatenate(arrays, axis=op.attribute("axis", 1))


def _gather(op: Op, arrays: Sequence[Array]) -> Array:
    data, indices, axis = arrays[0], arrays[1].astype(np.int64), op.attribute("axis", 0)
    _bound(op, [indices.size, *data.shape[:axis], *data.shape[axis:][1:]])
    return np.take(data, indices, axis=axis)


def _slice(op: Op, arrays: Sequence[Array]) -> Array:
    if len(arrays) < 3:  # before opset 10 the borders are attributes
        raise NotEvaluated
    starts, ends = arrays[1], arrays[2]
    axes = arrays[3] if len(arrays) > 3 else np.arange(len(starts))
    steps = arrays[4] if len(arrays) > 4 else np.ones(len(starts), np.int64)
    index: list[slice] = [slice(None)] * arrays[0].ndim
    for start, end, axis, step in zip(starts, ends, axes, steps, strict=True):
        index[axis] = slice(int(start), int(end), int(step))
    return arrays[0][tuple(index)]


def _bound(op: Op, shape: Sequence[int]) -> None:
    if prod(shape) > op.graph.most_elements:
        raise TooLarge


EVALUATORS: dict[str, Evaluator] = {
    "Identity": lambda op, arrays: arrays[0],
    "Cast": _cast,
    "CastLike": lambda op, arrays: cast(arrays[0], arrays[1].dtype, saturates=saturates(op)),
    "Reshape": _reshape,
    "Transpose": _transpose,
    "Unsqueeze": _unsqueeze,
    "Squeeze": _squeeze,
    "Flatten": _flatten,
    "Expand": _expand,
    "ConstantOfShape": _constant_of_shape,
    "Concat": _concat,
    "Gather": _gather,
    "Slice": _slice,
    "Add": _arithmetic(np.add),
    "Sub": _arithmetic(np.subtract),
    "Mul": _arithmetic(np.multiply),
    "Div": _arithmetic(_divide),
    "BatchNormalization": _batch_normalization,
    "Mod": _mod,
    "Pow": _arithmetic(lambda left, right: np.power(left, right).astype(left.dtype)),
    "Sqrt": lambda op, arrays: np.sqrt(arrays[0]),
    "Reciprocal": lambda op, arrays: np.reciprocal(arrays[0]),
    "Neg": lambda op, arrays: np.negative(arrays[0]),
}
