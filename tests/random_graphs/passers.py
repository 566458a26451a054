"""Operators that an affine can pass: activations, pooling, reductions."""

from __future__ import annotations

from functools import partial
from math import prod

import numpy as np
from onnx import helper

from random_graphs.affines import numbers
from random_graphs.builder import Attributes, Builder, Tensor, Unfit
from random_graphs.constants import constant

# --- element by element --------------------------------------------------------------------------------------


def relu(b: Builder, x: Tensor) -> Tensor:
    return b.node("Relu", x)


def leaky_relu(b: Builder, x: Tensor) -> Tensor:
    return b.node("LeakyRelu", x, alpha=b.pick([0.1, 0.01, 2.0]))


def prelu(b: Builder, x: Tensor) -> Tensor:
    shape = b.pick([(1,), (), tuple(size if axis == x.axis else 1 for axis, size in enumerate(x.shape))[x.axis :]])
    return b.node("PRelu", x, constant(b, b.rng.uniform(-0.5, 0.9, shape), "slope"))


def clip(b: Builder, x: Tensor) -> Tensor:
    """Clip(0, none) is Relu, Clip(0, 6) is not."""
    low, high = b.pick([*[(0.0, None)] * 3, (0.0, 6.0), (-1.0, 1.0), (None, None), (None, 0.0)])
    if b.opset < 11:
        return b.node("Clip", x, min=low, max=high)
    bounds = [None if bound is None else constant(b, np.asarray(bound), "bound") for bound in (low, high)]
    return b.node("Clip", x, *bounds)


def neg(b: Builder, x: Tensor) -> Tensor:
    return b.node("Neg", x)


def abs_(b: Builder, x: Tensor) -> Tensor:
    return b.node("Abs", x)


def einsum_gate(b: Builder, x: Tensor) -> Tensor:
    """A product of computed values, summed over an axis or not."""
    if b.opset < 12 or not 3 <= x.rank <= 4:
        raise Unfit("no Einsum")
    labels = "nabc"[: x.rank]
    last = labels[-1] if x.axis != x.rank - 1 else labels[1]
    other = b.node("Sigmoid", x) if b.parent is not None or b.chance(0.3) else b.input(x.shape, "extra")
    result = labels if b.chance(0.5) else labels.replace(last, "")
    return b.node("Einsum", x, other, equation=f"{labels},{labels}->{result}", along=result.index(labels[x.axis]))


def identity(b: Builder, x: Tensor) -> Tensor:
    return b.node("Identity", x)


def same_type(b: Builder, x: Tensor) -> Tensor:
    """A Cast to the type that it has."""
    if b.opset >= 15 and b.chance(0.5):
        return b.node("CastLike", x, b.store(np.zeros(1, b.dtype)))
    return b.node("Cast", x, to=helper.np_dtype_to_tensor_dtype(b.dtype))


def dropout(b: Builder, x: Tensor) -> Tensor:
    """Inference mode in each of its forms; a mask may be there, unread."""
    outputs = b.pick([1, 1, 2])
    if b.opset < 12:
        made = b.multi("Dropout", [x], outputs, ratio=0.4)
        return _with_mask(b, x, *made)
    if b.chance(0.5):
        return b.multi("Dropout", [x], outputs, seed=3)[0].along(x.axis)
    ratio = b.store(np.asarray(0.3, np.float32))
    mode = [b.store(np.asarray(False))] if b.chance(0.5) else []
    return _with_mask(b, x, *b.multi("Dropout", [x, ratio, *mode], outputs))


def _with_mask(b: Builder, x: Tensor, y: Tensor, mask: Tensor | None = None) -> Tensor:
    if mask is None or b.opset < 10 or b.chance(0.8):
        return y.along(x.axis)
    return b.node("Mul", y, b.node("Cast", mask, to=helper.np_dtype_to_tensor_dtype(b.dtype)), along=x.axis)


def nonlinear(b: Builder, x: Tensor) -> Tensor:
    """Nothing passes this one."""
    return b.node(b.pick(["Sigmoid", "Tanh", "Softplus"]), x)


def cast_there_and_back(b: Builder, x: Tensor) -> Tensor:
    """Through float64: no value changes."""
    code = {"float16": 10, "float32": 1, "float64": 11}[b.dtype.name]
    return b.node("Cast", b.node("Cast", x, to=11), to=code)


def quantised_data(b: Builder, x: Tensor) -> Tensor:
    """The data itself is rounded to a grid: nothing passes."""
    if b.dtype != np.float32 or b.opset < 13:
        raise Unfit("no data of float32")
    step, zero = b.store(np.asarray(0.05, np.float32)), b.store(np.zeros((), np.int8))
    return b.node("DequantizeLinear", b.node("QuantizeLinear", x, step, zero), step, zero, along=x.axis)


