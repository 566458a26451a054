"""Floating-point types that one side rounds to, and the other does not: both are evaluated without them."""

from __future__ import annotations

from typing import Any

import numpy as np

from bnfold.graph import Graph, cast_type, is_float
from bnfold.verification.regions.regions import Region

DTypes = set[np.dtype[Any]]


def narrowed(before: tuple[Graph, Region], after: tuple[Graph, Region]) -> DTypes:
    """Types of AFTER that hold less than those of BEFORE."""
    theirs, ours = _float_types(*before), _float_types(*after)
    least = min((dtype.itemsize for dtype in theirs), default=0)
    half = {dtype for dtype in ours - theirs if dtype.itemsize < 4}  # float16 and bfloat16 lack different things
    return half | {dtype for dtype in ours if dtype.itemsize < least}


def _float_types(graph: Graph, region: Region) -> DTypes:
    """The floating-point types that a region, bodies included, computes or stores in."""
    values = [region.target, *region.border, *(value for op in region.all_ops for value in op.inputs if value)]
    dtypes = [graph.dtype(value) for value in values]
    dtypes += [cast_type(op) for op in region.all_ops if op.type == "Cast"]
    return {dtype for dtype in dtypes if dtype is not None and is_float(dtype)}
