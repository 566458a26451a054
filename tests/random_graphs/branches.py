"""Where a graph forks and joins: residuals, Concats, Splits, gates, multi-branch sums, several readers."""

from __future__ import annotations

import numpy as np

from random_graphs.absorbers import (
    ABSORBERS,
    NORMS,
    SINCE,
    conv,
    einsum,
    gemm,
    group_norm,
    instance_norm,
    layer_norm,
    matmul,
    same_size_conv,
)
from random_graphs.affines import AFFINES, arithmetic, batchnorm, scales, uniform
from random_graphs.builder import Builder, Tensor, Unfit
from random_graphs.constants import constant
from random_graphs.layout import LAYOUT, depth_to_space, space_to_depth
from random_graphs.passers import POINTWISE, RESAMPLING, global_pool, relu

KEEPING = [arithmetic] * 3 + [batchnorm] * 3 + POINTWISE[:6]


def sandwich(b: Builder, x: Tensor) -> Tensor:
    """Something to pass between an affine and what may take it in, above or below."""
    between = [*POINTWISE, *RESAMPLING, *RESAMPLING, *LAYOUT]
    upwards = b.chance(0.5)
    if upwards and not b.chance(0.1):
        x = b.first_fit(ABSORBERS, x)
    elif not upwards:
        x = b.first_fit(AFFINES, x)
    for _ in range(b.pick([1, 1, 2, 3, 4])):
        x = b.first_fit(between, x)
    return b.first_fit(AFFINES if upwards else ABSORBERS, x)


_NAMED = list(dict.fromkeys([*POINTWISE, *RESAMPLING, *LAYOUT, *ABSORBERS]))


def focused(b: Builder, x: Tensor) -> Tensor:
    """One operator alone between the two, so that each has its turn; the seed says which."""
    motif = _NAMED[b.world.seed % len(_NAMED)]
    upwards = b.chance(0.5)
    b.opset = b.world.opset = max(b.opset, SINCE.get(getattr(motif, "__name__", ""), 0))
    wants_one_number = motif in (*NORMS, depth_to_space, space_to_depth) and b.chance(0.5)
    affines = [uniform] if wants_one_number else AFFINES
    if motif in ABSORBERS:
        return b.first_fit(affines, motif(b, x)) if upwards else motif(b, b.first_fit(affines, x))
    first, last = (ABSORBERS, affines) if upwards else (affines, ABSORBERS)
    return b.first_fit(last, motif(b, b.first_fit(first, x)))


def keeping(b: Builder, x: Tensor, length: int = 0) -> Tensor:
    """A chain that keeps the shape."""
    y = x
    for _ in range(length or b.integer(1, 3)):
        made = b.first_fit([*KEEPING, _same_size], y)
        y = made if made.shape == x.shape else y
    return y


def _same_size(b: Builder, x: Tensor) -> Tensor:
    """An operator with weights whose result has the shape of its input."""
    made = b.first_fit([same_conv, same_conv, instance_norm, group_norm, layer_norm, gemm, matmul, einsum], x)
    if made.shape != x.shape:
        raise Unfit("another shape")
    return made


def same_conv(b: Builder, x: Tensor) -> Tensor:
    """A Conv whose result has the shape of its input."""
    if x.axis != 1:
        raise Unfit("the channels are elsewhere")
    return conv(b, x, keeps=True, out=x.channels)


def residual(b: Builder, x: Tensor) -> Tensor:
    """X + f(x), often with an affine behind it."""
    other = x if b.chance(0.5) else keeping(b, x)
    branch = keeping(b, x)
    if branch is other:
        raise Unfit("no branch")
    y = b.node(b.pick(["Add", "Add", "Add", "Sub"]), *((branch, other) if b.chance(0.5) else (other, branch)))
    return b.first_fit(AFFINES, y) if b.chance(0.5) else y


def two_convs(b: Builder, x: Tensor) -> Tensor:
    """Two operators with weights whose results are added, with an affine behind or before."""
    if b.chance(0.5):
        x = b.first_fit(AFFINES, x)
    first = b.first_fit(ABSORBERS, x)
    second = b.first_fit(ABSORBERS, x, tries=20)
    if first.shape != second.shape:
        raise Unfit("they differ")
    y = b.node(b.pick(["Add", "Sub", "Sum"]), first, second)
    return b.first_fit(AFFINES, y) if b.chance(0.7) else y


