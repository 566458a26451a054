"""The one value that moves through a graph: an affine map, kept in float64 or better."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.floating[Any]]

# The type of scale and shift: what a bias and a mean leave when they cancel has to be good to the last bit of a
# float64 model too. 80 bits on x86, 128 on ARM under Linux, float64 where the platform has nothing wider.
WIDE = np.longdouble


@dataclass(frozen=True, eq=False)
class Affine:
    """``A(x) = scale * x + shift`` for a value x of known rank.

    Both arrays are ``WIDE`` floats and have the rank of x, with size 1 along every axis they do not vary on:
    a BatchNormalization of an NCHW value has arrays of shape ``[1, C, 1, 1]``.
    """

    scale: FloatArray
    shift: FloatArray

    def __post_init__(self) -> None:
        if self.scale.ndim != self.shift.ndim:
            raise ValueError(f"scale has rank {self.scale.ndim}, shift has rank {self.shift.ndim}")

    @classmethod
    def along(cls, axis: int, rank: int, scale: FloatArray, shift: FloatArray) -> Affine:
        """The affine of a value of ``rank`` axes that varies along one of them, from two vectors."""
        shape = [1] * rank
        shape[axis] = -1
        return cls(scale.reshape(shape), shift.reshape(shape))

    @classmethod
    def identity(cls, rank: int) -> Affine:
        return cls(np.ones((1,) * rank), np.zeros((1,) * rank))

    @property
    def rank(self) -> int:
        return self.scale.ndim

    @property
    def shape(self) -> tuple[int, ...]:
        """The common shape of scale and shift."""
        return np.broadcast_shapes(self.scale.shape, self.shift.shape)

    @property
    def axes(self) -> frozenset[int]:
        """The axes it varies on."""
        return frozenset(axis for axis, size in enumerate(self.shape) if size > 1)

    @property
    def extent(self) -> Extent:
        """What conditions ask of it."""
        return Extent(tuple(sorted(self.axes)), _ends(self.scale), _ends(self.shift))

    @property
    def is_identity(self) -> bool:
        return not self.has_scale and not self.has_shift

    @property
    def has_scale(self) -> bool:
        """Whether it scales; c * (1 / c) is 1 even where float64 makes it 1 - 2**-53."""
        return not bool((np.abs(self.scale - 1) <= np.finfo(np.float64).eps).all())  # NaN is no 1

    @property
    def has_shift(self) -> bool:
        return bool(self.shift.any())

    def agrees_with(self, other: Affine) -> bool:
        """Whether both are the same map."""
        return bool((self.scale == other.scale).all() and (self.shift == other.shift).all())

    def __call__(self, x: npt.ArrayLike) -> FloatArray:
        return np.asarray(self.scale * np.asarray(x, np.float64) + self.shift)

    def then(self, outer: Affine) -> Affine:
        """``outer(self(x))`` as one affine."""
        return Affine(outer.scale * self.scale, outer.scale * self.shift + outer.shift)

    def inverse(self) -> Affine:
        """The affine B with ``B(A(x)) = x``; only where no scale is zero."""
        return Affine(1 / self.scale, -self.shift / self.scale)

    def carried(self, move: Callable[[FloatArray], npt.NDArray[Any]]) -> Affine:
        """The same map after the value's axes have been moved, its arrays carried along by ``move``.

        ``move`` sees scale and shift broadcast to one common shape.
        """
        shape = self.shape
        return Affine(
            np.asarray(move(np.broadcast_to(self.scale, shape))),
            np.asarray(move(np.broadcast_to(self.shift, shape))),
        )

    def only_scale(self) -> Affine:
        """The first half of a split: ``A(x) = only_shift(only_scale(x))``."""
        return Affine(self.scale, np.zeros((1,) * self.rank))

    def only_shift(self) -> Affine:
        """The second half of a split."""
        return Affine(np.ones((1,) * self.rank), self.shift)


@dataclass(frozen=True)
class Extent:
    """What conditions ask of an affine: where it varies, whether its scales are positive, whether it shifts.

    Attributes:
        axes: The axes it varies on.
        scale: The smallest and the largest scale; infinities the wrong way round where there is none.
        shift: The same of its shifts.
    """

    axes: tuple[int, ...]
    scale: tuple[float, float]
    shift: tuple[float, float]


def _ends(array: FloatArray) -> tuple[float, float]:
    values = array.astype(np.float64)
    return float(values.min(initial=np.inf)), float(values.max(initial=-np.inf))


def narrowed(array: FloatArray) -> FloatArray:
    """The same values with size 1 along every axis on which they are equal."""
    for axis, size in enumerate(array.shape):
        if size > 1:
            first = array.take([0], axis)
            array = first if not array.strides[axis] or (array == first).all() else array
    return np.array(array)
