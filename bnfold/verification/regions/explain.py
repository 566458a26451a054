"""Can rounding explain the difference between the two sides of a region?

The sides get the same values at their border. What they make of them may be apart by as much as their changed weights
may be off, each by one rounding to its own type, and by no more, at any entry.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from bnfold.affine import FloatArray
from bnfold.verification.float64.carried import NOISE, distance
from bnfold.verification.float64.evaluate import CannotEvaluate, OutOfTime
from bnfold.verification.float64.how import Coverage
from bnfold.verification.regions.side import Array, Given, Side

_LAST_DIGITS = 1e-13  # of a number itself: the noise of float64 where nothing cancels
_LENIENT = "folded in low precision"
_TELLING, _TELLING_UNITS = 1e-3, 100.0  # of max |y|, or so many roundings of its type: a larger bound tells nothing


class NotTaken(CannotEvaluate):
    """AFTER does not take what BEFORE takes."""


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
        shows: Whether anything but zeros came of it.
        is_plain: Whether the rounding of AFTER's weights alone tells it from one that matters.
    """

    ratio: float
    difference: float
    bound: float
    axis: int | None = None
    channel: int | None = None
    detail: str = ""
    tells: bool = True
    shows: bool = True
    is_plain: bool = True


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
        NotTaken: The right side cannot be evaluated.
        CannotEvaluate: Nothing that says anything comes of it, or there is no time.
    """
    try:
        (new, error, _), coverage = right.evaluate(given, right.rounded())
    except OutOfTime:
        raise
    except CannotEvaluate as problem:
        raise NotTaken(str(problem)) from problem
    if old.shape != new.shape:
        detail = f"shape {list(new.shape)} in the place of {list(old.shape)}"
        return Finding(np.inf, np.inf, 0.0, detail=detail), coverage
    if not old.size:
        raise CannotEvaluate("its value has no elements")
    if old.dtype != np.float64 or new.dtype != np.float64:
        return _Counted(left, right, given, old, new).explained(error), coverage
    both = np.isfinite(old) & np.isfinite(new)
    if not both.all():
        if wrong := int((~(both | (old == new) | (np.isnan(old) & np.isnan(new)))).sum()):
            return Finding(np.inf, np.inf, 0.0, detail=f"{wrong} entries are not finite on one side only"), coverage
        if not both.any():
            raise CannotEvaluate("nothing finite comes of it")
        old, new = np.where(both, old, 0.0), np.where(both, new, 0.0)
    if np.array_equal(old, new):
        return _equal(given, old, error), coverage
    pair = _Pair(left, right, given, both, old, new)
    return pair.explained(np.zeros(old.shape) if error is None else error), coverage


def compared_domains(left: Side, right: Side, given: Given) -> Finding | None:
    """Where values do not suit the operators, they must suit neither side: nothing else is compared there."""
    old, new = left.value(given), right.value(given)
    if old.shape != new.shape or not (wrong := int((np.isnan(old) != np.isnan(new)).sum())):
        return None
    return Finding(np.inf, np.inf, 0.0, detail=f"{wrong} entries are no numbers on one side only")


def is_mostly_finite(value: Array) -> bool:
    """Whether what was given suits the operators that made this of it, as negative numbers do not suit a root."""
    return value.dtype != np.float64 or bool(2 * np.count_nonzero(np.isfinite(value)) >= value.size)


def _equal(given: Given, value: FloatArray, error: FloatArray | None) -> Finding:
    """Of sides that made the same to the last bit: any difference would have shown."""
    first = float(abs(value.flat[0]) * _LAST_DIGITS + (0.0 if error is None else error.flat[0]))
    largest = float(max(value.max(), -value.min()))
    rows = len(value) if value.ndim else 1
    tells = not (_are_zeros(value.reshape(rows, -1)) | _is_still(given, rows)).all()
    return Finding(0.0, 0.0, first / (largest or 1.0), tells=tells, shows=largest > 0)


@dataclass(frozen=True)
class _Counted:
    """The two sides, and the truths, integers or texts that they made of what they were given."""

    left: Side
    right: Side
    given: Given
    old: Array
    new: Array

    def explained(self, error: FloatArray | None) -> Finding:
        """None may differ, but where rounding decides, and there by no more than that makes of it."""
        finding = self._found(error)
        if finding.ratio <= 1 or error is None:
            return finding
        shape = self.old.shape
        own = _error(self.right, self.given, shape, own_weights=True, folds=False)
        lenient = self._found(own + _error(self.left, self.given, shape, own_weights=True, folds=True))
        return replace(lenient, detail=_LENIENT, is_plain=False) if lenient.ratio <= 1 else finding

    def _found(self, error: FloatArray | None) -> Finding:
        differs = self.old != self.new
        if error is not None:
            differs &= distance(self.old, self.new) > error
        if share := float(differs.mean()):
            return Finding(np.inf, share, 0.0, detail=f"{share:.0%} of the entries differ")
        return Finding(0, 0, 0, tells=error is None or self._tells(error))

    def _tells(self, error: FloatArray) -> bool:
        rows = len(error) if error.ndim else 1
        is_sure = (error.reshape(rows, -1) == 0).any(axis=1) & ~_is_still(self.given, rows)
        return bool(is_sure.any()) or _tells(self.right, self.given, self.old.astype(np.float64), error)


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
        own = self._error(self.right, own_weights=True)
        error = own + self._error(self.left, own_weights=False)
        finding = replace(self._worst(error), is_plain=False)
        if finding.ratio <= 1 or not self.left.is_rounded:
            return finding
        lenient = self._worst(own + self._error(self.left, own_weights=True))
        return replace(lenient, detail=_LENIENT, is_plain=False) if lenient.ratio <= 1 else finding

    def _error(self, side: Side, *, own_weights: bool) -> FloatArray:
        return _error(side, self.given, self.old.shape, own_weights=own_weights, folds=side is self.left)

    def _worst(self, bound: FloatArray) -> Finding:
        bound = bound if self.both.all() else np.where(self.both, bound, 0.0)
        error = np.abs(self.old - self.new)
        needed = np.where(error == 0, 0.0, bound)
        return replace(_worst(self.old, error, bound), tells=_tells(self.right, self.given, self.old, needed))


def _error(side: Side, given: Given, shape: tuple[int, ...], *, own_weights: bool, folds: bool) -> FloatArray:
    """The bound of a side, with float64's own rounding."""
    how = side.rounded(folds=folds) if own_weights else side.how
    error = side.evaluate(given, replace(how, unit=NOISE)).num.error
    return np.zeros(shape) if error is None else error


