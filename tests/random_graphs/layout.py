"""Operators that only move values: where the channels go is followed on the way."""

from __future__ import annotations

from math import prod

import numpy as np

from random_graphs.builder import Builder, Tensor, Unfit


def transpose(b: Builder, x: Tensor) -> Tensor:
    if x.rank < 2:
        raise Unfit("a vector")
    perm = (
        [0, *(axis + 1 for axis in b.rng.permutation(x.rank - 1).tolist())]
        if b.chance(0.8)
        else b.rng.permutation(x.rank).tolist()
    )
    if b.chance(0.1):
        return b.node("Transpose", x, along=x.rank - 1 - x.axis)
    return b.node("Transpose", x, perm=perm, along=perm.index(x.axis))


def channels_first(b: Builder, x: Tensor) -> Tensor:
    """What brings the channels back to axis 1."""
    if x.axis == 1 or x.rank < 2:
        return x
    rest = [axis for axis in range(x.rank) if axis != x.axis]
    perm = [rest[0], x.axis, *rest[1:]]
    return b.node("Transpose", x, perm=perm, along=1)


def unsqueeze(b: Builder, x: Tensor) -> Tensor:
    if x.rank > 4:
        raise Unfit("many axes already")
    axis = b.integer(0, x.rank)
    named = axis - x.rank - 1 if b.chance(0.4) and b.opset >= 11 else axis
    along = x.axis + (axis <= x.axis)
    return with_axes(b, "Unsqueeze", x, [named], along)


def squeeze(b: Builder, x: Tensor) -> Tensor:
    ones = [axis for axis, size in enumerate(x.shape) if size == 1 and axis != x.axis]
    if not ones or x.rank < 3:
        raise Unfit("nothing to squeeze")
    if b.chance(0.1) and x.channels > 1 and all(size > 1 or axis in ones for axis, size in enumerate(x.shape)):
        return b.node("Squeeze", x, along=x.axis - sum(axis < x.axis for axis in ones))
    ones = [axis for axis in ones if b.chance(0.8)] or ones[:1]
    along = x.axis - sum(axis < x.axis for axis in ones)
    named = [axis - x.rank if b.chance(0.4) and b.opset >= 11 else axis for axis in ones]
    return with_axes(b, "Squeeze", x, named, along)


def with_axes(b: Builder, op: str, x: Tensor, axes: list[int], along: int) -> Tensor:
    if b.opset < 13:
        return b.node(op, x, axes=axes, along=along)
    return b.node(op, x, b.integers(axes), along=along)


def flatten(b: Builder, x: Tensor) -> Tensor:
    axis = b.pick([1, 1, 1, None, 0, 2, -1])
    if axis is not None and (not -x.rank <= axis <= x.rank or (axis < 0 and b.opset < 11)):
        raise Unfit("no such axis")
    first = 1 if axis is None else axis % x.rank if axis < 0 else axis
    return b.node("Flatten", x, axis=axis, along=int(x.axis >= first))


