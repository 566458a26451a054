"""Rounding float64 to the type a weight is stored in, once and correctly."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from bnfold.affine import FloatArray

_NUMPYS = (np.float16, np.float32, np.float64)


@dataclass(frozen=True)
class Format:
    """A binary floating-point type as IEEE 754 defines them.

    Attributes:
        precision: Bits of the significand, the hidden one included.
        least: Exponent of the smallest normal number; the largest has exponent ``1 - least``.
    """

    precision: int
    least: int

    @property
    def unit(self) -> float:
        """The largest relative error of one rounding, among normal numbers."""
        return 2.0**-self.precision

    @property
    def normal(self) -> float:
        """The smallest normal number; smaller ones have fewer bits, and some devices flush them to zero."""
        return 2.0**self.least

    @property
    def step(self) -> float:
        """The smallest number of all, and the distance between those below the normal ones."""
        return 2.0 ** (self.least + 1 - self.precision)

    @property
    def largest(self) -> float:
        return (2 - 2 * self.unit) * 2.0 ** (1 - self.least)


FORMATS = {
    "float16": Format(11, -14),
    "bfloat16": Format(8, -126),
    "float32": Format(24, -126),
    "float64": Format(53, -1022),
}
"""The types that weights are stored in, by their names."""


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