# --- windows and planes --------------------------------------------------------------------------------------


def _window(b: Builder, x: Tensor) -> Attributes:
    if not 3 <= x.rank <= 5:
        raise Unfit("no plane")
    kernel = [min(b.pick([1, 2, 3]), size) for size in x.shape[2:]]
    attributes: Attributes = {"kernel_shape": kernel}
    if b.chance(0.4):
        attributes["strides"] = [b.pick([1, 2]) for _ in kernel]
    if b.chance(0.15):
        attributes["auto_pad"] = b.pick(["SAME_UPPER", "SAME_LOWER", "VALID"])
    elif b.chance(0.4):
        pads = [min(b.pick([0, 1]), size - 1) for size in kernel]
        attributes["pads"] = pads + pads
    if b.opset >= 10 and b.chance(0.2) and "auto_pad" not in attributes:
        attributes["ceil_mode"] = 1
    return attributes


def max_pool(b: Builder, x: Tensor) -> Tensor:
    attributes = _window(b, x)
    if b.opset >= 10 and b.chance(0.1) and "auto_pad" not in attributes:
        attributes["dilations"] = [2] * (x.rank - 2)
    return b.node("MaxPool", x, **attributes)


def extreme(b: Builder, x: Tensor) -> Tensor:
    """The larger or smaller of two values: of x and a constant, or of two chains."""
    op = b.pick(["Max", "Max", "Min"])
    if b.chance(0.4):
        return b.node(op, x, constant(b, np.asarray(b.pick([0.0, 0.5])), "bound"))
    other = b.node("Neg", x)
    return b.node(op, *((x, other) if b.chance(0.5) else (other, x)))


def average_pool(b: Builder, x: Tensor) -> Tensor:
    attributes = _window(b, x)
    if b.chance(0.4):
        attributes["count_include_pad"] = 1
    return b.node("AveragePool", x, **attributes)


def global_pool(b: Builder, x: Tensor) -> Tensor:
    if x.rank < 3:
        raise Unfit("no plane")
    op = b.pick(["GlobalAveragePool", "GlobalAveragePool", "GlobalMaxPool", "GlobalLpPool", "GlobalLpPool"])
    return b.node(op, x, **({"p": b.pick([1, 2])} if op == "GlobalLpPool" else {}))


def lp_pool(b: Builder, x: Tensor) -> Tensor:
    attributes = _window(b, x)
    if "ceil_mode" in attributes and b.opset < 18:
        del attributes["ceil_mode"]
    return b.node("LpPool", x, p=b.pick([1, 2, 3]), **attributes)


def reduce(b: Builder, x: Tensor, op: str) -> Tensor:
    """Mostly over other axes than the channels; the axes are an attribute or an input."""
    axes = [axis for axis in range(x.rank) if axis != x.axis and axis and b.chance(0.7)]
    if b.chance(0.1):
        axes = [x.axis]
    if not axes or x.rank < 3:
        raise Unfit("no axis")
    keepdims = b.pick([0, 1, 1, None])
    along = x.axis - (sum(axis < x.axis for axis in axes) if keepdims == 0 else 0)
    named = [axis - x.rank if b.chance(0.4) and b.opset >= 11 else axis for axis in axes]
    if b.opset >= 18 or (op == "ReduceSum" and b.opset >= 13):
        return b.node(op, x, b.integers(named), keepdims=keepdims, along=along)
    return b.node(op, x, axes=named, keepdims=keepdims, along=along)


# --- resampling ----------------------------------------------------------------------------------------------