def reshape(b: Builder, x: Tensor) -> Tensor:
    """Channels split, merged with neighbours, kept; zeros and -1 as exporters write them."""
    sizes: list[int] = list(x.shape)
    kind = b.pick(["split", "split", "merge", "merge", "same", "drop", "odd"])
    along = x.axis
    if kind == "split":
        factors = [factor for factor in (2, 3) if x.channels % factor == 0 and x.channels > factor]
        if not factors or x.rank > 4:
            raise Unfit("no factor")
        factor = b.pick(factors)
        sizes[x.axis : x.axis + 1] = b.pick([[factor, x.channels // factor], [x.channels // factor, factor]])
        along = x.axis + b.integer(0, 1)
    elif kind == "merge":
        if x.rank < 3:
            raise Unfit("nothing to merge")
        start = b.integer(0 if b.chance(0.2) else 1, x.rank - 2)
        sizes[start : start + 2] = [sizes[start] * sizes[start + 1]]
        along = x.axis - (x.axis > start)
    elif kind == "drop":
        sizes = [size for axis, size in enumerate(sizes) if size != 1 or axis in (0, x.axis)]
        along = len([size for axis, size in enumerate(x.shape[: x.axis]) if size != 1 or axis == 0])
    elif kind == "odd":
        total = prod(x.shape)
        divisors = [size for size in (2, 3, 4, 6) if total % size == 0]
        if not divisors:
            raise Unfit("no divisor")
        first = b.pick(divisors)
        sizes, along = [first, total // first], 1
    return b.node("Reshape", x, b.integers(_spelled(b, sizes, x)), along=along)


def _spelled(b: Builder, sizes: list[int], x: Tensor) -> list[int]:
    spelled = [
        0 if axis < x.rank and size == x.shape[axis] and b.chance(0.4) else size for axis, size in enumerate(sizes)
    ]
    if b.chance(0.5):
        spelled[b.integer(0, len(spelled) - 1)] = -1
    return spelled


def computed_reshape(b: Builder, x: Tensor) -> Tensor:
    """``x.view(x.size(0), -1)``: the target comes out of Shape, Gather, Unsqueeze, Concat."""
    if x.rank < 3 or b.is_function:
        raise Unfit("nothing to flatten")
    shape = b.node("Shape", x)
    shape = Tensor(shape.name, shape.shape, shape.dtype, value=np.array(x.shape, np.int64))
    batch = b.node("Gather", shape, b.store(np.array(0, np.int64)), axis=0)
    batch = Tensor(batch.name, batch.shape, batch.dtype, value=np.array(x.shape[0], np.int64))
    one = with_axes(b, "Unsqueeze", batch, [0], 0)
    rest = b.store(np.array([x.channels, -1] if x.axis == 1 and b.chance(0.5) else [-1], np.int64))
    target = b.node("Concat", one, rest, axis=0)
    assert rest.value is not None
    target = Tensor(
        target.name, target.shape, target.dtype, value=np.array([x.shape[0], *rest.value.tolist()], np.int64)
    )
    return b.node("Reshape", x, target, along=1)


def expand(b: Builder, x: Tensor) -> Tensor:
    sizes = [2 if size == 1 and axis and b.chance(0.5) else size for axis, size in enumerate(x.shape)]
    extra = [2] if x.rank < 5 and b.chance(0.2) else []
    sizes = [1 if b.chance(0.2) else size for size in sizes]
    return b.node("Expand", x, b.integers([*extra, *sizes]), along=x.axis + len(extra))


def tile(b: Builder, x: Tensor) -> Tensor:
    repeats = [b.pick([1, 1, 2]) if axis else 1 for axis in range(x.rank)]
    return b.node("Tile", x, b.integers(repeats))


def depth_to_space(b: Builder, x: Tensor) -> Tensor:
    if x.rank != 4 or x.shape[1] % 4:
        raise Unfit("no blocks")
    mode = b.pick([None, "DCR", "CRD"]) if b.opset >= 11 else None
    return b.node("DepthToSpace", x, blocksize=2, mode=mode, along=1)


def space_to_depth(b: Builder, x: Tensor) -> Tensor:
    if x.rank != 4 or x.shape[2] % 2 or x.shape[3] % 2:
        raise Unfit("no blocks")
    mode = b.pick([None, "DCR", "CRD"]) if b.opset >= 28 else None
    return b.node("SpaceToDepth", x, blocksize=2, mode=mode, along=1)


def slice_(b: Builder, x: Tensor) -> Tensor:
    """One or two axes, sometimes with steps, sometimes backwards."""
    axes = [axis for axis in range(x.rank) if x.shape[axis] > 1 and b.chance(0.4)][:2]
    if not axes:
        raise Unfit("nothing to cut")
    starts, ends, steps = list[int](), list[int](), list[int]()
    for axis in axes:
        size = x.shape[axis]
        start = b.integer(0, size // 2)
        if b.opset >= 10 and b.chance(0.2):
            starts, ends, steps = [*starts, -1], [*ends, -size - 1 if b.chance(0.5) else start], [*steps, -1]
        else:
            starts, ends, steps = (
                [*starts, start - size if start and b.chance(0.2) else start],
                [*ends, b.pick([size, 2**31 - 1, size])],
                [*steps, b.pick([1, 1, 2])],
            )
    if b.opset < 10:
        return b.node("Slice", x, starts=starts, ends=ends, axes=axes)
    inputs = [
        b.integers(starts),
        b.integers(ends),
        b.integers([axis - x.rank if b.chance(0.3) else axis for axis in axes]),
    ]
    if any(step != 1 for step in steps) or b.chance(0.3):
        inputs.append(b.integers(steps))
    return b.node("Slice", x, *inputs)


def gather(b: Builder, x: Tensor) -> Tensor:
    """A choice of channels, or of anything else; a scalar index drops its axis."""
    axis = x.axis if b.chance(0.6) else b.integer(0, x.rank - 1)
    size = x.shape[axis]
    named = axis - x.rank if b.chance(0.3) else axis
    if b.chance(0.15) and axis != x.axis and x.rank > 2:
        return b.node(
            "Gather", x, b.store(np.array(b.integer(0, size - 1), np.int64)), axis=named, along=x.axis - (axis < x.axis)
        )
    if b.chance(0.1) and x.rank < 5:
        table = b.rng.permutation(np.resize(np.arange(size), 2 * size)).reshape(2, size)
        return b.node("Gather", x, b.store(table[:, : b.integer(1, size)]), axis=named, along=x.axis + (axis <= x.axis))
    order = b.rng.permutation(size) if b.chance(0.5) else b.rng.integers(0, size, b.integer(1, size + 1))
    order = order - size * (b.chance(0.2) and b.opset >= 11)
    return b.node("Gather", x, b.integers(order), axis=named)


def channel_shuffle(b: Builder, x: Tensor) -> Tensor:
    if x.rank != 4 or x.channels not in (4, 6) or x.axis != 1:
        raise Unfit("no groups")
    groups = 2
    n, c, h, w = x.shape
    split = b.node("Reshape", x, b.integers([n, groups, c // groups, h, w]), along=2)
    turned = b.node("Transpose", split, perm=[0, 2, 1, 3, 4], along=1)
    return b.node("Reshape", turned, b.integers(b.pick([[n, -1, h, w], [n, c, h, w], [0, c, h, w]])), along=1)


LAYOUT = [transpose, transpose, unsqueeze, squeeze, flatten, reshape, reshape, reshape, computed_reshape, expand, tile]
LAYOUT += [depth_to_space, depth_to_space, space_to_depth, slice_, gather, channel_shuffle]
