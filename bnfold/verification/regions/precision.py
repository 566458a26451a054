"""Floating-point types that one side rounds to, and the other does not: both are evaluated without them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from bnfold.graph import Op, cast_type, is_float
from bnfold.graph.evaluate import saturates
from bnfold.verification.regions.side import Side, stored_type

DType = np.dtype[Any]


def narrowed(before: Side, after: Side) -> set[DType]:
    """Types of AFTER that hold less than those of BEFORE."""
    theirs, ours = set(_float_types(before)), set(_float_types(after))
    least = min((dtype.itemsize for dtype, _ in theirs), default=0)
    half = {dtype for dtype, _ in ours - theirs if dtype.itemsize < 4}  # float16 and bfloat16 lack different things
    return half | {dtype for dtype, _ in ours if dtype.itemsize < least}


def _float_types(side: Side) -> Iterator[tuple[DType, bool]]:
    """The floating-point types that data has, and weights that the other side does not have; whether they saturate.

    Other constants are what they are on both sides.
    """
    active = set(side.active)
    for value, graph in {v: op.graph for op in active for v in (*op.inputs, *op.outputs) if v is not None}.items():
        maker = value.producer
        if value in side.region.constants or (maker is not None and maker not in active and _is_inside(side, maker)):
            continue
        dtype = graph.dtype(value) if maker is None else cast_type(maker) or graph.dtype(value)
        if dtype is not None and is_float(dtype):
            yield dtype, maker is None or dtype.itemsize > 1 or saturates(maker)
    yield from ((dtype, True) for dtype in map(stored_type, side.changed) if is_float(dtype))


def _is_inside(side: Side, op: Op) -> bool:
    return not any(value in side.region.border for value in op.outputs)