def multi_branch(b: Builder, x: Tensor) -> Tensor:
    """The training form of RepVGG or MobileOne: k×k, 1×1 and identity, each with its BatchNormalization."""
    if x.rank not in (3, 4, 5) or x.axis != 1:
        raise Unfit("no image")
    branches = [_plain_branch(b, x, kernel) for kernel in ([3, 1, 3, 5][: b.integer(1, 3)])]
    if b.chance(0.7):
        branches.append(batchnorm(b, x, friendly=False) if b.chance(0.7) else x)
    if len(branches) == 1:
        branches.append(b.first_fit([arithmetic, batchnorm], x))
    order = b.rng.permutation(len(branches))
    if len(branches) > 2 and b.chance(0.3):
        total = b.node("Sum", *(branches[index] for index in order))
    else:
        total = branches[order[0]]
        for index in order[1:]:
            total = b.node("Add", *((total, branches[index]) if b.chance(0.7) else (branches[index], total)))
    total = batchnorm(b, total) if b.chance(0.3) else total
    return relu(b, total) if b.chance(0.6) else total


def _plain_branch(b: Builder, x: Tensor, kernel: int) -> Tensor:
    y = same_size_conv(b, x, kernel)
    return batchnorm(b, y, friendly=False) if b.chance(0.7) else y


def concat(b: Builder, x: Tensor) -> Tensor:
    """Several branches side by side, along the channels or not, and something behind."""
    axis = x.axis if b.chance(0.8) else b.integer(0, x.rank - 1)
    parts = [_part(b, x, axis) for _ in range(b.integer(2, 3))]
    if b.chance(0.1):
        shape = tuple(2 if other == axis else size for other, size in enumerate(x.shape))
        parts.append(constant(b, b.rng.normal(size=shape), "side"))
    if all(part.value is not None for part in parts):
        raise Unfit("only constants")
    named = axis - x.rank if b.chance(0.3) and b.opset >= 11 else axis
    y = b.node("Concat", *parts, axis=named, along=x.axis)
    for _ in range(b.integer(0, 2)):
        y = b.first_fit([*AFFINES, *POINTWISE], y)
    return y


def _part(b: Builder, x: Tensor, axis: int) -> Tensor:
    if b.chance(0.2):
        return x
    made = b.first_fit([keeping, _wide_conv] if x.rank > 2 and axis == 1 == x.axis else [keeping], x)
    return b.first_fit([arithmetic, batchnorm], made) if b.chance(0.4) else made


def _wide_conv(b: Builder, x: Tensor) -> Tensor:
    return conv(b, x, keeps=True, out=b.integer(1, 5))


