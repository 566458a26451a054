"""Constants: plain, shared, captured from an outer scope, passed to a function, or in disguise."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from onnx import helper, numpy_helper

from random_graphs.builder import Array, Attributes, Builder, Tensor, Unfit

# which kinds of constant may be one and the same
_ADDENDS = ["bias", "beta", "mean", "addend", "mean_"]
_ALIKE = dict.fromkeys(_ADDENDS, _ADDENDS) | {"gamma": ["gamma", "var"], "factor": ["factor", "var", "std"]}
_ALIKE |= {kind: ["var", "std"] for kind in ("var", "std")}

_CAST = {"float16": 10, "float32": 1, "float64": 11}


def constant(b: Builder, array: Array, kind: str) -> Tensor:
    """A constant of the model's type that holds ``array``; or an earlier one of the same kind and shape."""
    array = np.asarray(array, b.dtype)
    key = (kind, array.shape)
    if b.chance(0.12) and (known := b.shared.get((b.pick(_ALIKE.get(kind, [kind])), array.shape))):
        return known
    if kind == "weight" and array.ndim == 2 and b.chance(0.1) and (known := b.shared.get((kind, array.shape[::-1]))):
        turned = b.node("Transpose", known, perm=[1, 0])  # tied weights
        del b.tensors[-1]
        assert known.value is not None
        return Tensor(turned.name, turned.shape, turned.dtype, value=known.value.T)
    made = _placed(b, array, kind)
    b.shared[key] = made
    return made


def _placed(b: Builder, array: Array, kind: str) -> Tensor:
    if b.is_plain:
        return b.store(array, kind)
    if b.parent is not None and b.chance(0.5):
        outer = constant(b.parent, array, kind)
        if not b.is_function:
            return outer
        assert outer.value is not None
        inner = Tensor(b.name(kind), outer.shape, outer.dtype, value=outer.value)
        b.inputs.append(inner)
        b.passed.append(outer)
        return inner
    if b.chance(0.65):
        return b.store(array, kind)
    computed = len(b.tensors)
    try:
        with b.rollback():
            made = b.pick(_DISGUISES)(b, array, kind)
    except Unfit:
        return b.store(array, kind)
    del b.tensors[computed:]  # they are no data to go on from
    return Tensor(made.name, made.shape, made.dtype, value=array)


def _constant_node(b: Builder, array: Array, kind: str) -> Tensor:
    return b.constant_node(array, kind)


def _identity(b: Builder, array: Array, kind: str) -> Tensor:
    return b.node("Identity", b.store(array, kind))


def _cast(b: Builder, array: Array, kind: str) -> Tensor:
    """From a type that holds the values exactly."""
    for name in ("float16", "float32", "float64"):
        if name != b.dtype.name and (array.astype(name).astype(b.dtype) == array).all():
            return b.node("Cast", b.store(array.astype(name), kind), to=_CAST[b.dtype.name])
    raise Unfit("no other type holds it")


def _reshape(b: Builder, array: Array, kind: str) -> Tensor:
    return b.node("Reshape", b.store(array.reshape(-1), kind), b.integers(array.shape))


def _transpose(b: Builder, array: Array, kind: str) -> Tensor:
    if not array.ndim:
        raise Unfit("a scalar")
    perm = b.rng.permutation(array.ndim).tolist()
    return b.node("Transpose", b.store(np.ascontiguousarray(array.transpose(np.argsort(perm))), kind), perm=perm)


def _unsqueeze(b: Builder, array: Array, kind: str) -> Tensor:
    axes = [axis for axis, size in enumerate(array.shape) if size == 1]
    if not axes:
        stored = b.store(array[None], kind)
        return (
            b.node("Squeeze", stored, **_axes(b, [0])) if b.opset < 13 else b.node("Squeeze", stored, b.integers([0]))
        )
    stored = b.store(array.reshape([size for size in array.shape if size != 1]), kind)
    return (
        b.node("Unsqueeze", stored, **_axes(b, axes)) if b.opset < 13 else b.node("Unsqueeze", stored, b.integers(axes))
    )


def _axes(b: Builder, axes: list[int]) -> Attributes:
    return {"axes": axes}


