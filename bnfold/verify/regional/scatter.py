"""Numbers moved a little, up or down at random."""

from __future__ import annotations

import numpy as np

from bnfold.affine import FloatArray
from bnfold.verify.float64.kernel import Array

_NOISE = 2.0**-46  # 64 ulp of float64
_SIGNS = 65521  # a prime, so that repeated signs line up with no axis


def scattered(x: FloatArray, random: np.random.Generator, amount: float) -> FloatArray:
    """Every number moved by this share of itself."""
    moved = np.empty(x.shape)
    source, target = x.reshape(-1), moved.reshape(-1)
    # one block of signs serves all of a large array, of which one output sees a small part
    block = 1 + amount * random.choice((-1.0, 1.0), min(x.size, _SIGNS))
    for start in range(0, x.size, _SIGNS):
        part = source[start : start + _SIGNS]
        np.multiply(part, block[: part.size], out=target[start : start + _SIGNS])
    return moved


def noisy(x: Array, random: np.random.Generator) -> Array:
    """Floating-point numbers moved by some ulp of float64.

    Not so whole ones: they are counts or positions, mostly, and exact.
    """
    if x.dtype != np.float64 or not x.size:
        return x
    return np.where(x == np.rint(x), x, scattered(x, random, _NOISE))