def _tells(right: Side, given: Given, old: FloatArray, bound: FloatArray) -> bool:
    """Whether in some sample, but one of zeros, the bound is small beside max |y|."""
    rows = len(bound) if bound.ndim else 1
    limit = max(_TELLING, _TELLING_UNITS * right.unit)
    most, size = (np.abs(x).reshape(rows, -1).max(axis=1) for x in (bound, old))
    return bool(((most < limit * size) & ~_is_still(given, rows)).any())


def _is_still(given: Given, rows: int) -> npt.NDArray[np.bool_]:
    """Which samples are made of zeros alone: what comes of them says nothing of the weights."""
    arrays = [x.reshape(rows, -1) for x in given.values() if x.ndim and len(x) == rows and x.size]
    return np.logical_and.reduce(list(map(_are_zeros, arrays))) if arrays else np.zeros(rows, bool)


def _are_zeros(x: Array) -> npt.NDArray[np.bool_]:
    """Which samples are nothing else; most that are not show it at once."""
    found = np.asarray(x[:, 0] == 0)
    found[found] = ~x[found].any(axis=1)
    return found


def _worst(old: FloatArray, error: FloatArray, bound: FloatArray) -> Finding:
    scale = float(np.abs(old).max()) or 1.0
    with np.errstate(over="ignore"):
        ratio = np.divide(error, bound, out=np.where(error > 0, np.inf, 0.0), where=bound > 0)
    # of what is too far off, what is furthest off: near zero, the ratio says more of the bound than of the error
    wrong = ratio > 1
    is_wrong = bool(wrong.any())
    place = np.unravel_index(int((np.where(wrong, error, 0.0) if is_wrong else ratio).argmax()), ratio.shape)
    axis = _telling_axis(wrong) if is_wrong else None
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
