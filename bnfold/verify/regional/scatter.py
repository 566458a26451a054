"""Numbers moved a little, up or down at random."""

from __future__ import annotations

from typing import Any, NamedTuple

import ml_dtypes
import numpy as np

from bnfold.affine import FloatArray
from bnfold.verify.float64.kernel import Array

_SIGNS = 65521  # a prime, so that repeated signs line up with no axis


class Rounding(NamedTuple):
    """Rounding moves a number w by u|w| + eta at the most (Higham 2002, 2.2: with gradual underflow).

    Attributes:
        u: Half the distance of neighbours, relative to a power of two.
        eta: Half the smallest subnormal number.
    """

    u: float
    eta: float


def rounding_to(dtype: np.dtype[Any]) -> Rounding:
    """What one rounding to a floating-point type can do."""
    info = ml_dtypes.finfo(dtype)  # type: ignore[no-untyped-call]
    smallest = float(info.smallest_subnormal)
    return Rounding(2.0 ** -(info.nmant + 1), smallest / 2 or smallest)  # half of float64's is 0


_NOISE = Rounding(2.0**-46, 0.0)  # 64 ulp of float64


def scattered(x: FloatArray, random: np.random.Generator, rounding: Rounding) -> FloatArray:
    """Every number moved by what rounding can do to it."""
    moved = np.empty(x.shape)
    source, target = x.reshape(-1), moved.reshape(-1)
    # one block of signs serves all of a large array, of which one output sees a small part
    block = random.choice((-1.0, 1.0), min(x.size, _SIGNS))
    for start in range(0, x.size, _SIGNS):
        part = source[start : start + _SIGNS]
        most = rounding.u * np.abs(part) + rounding.eta
        np.add(part, block[: part.size] * most, out=target[start : start + _SIGNS])
    return moved


def noisy(x: Array, random: np.random.Generator, rounding: Rounding = _NOISE) -> Array:
    """Floating-point numbers moved by a rounding, by default by some ulp of float64.

    Not so whole ones: they are counts or positions, mostly, and exact.
    """
    if x.dtype != np.float64 or not x.size:
        return x
    return np.where(x == np.rint(x), x, scattered(x, random, rounding))
