"""Can rounding explain the difference between the two sides of a region?

The sides get the same values at their border. What they make of them may be apart by as much as their changed weights
may be off, each by one rounding to its own type, and by no more, at any entry.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from bnfold.affine import FloatArray
from bnfold.verify.float64.carried import NOISE
from bnfold.verify.float64.evaluate import CannotEvaluate
from bnfold.verify.float64.how import Coverage
from bnfold.verify.regional.side import Array, Given, Side

_LAST_DIGITS = 1e-13  # of a number itself: the noise of float64 where nothing cancels
_TELLING, _TELLING_UNITS = 1e-3, 100.0  # of max |y|, or so many roundings of its type: a larger bound tells nothing


@dataclass(frozen=True)
class Finding:
    """The comparison at the place where it is worst.

    Attributes:
        ratio: The difference in units of what rounding explains.
        difference: The difference, relative to max |y|.
        bound: What rounding explains, relative to max |y|.
        axis: The axis along which the channels that differ can be told from those that do not.
        channel: The channel that differs most.
        detail: What else there is to say.
        tells: Whether a difference that matters would have been more than rounding explains.
    """

    ratio: float
    difference: float
    bound: float
    axis: int | None = None
    channel: int | None = None
    detail: str = ""
    tells: bool = True


def compared(left: Side, right: Side, given: Given, old: Array) -> tuple[Finding, Coverage]:
    """Compares the two sides on the same values.

    Args:
        left: The side of BEFORE.
        right: The side of AFTER.
        given: The values at the border.
        old: What the left side makes of them.

    Returns:
        The comparison, and what was met on the right side.

    Raises:
        CannotEvaluate: A side cannot be evaluated, or nothing that says anything comes of it.
    """
    (new, error, _), coverage = right.evaluate(given, right.rounded())
    if old.shape != new.shape:
        detail = f"shape {list(new.shape)} in the place of {list(old.shape)}"
        return Finding(np.inf, np.inf, 0.0, detail=detail), coverage
    if not old.size:
        raise CannotEvaluate("its value has no elements")
    if old.dtype != np.float64 or new.dtype != np.float64:
        return _counted(old, new, error), coverage
    both = np.isfinite(old) & np.isfinite(new)
    if wrong := int((~(both | (old == new) | (np.isnan(old) & np.isnan(new)))).sum()):
        return Finding(np.inf, np.inf, 0.0, detail=f"{wrong} entries are not finite on one side only"), coverage
    if not both.any():
        raise CannotEvaluate("nothing finite comes of it")
    pair = _Pair(left, right, given, both, np.where(both, old, 0.0), np.where(both, new, 0.0))
    return pair.explained(np.zeros(old.shape) if error is None else error), coverage


def _counted(old: Array, new: Array, error: FloatArray | None) -> Finding:
    """Of truths, integers and texts: no number of them may differ, but for where rounding decides."""
    differs = (old != new) & (True if error is None else error == 0)
    share, unsure = float(differs.mean()), 0.0 if error is None else float((error > 0).mean())
    if share:
        return Finding(np.inf, share, 0.0, detail=f"{share:.0%} of the entries differ")
    return Finding(0, 0, 0, tells=unsure < 1)


def is_mostly_finite(value: Array) -> bool:
    """Whether what was given suits the operators that made this of it, as negative numbers do not suit a root."""
    return value.dtype != np.float64 or not value.size or float(np.isfinite(value).mean()) >= 0.5


@dataclass(frozen=True)
class _Pair:
    """The two sides, what they were given, and what they made of it, zero where ``both`` is not finite."""

    left: Side
    right: Side
    given: Given
    both: npt.NDArray[np.bool_]
    old: FloatArray
    new: FloatArray

    def explained(self, error: FloatArray) -> Finding:
        """By the weights of AFTER; if not, float64's own rounding is carried too; then those of BEFORE as well."""
        finding = self._worst(error + _LAST_DIGITS * np.abs(self.old))
        if finding.ratio <= 1:
            return finding
        error = self._error(self.right, own_weights=True) + self._error(self.left, own_weights=False)
        finding = self._worst(error)
        if finding.ratio <= 1 or not self.left.is_rounded:
            return finding
        error = self._error(self.right, own_weights=True) + self._error(self.left, own_weights=True)
        lenient = self._worst(error)
        return replace(lenient, detail="folded in low precision") if lenient.ratio <= 1 else finding

    def _error(self, side: Side, *, own_weights: bool) -> FloatArray:
        how = replace(side.how, unit=NOISE)
        if own_weights:
            how = replace(side.rounded(folds=side is self.left), unit=NOISE)
        error = side.evaluate(self.given, how).num.error
        return np.zeros(self.old.shape) if error is None else error

    def _worst(self, bound: FloatArray) -> Finding:
        bound = np.where(self.both, bound, 0.0)
        return replace(_worst(self.old, self.new, bound), tells=self._tells(bound))

    def _tells(self, bound: FloatArray) -> bool:
        """Whether in some sample, but one of zeros, the bound is small beside max |y| wherever it is needed."""
        rows = len(bound) if bound.ndim else 1
        limit = max(_TELLING, _TELLING_UNITS * self.right.unit)
        needed = np.where(self.old == self.new, 0.0, bound)
        most, size = (np.abs(x).reshape(rows, -1).max(axis=1) for x in (needed, self.old))
        return bool(((most <= limit * size) & ~_is_still(self.given, rows)).any())


def _is_still(given: Given, rows: int) -> npt.NDArray[np.bool_]:
    """Which samples are made of zeros alone: what comes of them says nothing of the weights."""
    arrays = [x.reshape(rows, -1) for x in given.values() if x.ndim and len(x) == rows and x.size]
    return np.logical_and.reduce([~x.any(axis=1) for x in arrays]) if arrays else np.zeros(rows, bool)


def _worst(old: FloatArray, new: FloatArray, bound: FloatArray) -> Finding:
    error = np.abs(old - new)
    ratio = np.divide(error, bound, out=np.where(error > 0, np.inf, 0.0), where=bound > 0)
    # of what is too far off, what is furthest off: near zero, the ratio says more of the bound than of the error
    wrong = ratio > 1
    place = np.unravel_index(int((np.where(wrong, error, 0.0) if wrong.any() else ratio).argmax()), ratio.shape)
    scale = float(np.abs(old).max()) or 1.0
    axis = _telling_axis(wrong)
    return Finding(
        ratio=float(ratio[place]),
        difference=float(error[place]) / scale,
        bound=float(bound[place]) / scale,
        axis=axis,
        channel=None if axis is None else int(place[axis]),
    )


def _telling_axis(wrong: npt.NDArray[np.bool_]) -> int | None:
    """The axis, not the first, that has the smallest share of places where something is wrong; None if all have."""
    best, found = 1.0, None
    for axis in range(1, wrong.ndim):
        share = float(wrong.any(axis=tuple(other for other in range(wrong.ndim) if other != axis)).mean())
        if 0 < share < best:
            best, found = share, axis
    return found