def _uniform(array: Array) -> Array:
    if array.size and (array == array.flat[0]).all():
        return np.asarray(array.flat[0])
    raise Unfit("its values differ")


def _expand(b: Builder, array: Array, kind: str) -> Tensor:
    return b.node("Expand", b.store(_uniform(array), kind), b.integers(array.shape))


def _expand_cast_like(b: Builder, array: Array, kind: str) -> Tensor:
    """What torch writes with ``optimize=False``: the type of the data, the shape of another tensor."""
    if b.opset < 15 or b.is_function or not b.tensors or b.dtype != b.tensors[0].dtype:
        raise Unfit("no CastLike")
    value = _uniform(array)
    if np.float32(value) != value:
        raise Unfit("not exact")
    like = b.node("CastLike", b.constant_node(np.asarray(value, np.float32)), b.tensors[0])
    shape = b.node("Shape", b.store(np.zeros(array.shape, b.dtype), kind))
    return b.node(
        "Expand", replace_value(like, value.astype(b.dtype)), replace_value(shape, np.array(array.shape, np.int64))
    )


def replace_value(tensor: Tensor, value: Array) -> Tensor:
    """Tells the shape inference what a value holds."""
    return Tensor(tensor.name, tensor.shape, tensor.dtype, value=value)


def _constant_of_shape(b: Builder, array: Array, kind: str) -> Tensor:
    value = numpy_helper.from_array(_uniform(array).reshape(1))
    return b.node("ConstantOfShape", b.integers(array.shape), value=value)


def _concat(b: Builder, array: Array, kind: str) -> Tensor:
    if not array.ndim or array.shape[0] < 2:
        raise Unfit("nothing to cut")
    cut = b.integer(1, array.shape[0] - 1)
    return b.node("Concat", b.store(array[:cut], kind), b.store(array[cut:], kind), axis=0)


def _arithmetic(b: Builder, array: Array, kind: str) -> Tensor:
    """Sums and products that come out exactly: powers of two."""
    factor = np.asarray(b.pick([0.25, 0.5, 2.0, 4.0]), b.dtype)
    op = b.pick(["Mul", "Div"])
    stored = b.store(array / factor if op == "Mul" else array * factor, kind)
    return b.node(op, stored, b.store(factor))


def _negated(b: Builder, array: Array, kind: str) -> Tensor:
    return b.node("Neg", b.store(-array, kind))


def _slice(b: Builder, array: Array, kind: str) -> Tensor:
    if not array.ndim or b.opset < 10:
        raise Unfit("no Slice")
    padded = b.store(np.concatenate([np.full_like(array[:1], 9), array]), kind)
    return b.node("Slice", padded, b.integers([1]), b.integers([array.shape[0] + 1]), b.integers([0]))


def _gather(b: Builder, array: Array, kind: str) -> Tensor:
    if not array.ndim:
        raise Unfit("a scalar")
    order = b.rng.permutation(array.shape[0])
    return b.node("Gather", b.store(array[np.argsort(order)], kind), b.integers(order), axis=0)


def _sparse(b: Builder, array: Array, kind: str) -> Tensor:
    """A sparse initializer (main graph only; runtimes read them, the reference implementation does not)."""
    if b.parent is not None or b.is_function or b.world.ir < 6 or array.ndim == 0 or b.chance(0.8):
        raise Unfit("no sparse initializers")
    flat = array.reshape(-1)
    where = np.flatnonzero(flat)
    values = numpy_helper.from_array(flat[where], b.name(kind))
    indices = numpy_helper.from_array(where.astype(np.int64), b.name(kind))
    b.sparse.append(helper.make_sparse_tensor(values, indices, list(array.shape)))
    return Tensor(values.name, array.shape, array.dtype, value=array)


_DISGUISES: list[Callable[[Builder, Array, str], Tensor]] = [
    _constant_node,
    _constant_node,
    _identity,
    _cast,
    _reshape,
    _transpose,
    _unsqueeze,
    _expand,
    _expand_cast_like,
    _constant_of_shape,
    _concat,
    _arithmetic,
    _negated,
    _slice,
    _gather,
]
