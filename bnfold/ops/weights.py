"""New constants that rules make out of old ones: exact in float64 until they are written."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator
from functools import cached_property
from hashlib import sha256
from typing import Any

import numpy as np
import numpy.typing as npt

from bnfold.affine import FloatArray
from bnfold.graph import Constant, Evaluated, Quantized, Stored
from bnfold.graph.quantization import is_integer, limits
from bnfold.rounding import rounded

_MAX_NUDGES = 8
_COMPARED = 1 << 14  # elements of an array that is compared with others


def in_type_of(weight: Constant, vector: FloatArray) -> FloatArray:
    """A vector as it meets a whole weight: in float64, which is fast, where the weight is not float64 itself."""
    return vector if weight.dtype == np.float64 else vector.astype(np.float64)


class Exact:
    """Values given in float64 or better, and the type they will be written in.

    Attributes:
        multiplies: Whether data is multiplied or divided by them, so that their smallest digits count.
    """

    def __init__(self, values: FloatArray, dtype: np.dtype[Any], *, multiplies: bool = False) -> None:
        self._values = values
        self.multiplies = multiplies
        self.shape = values.shape
        self.dtype = dtype

    def key(self) -> Hashable:
        """Equal for equal values of one type; each large array is its own."""
        is_small = self._values.size <= _COMPARED
        return (self.dtype.name, self.shape, _digest(self._values)) if is_small else self

    def array(self) -> npt.NDArray[Any]:
        return rounded(self._values, self.dtype)

    def float64(self) -> FloatArray:
        return self._values.copy()


class Scaled:
    """``factor * base``; a weight that was scaled before is read once and rounded once.

    Attributes:
        base: A weight of the model.
        factor: The product of all that it was scaled by, with the rank of the base.
        before: The product without the last of those.
        latest: The last.
    """

    def __init__(self, base: Constant, factor: FloatArray) -> None:
        if np.broadcast_shapes(base.shape, factor.shape) != base.shape:
            raise ValueError(f"a factor of shape {factor.shape} does not fit a weight of shape {base.shape}")
        self.base: Constant = base.base if isinstance(base, Scaled) else base
        factor = in_type_of(base, factor)
        self.latest: FloatArray = factor.reshape((1,) * (len(base.shape) - factor.ndim) + factor.shape)
        self.before = base.factor if isinstance(base, Scaled) else np.ones((1,) * len(base.shape))
        self.factor: FloatArray = self.before * self.latest
        self.shape = base.shape
        self.dtype = base.dtype

    def key(self) -> Hashable:
        """Equal for equal factors of one weight."""
        return self._key

    @cached_property
    def _key(self) -> Hashable:
        return self.base, self.factor.shape, _digest(self.factor)

    def array(self) -> npt.NDArray[Any]:
        if self.dtype.kind == "f" and isinstance(self.base, Stored):
            return _times(self.base.array(), self.factor)
        return rounded(self.float64(), self.dtype)

    def blocks(self) -> Iterator[npt.NDArray[Any]]:
        """What ``array`` gives, a few rows at a time; of a large weight never more are in memory."""
        if self.dtype.kind != "f" or not isinstance(self.base, Stored) or not self.shape:
            yield self.array()
            return
        factor = self.factor
        for rows, block in self.base.blocks():
            yield _times(block, factor[rows] if len(factor) > 1 else factor)

    def peaks(self) -> FloatArray:
        """The largest magnitude of finite values under each entry of the factor, which gets the rank of the base."""
        factor = np.abs(self.factor)
        axes = tuple(axis for axis, size in enumerate(factor.shape) if size > 1)
        if isinstance(self.base, Stored):
            return np.asarray(self.base.peaks(axes) * factor)
        others = tuple(axis for axis in range(factor.ndim) if axis not in axes)
        exact = np.abs(self.base.float64())
        return np.asarray(np.where(np.isfinite(exact), exact, 0).max(others, keepdims=True, initial=0) * factor)

    def float64(self) -> FloatArray:
        with np.errstate(over="ignore", under="ignore", invalid="ignore"):
            return np.asarray(self.base.float64() * self.factor)


def _digest(array: FloatArray) -> bytes:
    """What tells its numbers from others; some bytes of a long double mean nothing."""
    high = array.astype(np.float64)
    digest = sha256(high.tobytes())
    if array.dtype != np.float64 and (low := np.where(np.isfinite(high), array - high, 0)).any():
        digest.update(low.astype(np.float64).tobytes())
    return digest.digest()


def _times(values: npt.NDArray[Any], factor: FloatArray) -> npt.NDArray[Any]:
    """In place: numpy multiplies in float64, block by block, and rounds once."""
    with np.errstate(all="ignore"):  # a weight may hold infinity, and a factor 0
        np.multiply(values, factor, out=values, casting="same_kind")
    return values


class Enlarged:
    """``base`` plus what ``add``, of magnitudes up to ``most``, puts into a float64 copy of it."""

    def __init__(self, base: Constant, add: Callable[[FloatArray], None], most: float) -> None:
        self.base = base
        self.most = most
        self._add = add
        self.shape = base.shape
        self.dtype = base.dtype

    def array(self) -> npt.NDArray[Any]:
        return rounded(self.float64(), self.dtype)

    def float64(self) -> FloatArray:
        values = self.base.float64().copy()
        self._add(values)
        return values


class Given:
    """An array as it is."""

    def __init__(self, values: npt.NDArray[Any]) -> None:
        self._values = values
        self.shape = values.shape
        self.dtype = values.dtype

    def array(self) -> npt.NDArray[Any]:
        return self._values.copy()

    def float64(self) -> FloatArray:
        return self._values.astype(np.float64)


class Mirrored:
    """Quantized values ``q`` at the other side of their zero point where ``sign`` is negative, on it where it is 0."""

    def __init__(self, base: Constant, sign: FloatArray, zero_points: FloatArray) -> None:
        self._base = base
        self._sign = sign
        self._zero_points = zero_points
        self.shape = base.shape
        self.dtype = base.dtype

    def array(self) -> npt.NDArray[Any]:
        return self.float64().astype(self.dtype)

    def float64(self) -> FloatArray:
        return mirrored(self._base.float64(), self._sign, self._zero_points)

    def is_exact(self) -> bool:
        """Whether its type has all of these values."""
        values = self.float64()
        if is_integer(self.dtype):
            lowest, highest = limits(self.dtype)
            return bool((values >= lowest).all() and (values <= highest).all())
        return bool((values.astype(self.dtype).astype(np.float64) == values).all())


class Nudged:
    """A float weight times ``factor``, which rounds to the integers that the weight did, on a grid of new ``steps``.

    Its own rounding would tip a few values to the next integer (those that lay halfway between two); they are moved
    back by the last few bits.
    """

    def __init__(self, integers: Quantized, factor: FloatArray, steps: FloatArray) -> None:
        self._integers = integers
        self._factor = factor
        self._steps = steps
        self.shape = integers.shape
        self.dtype = integers.base.dtype

    def array(self) -> npt.NDArray[Any]:
        return self._values()[0]

    def float64(self) -> FloatArray:
        return self.array().astype(np.float64)

    def unmoved(self) -> FloatArray:
        """The values as they are before any rounding, and before any is moved back."""
        return self._integers.base.float64() * self._factor

    def is_exact(self) -> bool:
        """Whether all of the integers are the same, those of negative factors mirrored."""
        return not self._values()[1].any()

    def _values(self) -> tuple[npt.NDArray[Any], npt.NDArray[np.bool_]]:
        """The weight, and where it still rounds to another integer."""
        old, zero_points = self._integers.base.array(), self._integers.grid.zero_points
        wanted = mirrored(self._integers.of(old), self._factor, zero_points)
        new = rounded(old.astype(np.float64) * self._factor, self.dtype)
        centre = rounded((wanted - zero_points) * self._steps, self.dtype)
        for _ in range(_MAX_NUDGES):
            wrong = self._integers.of(new, self._steps) != wanted
            if not wrong.any():
                break
            new[wrong] = np.nextafter(new[wrong], centre[wrong])
        return new, self._integers.of(new, self._steps) != wanted


def bound(constant: Constant) -> float:
    """No finite value of a constant, before it is rounded, is larger in magnitude; seldom by much."""
    match constant:
        case Stored():
            return float(constant.peaks().max(initial=0))
        case Scaled():
            return bound(constant.base) * float(np.abs(constant.factor).max(initial=0))
        case Evaluated() if np.isfinite(constant.peak):
            return constant.peak
        case Enlarged():
            return bound(constant.base) + constant.most
    exact = np.abs(constant.float64())
    return float(np.where(np.isfinite(exact), exact, 0).max(initial=0))


def mirrored(integers: FloatArray, sign: FloatArray, zero_points: FloatArray) -> FloatArray:
    """``2 z - q`` where the sign is negative, z where it is 0, else q."""
    return np.where(sign < 0, 2 * zero_points - integers, np.where(sign == 0, zero_points, integers))
