"""Mean and variance of a channel from parts, and how sure they are: all in float64.

Parts are merged by their counts (Chan, Golub & LeVeque 1979), in the order in which they are added:

    mean = mean_a + d * n_b / n        M2 = M2_a + M2_b + d^2 * n_a * n_b / n        d = mean_b - mean_a, n = n_a + n_b
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from bnfold.affine import FloatArray

GROUPS = 64
"""Samples are dealt into this many groups. The spread between groups, known to 1/sqrt(2*63) = 9 %, gives the errors."""


@dataclass(frozen=True, eq=False)
class Statistics:
    """The statistics of one BatchNormalization: vectors of C float64 values.

    Attributes:
        count: values per channel.
        mean: of each channel.
        var: biased, as a BatchNormalization uses it.
        mean_error: the standard error of `mean`; NaN where there is but one sample.
        var_error: the standard error of `var`.
        groups: the mean of each group of samples, `[G, C]`; the same samples for all values that are measured on them.
        group_vars: the mean square of each group around `mean`, `[G, C]`.
        weights: the share of each group in `count`, `[G, 1]`.
        parts: how many there were, a sample each where samples can be told apart.
    """

    count: int
    mean: FloatArray
    var: FloatArray
    mean_error: FloatArray
    var_error: FloatArray
    groups: FloatArray = field(default_factory=lambda: np.empty((0, 0)))
    group_vars: FloatArray = field(default_factory=lambda: np.empty((0, 0)))
    weights: FloatArray = field(default_factory=lambda: np.empty((0, 1)))
    parts: int = 0


class Moments:
    """Count, mean and M2 of each channel, kept apart for 64 groups of samples.

    Values of one sample are not independent of each other (the pixels of an image), samples are: the naive
    sigma / sqrt(N·H·W) is wrong by an order of magnitude, the spread between samples is right.
    """

    def __init__(self, channels: int) -> None:
        self._count = np.zeros((GROUPS, 1))
        self._mean = np.zeros((GROUPS, channels))
        self._m2 = np.zeros((GROUPS, channels))
        self._next = self._parts = 0

    def add(self, count: int, mean: npt.NDArray[Any], var: npt.NDArray[Any], *, samples: int | None = None) -> None:
        """Adds parts of `count` values per channel each.

        Args:
            count: values per channel in each part; with 0 there is nothing to add.
            mean: `[parts, C]`.
            var: biased, `[parts, C]`.
            samples: how many samples the parts come from, if they divide evenly among them.
        """
        if not count or not len(mean):
            return
        mean, var = mean.astype(np.float64, copy=False), var.astype(np.float64, copy=False)
        if samples and len(mean) > samples and len(mean) % samples == 0:  # the tokens of a text, say
            count, mean, var = _joined(count, mean, var, len(mean) // samples)
        start = 0
        while start < len(mean):
            stop = start + GROUPS - self._next
            self._deal(count, mean[start:stop], var[start:stop])
            start = stop

    def statistics(self) -> Statistics:
        """What all parts together say. NaN where there was none."""
        used = self._count[:, 0] > 0
        weight = self._count[used] / self._count.sum()
        mean = (weight * self._mean[used]).sum(0)
        apart = (self._mean[used] - mean) ** 2
        group_var = self._m2[used] / self._count[used] + apart
        var = (weight * group_var).sum(0)
        if not used.any():
            mean, var = np.full_like(mean, np.nan), np.full_like(var, np.nan)
        return Statistics(
            count=int(self._count.sum()),
            mean=mean,
            var=var,
            mean_error=_error(weight, apart),
            var_error=_error(weight, (group_var - var) ** 2),
            groups=self._mean[used],
            group_vars=group_var,
            weights=weight,
            parts=self._parts,
        )

    def _deal(self, count: int, mean: FloatArray, var: FloatArray) -> None:
        """Adds a part to each of the next groups, of which there are enough before the last."""
        self._parts += len(mean)
        slots = slice(self._next, self._next + len(mean))
        self._next = slots.stop % GROUPS
        before = self._count[slots]
        after = before + count
        apart = mean - self._mean[slots]
        self._m2[slots] += count * var + apart**2 * (before * count / after)
        self._mean[slots] += apart * (count / after)
        self._count[slots] = after


def difference_error(one: Statistics, other: Statistics) -> FloatArray:
    """The standard error of the difference of two means that were measured on the same samples; NaN if it is unknown.

    It is smaller than theirs: what a sample adds to both is not in it.
    """
    if one.groups.shape != other.groups.shape:
        return np.full(one.mean.size, np.nan)
    apart = one.groups - other.groups
    return _error(one.weights, (apart - (one.mean - other.mean)) ** 2)


def _joined(count: int, mean: FloatArray, var: FloatArray, parts: int) -> tuple[int, FloatArray, FloatArray]:
    """Each `parts` neighbours as one part; all have the same count."""
    mean, var = (array.reshape(-1, parts, array.shape[1]) for array in (mean, var))
    return count * parts, mean.mean(1), var.mean(1) + mean.var(1)


def _error(weight: FloatArray, squares: FloatArray) -> FloatArray:
    """The standard error of a weighted mean of groups: sqrt(G / (G - 1) * sum w^2 (x - mean)^2)."""
    groups = len(weight)
    if groups < 2:
        return np.full(squares.shape[1], np.nan)
    return np.asarray(np.sqrt((weight**2 * squares).sum(0) * groups / (groups - 1)))