def split(b: Builder, x: Tensor) -> Tensor:
    """An affine, a Split, something for each part, and a join; not every part need be used."""
    axis = x.axis if b.chance(0.8) else b.integer(0, x.rank - 1)
    size = x.shape[axis]
    if size < 2:
        raise Unfit("one channel")
    if b.chance(0.7):
        x = b.first_fit([arithmetic, batchnorm], x)
    if size > 2 and b.opset >= 18 and b.chance(0.15):
        return _thirds(b, x, axis)
    if size % 2 == 0 and b.chance(0.5):
        sizes = [size // 2, size // 2]
    else:
        cut = b.integer(1, size - 1)
        sizes = [cut, size - cut]
    parts = [part.along(x.axis) for part in _split(b, x, axis, sizes)]
    if b.chance(0.15):
        return b.first_fit(ABSORBERS, parts[0])
    done = [keeping(b, part) if b.chance(0.8) else part for part in parts]
    order = b.rng.permutation(2)
    if sizes[0] == sizes[1] and b.chance(0.3):
        return b.node("Add", *done)
    return b.node("Concat", *(done[index] for index in order), axis=axis, along=x.axis)


def _thirds(b: Builder, x: Tensor, axis: int) -> Tensor:
    """Three parts, of which the last may be smaller; one of them may be forgotten."""
    if x.shape[axis] in (4,):  # 2, 2 and nothing
        raise Unfit("an empty part")
    parts = [part.along(x.axis) for part in b.multi("Split", [x], 3, axis=axis, num_outputs=3)]
    done = [keeping(b, part) for part in parts[: b.integer(2, 3)]]
    return b.node("Concat", *done, axis=axis, along=x.axis)


def _split(b: Builder, x: Tensor, axis: int, sizes: list[int]) -> list[Tensor]:
    named = axis - x.rank if b.chance(0.2) and b.opset >= 11 else axis
    if b.opset < 13:
        return b.multi("Split", [x], 2, axis=named, split=sizes)
    if sizes[0] == sizes[1] and b.chance(0.5):
        count = {"num_outputs": 2} if b.opset >= 18 else {}
        return b.multi("Split", [x], 2, axis=named, **count)
    return b.multi("Split", [x, b.integers(sizes)], 2, axis=named)


def gate(b: Builder, x: Tensor) -> Tensor:
    """Squeeze and excitation, or x · sigmoid(f(x)), with affines around."""
    squeezed = global_pool(b, x) if x.rank > 2 and x.axis == 1 and b.chance(0.6) else x
    weights = squeezed
    if weights.rank > 2 and weights.axis == 1:
        weights = conv(b, weights, keeps=True, out=x.channels, kernel=[1] * (x.rank - 2))
        weights = b.first_fit([arithmetic, batchnorm, relu], weights)
    weights = b.node(b.pick(["Sigmoid", "Sigmoid", "Relu"]), weights)
    y = b.node("Mul", *((x, weights) if b.chance(0.5) else (weights, x)))
    return b.first_fit(AFFINES, y) if b.chance(0.5) else y


def several_readers(b: Builder, x: Tensor) -> Tensor:
    """An affine that two or three operators read; their results are outputs or joined."""
    y = b.first_fit(AFFINES, x)
    if b.chance(0.4):
        y = b.first_fit(POINTWISE, y)
    ends = [b.first_fit(ABSORBERS if b.chance(0.8) else POINTWISE, y) for _ in range(b.integer(2, 3))]
    if b.chance(0.4) and b.parent is None:
        b.outputs.append(ends[0])
    if b.chance(0.3):
        b.node("Shape", y)
    return ends[-1]


def layer_scale(b: Builder, x: Tensor) -> Tensor:
    """X + gamma · f(x)"""
    branch = keeping(b, x)
    shape = tuple(size if axis == x.axis else 1 for axis, size in enumerate(x.shape))
    scaled = b.node("Mul", branch, constant(b, scales(b, shape, friendly=True) * 0.1, "gamma_"))
    return b.node("Add", x, scaled)


def self_sum(b: Builder, x: Tensor) -> Tensor:
    """The same value twice: y + y, y · y, Concat(y, y)."""
    y = b.first_fit([*ABSORBERS, *AFFINES], x)
    if b.chance(0.6):
        y = b.first_fit(AFFINES, y)
    op = b.pick(["Add", "Mul", "Concat", "Sub"])
    if op == "Sub":
        return b.node("Sub", y, b.node("Relu", y))
    return b.node(op, y, y, axis=y.axis) if op == "Concat" else b.node(op, y, y)


def weight_as_data(b: Builder, x: Tensor) -> Tensor:
    """A weight that is computed from the data: nothing may be folded into or through it."""
    if x.rank != 4 or x.axis != 1:
        raise Unfit("no image")
    c = x.channels
    pooled = (
        b.node("ReduceMean", x, b.integers([0, 2, 3]), keepdims=1)
        if b.opset >= 18
        else b.node("ReduceMean", x, axes=[0, 2, 3], keepdims=1)
    )
    scaled = b.first_fit([arithmetic, batchnorm], pooled)
    kernel = b.node("Transpose", scaled, perm=[1, 0, 2, 3]) if b.chance(0.5) else scaled
    attributes = {"group": c} if kernel.shape[0] == c else {}
    source = b.first_fit([batchnorm, arithmetic, relu], x)
    bias = [b.store(np.asarray(b.rng.normal(size=kernel.shape[0]), b.dtype))] if b.chance(0.4) else []
    return b.node("Conv", source, kernel, *bias, along=1, **attributes)


BRANCHES = (
    [sandwich] * 8
    + [residual] * 3
    + [concat] * 3
    + [split] * 3
    + [multi_branch] * 3
    + [several_readers] * 3
    + [two_convs] * 2
)
BRANCHES += [gate, gate, layer_scale, self_sum, weight_as_data]
