"""Rounding float64 to the type a weight is stored in, once and correctly."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from bnfold.affine import FloatArray

_NUMPYS = (np.float16, np.float32, np.float64)


def rounded(values: FloatArray, dtype: np.dtype[Any]) -> npt.NDArray[Any]:
    """The nearest values of ``dtype``; ties to even. Values beyond its range become infinite.

    Types that are not numpy's own (bfloat16, float8) are reached by way of float32, where a plain cast would
    round twice; rounding to odd there keeps the second rounding correct (Boldo and Melquiond, 2008).
    """
    with np.errstate(all="ignore"):
        if dtype in _NUMPYS:
            return values.astype(dtype)
        return _to_odd_float32(values).astype(dtype)


def _to_odd_float32(values: FloatArray) -> npt.NDArray[np.float32]:
    nearest = values.astype(np.float32)
    toward_zero = np.where(np.abs(nearest) > np.abs(values), np.nextafter(nearest, np.float32(0)), nearest)
    bits = toward_zero.astype(np.float32).view(np.uint32)
    inexact = np.isfinite(values) & (toward_zero.astype(np.float64) != values)
    return np.where(inexact, bits | np.uint32(1), bits).view(np.float32)
