"""New constants that rules make out of old ones: exact in float64 until they are written."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from bnfold.affine import FloatArray
from bnfold.graph import Constant, Stored
from bnfold.rounding import rounded


class Exact:
    """Values given in float64, of the type they will be written in."""

    def __init__(self, values: FloatArray, dtype: np.dtype[Any]) -> None:
        self._values = values
        self.shape = values.shape
        self.dtype = dtype

    def array(self) -> npt.NDArray[Any]:
        return rounded(self._values, self.dtype)

    def float64(self) -> FloatArray:
        return self._values.copy()


class Scaled:
    """``factor * base``; a weight that was scaled before is read once and rounded once."""

    def __init__(self, base: Constant, factor: FloatArray) -> None:
        if np.broadcast_shapes(base.shape, factor.shape) != base.shape:
            raise ValueError(f"a factor of shape {factor.shape} does not fit a weight of shape {base.shape}")
        self.base: Constant = base.base if isinstance(base, Scaled) else base
        self.factor: FloatArray = base.factor * factor if isinstance(base, Scaled) else factor
        self.shape = base.shape
        self.dtype = base.dtype

    def array(self) -> npt.NDArray[Any]:
        if self.dtype.kind == "f" and isinstance(self.base, Stored):
            values = self.base.array()
            # numpy multiplies in float64, block by block, and rounds once: no copy of a large weight is made
            with np.errstate(over="ignore", under="ignore"):
                return np.multiply(values, self.factor, out=values, casting="same_kind")
        return rounded(self.float64(), self.dtype)

    def float64(self) -> FloatArray:
        return self.base.float64() * self.factor


class Enlarged:
    """``base`` plus what ``add`` puts into a float64 copy of it."""

    def __init__(self, base: Constant, add: Callable[[FloatArray], None]) -> None:
        self._base = base
        self._add = add
        self.shape = base.shape
        self.dtype = base.dtype

    def array(self) -> npt.NDArray[Any]:
        return rounded(self.float64(), self.dtype)

    def float64(self) -> FloatArray:
        values = self._base.float64()
        self._add(values)
        return values
