"""What all kernels have in common.

A kernel takes an op and its inputs (None where omitted) and returns its outputs. Arrays are (N, C, *spatial).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from bnfold.graph import Op, is_float

Array = npt.NDArray[Any]
Kernel = Callable[[Op, Sequence[Array | None]], list[Array]]


class NotComputed(Exception):
    """The operator, or this form of it, is not computed here."""


def present(array: Array | None) -> Array:
    if array is None:
        raise NotComputed("an input is missing")
    return array


def optional(inputs: Sequence[Array | None], index: int) -> Array | None:
    return inputs[index] if index < len(inputs) else None


def channels(vector: Array, rank: int) -> Array:
    return vector.reshape(1, -1, *[1] * (rank - 2))


def as_real(dtype: npt.DTypeLike) -> np.dtype[Any]:
    """The type in which values of this type are computed."""
    dtype = np.dtype(dtype)
    return np.dtype(np.float64) if is_float(dtype) else dtype
