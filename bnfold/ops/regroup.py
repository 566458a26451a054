"""Where a channel goes in a Reshape.

A Reshape keeps the order of the elements, so the axes of both shapes fall into groups of equal size: ``[N, C, H, W]``
to ``[N, g, C/g, H, W]`` is N to N, C to (g, C/g), H to H, W to W. An affine that varies inside a group of known
sizes is carried by reshaping its array over that group alone; sizes of other groups need not be known.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod

import numpy as np

from bnfold.affine import Affine, FloatArray, narrowed
from bnfold.graph import Op, Shape
from bnfold.reasons import Reason, Refused


@dataclass(frozen=True)
class Group:
    """Adjacent axes of the source whose elements are those of adjacent axes of the target."""

    source: Shape
    target: Shape


def groups_of(source: Shape, target: Shape) -> list[Group]:
    """The finest groups that the known sizes show, in order."""
    left: list[Group] = []
    start = 0
    while start < min(len(source), len(target)) and _same(source[start], target[start]):
        left.append(Group(source[start : start + 1], target[start : start + 1]))
        start += 1
    right: list[Group] = []
    source, target = source[start:], target[start:]
    while source and target:
        counts = _closing_group(source, target)
        if counts is None:
            break
        right.append(Group(source[len(source) - counts[0] :], target[len(target) - counts[1] :]))
        source, target = source[: len(source) - counts[0]], target[: len(target) - counts[1]]
    middle = [Group(source, target)] if source or target else []
    return [*left, *middle, *reversed(right)]


def _same(left: object, right: object) -> bool:
    return left is not None and left == right


def _closing_group(source: Shape, target: Shape) -> tuple[int, int] | None:
    """How many axes at the end of both shapes hold the same number of elements; None if that cannot be seen."""
    if _same(source[-1], target[-1]):
        return 1, 1
    taken = [1, 1]
    while True:
        tails = source[len(source) - taken[0] :], target[len(target) - taken[1] :]
        sizes = [_product(tail) for tail in tails]
        if sizes[0] is None or sizes[1] is None or 0 in sizes:
            return None
        if sizes[0] == sizes[1]:
            return taken[0], taken[1]
        shorter = 0 if sizes[0] < sizes[1] else 1
        taken[shorter] += 1
        if taken[shorter] > len((source, target)[shorter]):
            return None


def _product(shape: Shape) -> int | None:
    sizes = [size for size in shape if isinstance(size, int)]
    return prod(sizes) if len(sizes) == len(shape) else None


def regrouped(op: Op, affine: Affine, groups: Sequence[Group]) -> Affine:
    """The affine carried from the source axes to the target axes.

    Raises:
        Refused: it varies inside a group whose sizes are not all known.
    """
    if affine.rank != sum(len(group.source) for group in groups):
        raise Refused(Reason.UNSUPPORTED, op_type=op.type, detail=f"groups {groups} for rank {affine.rank}")
    return Affine(_regrouped(op, affine.scale, groups), _regrouped(op, affine.shift, groups))


def _regrouped(op: Op, array: FloatArray, groups: Sequence[Group]) -> FloatArray:
    source_sizes: list[int] = []  # what the array is broadcast to, group by group
    target_sizes: list[int] = []
    axis = 0
    for group in groups:
        own = array.shape[axis : axis + len(group.source)]
        axis += len(own)
        if all(size == 1 for size in own):
            source_sizes += own
            target_sizes += [1] * len(group.target)
            continue
        source, target = _sizes(op, group)
        if any(size not in (1, known) for size, known in zip(own, source, strict=True)):
            raise Refused(Reason.WRONG_SIZE, value=op.label, size=own, expected=source)
        source_sizes += source
        target_sizes += target
    return narrowed(np.broadcast_to(array, source_sizes).reshape(target_sizes))


def _sizes(op: Op, group: Group) -> tuple[list[int], list[int]]:
    """The sizes on both sides; a side of one axis is the product of the other."""
    source, target = ([size for size in side if isinstance(size, int)] for side in (group.source, group.target))
    if len(source) == len(group.source) and len(group.target) == 1:
        return source, [prod(source)]
    if len(target) == len(group.target) and len(group.source) == 1:
        return [prod(target)], target
    if len(source) != len(group.source) or len(target) != len(group.target) or prod(target) != prod(source):
        raise Refused(Reason.SHAPE_UNKNOWN, value=op.data().name)
    return source, target