def resize(b: Builder, x: Tensor) -> Tensor:
    """Twice as large, nearest or linear, in each opset's form."""
    if x.rank != 4:
        raise Unfit("no plane")
    scales = b.store(np.array([1, 1, *(b.pick([1.0, 2.0]) for _ in range(2))], np.float32))
    mode = b.pick(["nearest", "nearest", "linear"])
    if b.opset < 11:
        return b.node("Upsample" if b.opset == 9 else "Resize", x, scales, mode=mode)
    attributes: Attributes = {"mode": b.pick([mode, mode, "cubic"])}
    attributes["coordinate_transformation_mode"] = b.pick(["half_pixel", "asymmetric", "align_corners"])
    if attributes["mode"] == "cubic" and b.opset >= 18 and b.chance(0.3):
        attributes["antialias"] = 1
    if attributes["mode"] == "cubic" and b.chance(0.2):
        attributes["exclude_outside"] = 1
    if b.chance(0.1):  # the region may lie outside, where a constant is put
        attributes["coordinate_transformation_mode"] = "tf_crop_and_resize"
        attributes["extrapolation_value"] = 0.5
        region = b.store(np.array([0, 0, 0, 0, 1, 1, 1.2, 1.2], np.float32))
        return b.node("Resize", x, region, scales, **attributes)
    everywhere = b.store(np.zeros(0, np.float32)) if b.opset < 13 else None
    if b.chance(0.3):
        sizes = b.store(np.array([*x.shape[:2], x.shape[2] * 2, x.shape[3] + 1], np.int64))
        empty = b.store(np.zeros(0, np.float32)) if b.opset < 13 else None
        return b.node("Resize", x, everywhere, empty, sizes, **attributes)
    return b.node("Resize", x, everywhere, scales, **attributes)


def grid_sample(b: Builder, x: Tensor) -> Tensor:
    if b.opset < 16 or x.rank != 4:
        raise Unfit("no GridSample")
    linear = "linear" if b.opset >= 20 else "bilinear"
    grid = constant(b, b.rng.uniform(-1.2, 1.2, (x.shape[0], 2, 3, 2)), "grid")
    padding = b.pick(["zeros", "border", "reflection"])
    return b.node(
        "GridSample",
        x,
        grid,
        along=1,
        mode=b.pick([linear, "nearest"]),
        padding_mode=padding,
        align_corners=b.pick([0, 1]),
    )


def pad(b: Builder, x: Tensor) -> Tensor:
    mode = b.pick(["constant", "constant", "reflect", "edge"])
    if b.opset >= 19 and b.chance(0.2):
        mode = "wrap"
    spatial = [axis for axis in range(1, x.rank) if axis != x.axis]
    if not spatial or (mode == "reflect" and any(x.shape[axis] < 2 for axis in spatial)):
        raise Unfit("nothing to pad")
    amounts = [b.pick([0, 1]) if axis in spatial else 0 for axis in range(x.rank)] * 2
    if b.chance(0.05) and mode == "constant":
        amounts[x.axis] = 1  # more channels
    if b.opset < 11:
        return b.node("Pad", x, pads=amounts, mode=mode, value=b.pick([None, 0.0, 1.5]) if mode == "constant" else None)
    value = b.pick([None, 0.0, 1.5]) if mode == "constant" else None
    filler = [] if value is None else [constant(b, np.asarray(value), "filler")]
    if b.opset >= 18 and b.chance(0.3) and all(not amounts[axis] for axis in range(x.rank) if axis not in spatial):
        half = x.rank
        some = [amounts[axis] for axis in spatial] + [amounts[axis + half] for axis in spatial]
        return b.node("Pad", x, b.integers(some), filler[0] if filler else None, b.integers(spatial), mode=mode)
    return b.node("Pad", x, b.integers(amounts), *filler, mode=mode)


def lp_and_other_norms(b: Builder, x: Tensor) -> Tensor:
    """Operators without a rule."""
    if x.rank < 2 or prod(x.shape) < 4:
        raise Unfit("too small")
    return b.node(b.pick(["Softmax", "LpNormalization"]), x, axis=-1)


def random_addend(b: Builder, x: Tensor) -> Tensor:
    """Another input of the graph is added, or multiplied with."""
    if b.parent is not None or b.is_function:
        raise Unfit("no inputs here")
    shape = x.shape if b.chance(0.6) else tuple(size if axis == x.axis else 1 for axis, size in enumerate(x.shape))
    return b.node(b.pick(["Add", "Mul", "Sub"]), x, b.input(shape, "extra"))


def large_addend(b: Builder, x: Tensor) -> Tensor:
    """A constant of the data's full size."""
    return b.node("Add", x, constant(b, numbers(b, x.shape), "table"))


POINTWISE = [relu] * 5 + [extreme, einsum_gate, abs_, leaky_relu, prelu, clip, clip, neg, identity, dropout, same_type]
_REDUCES = ("ReduceMean", "ReduceSum", "ReduceMax", "ReduceMin", "ReduceL1", "ReduceL2")
POOLING = [max_pool] * 3 + [average_pool] * 3 + [global_pool] * 2 + [lp_pool]
POOLING += [partial(reduce, op=op) for op in _REDUCES]
RESAMPLING = [*POOLING, *[resize] * 3, grid_sample, grid_sample, *[pad] * 3]
BLOCKERS = [nonlinear, cast_there_and_back, lp_and_other_norms, random_addend, large_addend, quantised_data]
