"""Can rounding explain the difference between the two sides of a region?

The sides get the same values at their border. Their difference is held against the effect of moving every changed
weight by what rounding to its own type can do, up or down at random: one rounding cannot do more, save for a factor
that covers the tail of its distribution.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from bnfold.affine import FloatArray
from bnfold.verify.float64.evaluate import CannotEvaluate
from bnfold.verify.regional.side import Array, Given, Side, rounding_of

_MANY = 16  # times that the weights are moved before anything is called different
_SOME = 4  # of them, before a second look: one that is enough already stays so, near enough
# Rounding is uniform within half an ulp, the moves are half an ulp: five times their root mean square are nearly nine
# times that of rounding. The largest of many moves at one entry is about twice their root mean square there.
_TAIL, _TAIL_OF_LARGEST = 5.0, 3.0
_NOISE = 1e-13  # of a number itself: the noise of float64
_APART = 1e6  # times the median: what is so much larger is of another kind
_MAGNIFIED = 100.0  # times: the rounding of a sum's terms is not that large beside the sum, or was so before
_POOL = 8  # fewest entries that tell a root mean square


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
    """

    ratio: float
    difference: float
    bound: float
    axis: int | None = None
    channel: int | None = None
    detail: str = ""


def compared(left: Side, right: Side, given: Given, old: Array, random: np.random.Generator) -> Finding:
    """Compares the two sides on the same values.

    Args:
        left: The side of BEFORE.
        right: The side of AFTER.
        given: The values at the border.
        old: What the left side makes of them.
        random: For moving the weights.

    Raises:
        CannotEvaluate: A side cannot be evaluated, or nothing that says anything comes of it.
    """
    new = right.value(given)
    if old.shape != new.shape:
        return Finding(np.inf, np.inf, 0.0, detail=f"shape {list(new.shape)} in the place of {list(old.shape)}")
    if not old.size:
        raise CannotEvaluate("its value has no elements")
    if old.dtype != np.float64 or new.dtype != np.float64:
        share = float(np.mean(old != new))
        return Finding(np.inf, share, 0.0, detail=f"{share:.0%} of the entries differ") if share else Finding(0, 0, 0)
    both = np.isfinite(old) & np.isfinite(new)
    if wrong := int((~(both | (old == new) | (np.isnan(old) & np.isnan(new)))).sum()):
        return Finding(np.inf, np.inf, 0.0, detail=f"{wrong} entries are not finite on one side only")
    if not both.any():
        raise CannotEvaluate("nothing finite comes of it")
    return _explained(left, right, given, np.where(both, old, 0.0), np.where(both, new, 0.0), random)


def is_mostly_finite(value: Array) -> bool:
    """Whether what was given suits the operators that made this of it, as negative numbers do not suit a root."""
    return value.dtype != np.float64 or not value.size or float(np.isfinite(value).mean()) >= 0.5


def _explained(
    left: Side, right: Side, given: Given, old: FloatArray, new: FloatArray, random: np.random.Generator
) -> Finding:
    """Tries a cheap bound, then a careful one, then one that grants the original a rounding of its own weights."""
    noise = _NOISE * np.abs(old)
    if (np.abs(old - new) <= noise).all():
        return _worst(old, new, noise)
    rounding = _Rounding(new, _is_still(given, len(new) if new.ndim else 0))
    few = -(-_POOL * math.prod(new.shape[:2]) // new.size)
    rounding.measure(right, given, few, random)
    finding = _worst(old, new, _TAIL * rounding.pooled() + noise)
    for times in (_SOME, _MANY - _SOME):
        if finding.ratio <= 1:
            return _unless_magnified(finding, left, right, given, old, rounding, random)
        rounding.measure(right, given, times, random, scatter=True)
        rounding.measure(left, given, times, random, scatter=True, weights=False, base=old)
        finding = _worst(old, new, rounding.careful() + noise)
    if finding.ratio <= 1 or not left.changed:
        return _unless_magnified(finding, left, right, given, old, rounding, random)
    rounding.measure(left, given, _MANY, random, folds=True, base=old)
    lenient = _worst(old, new, rounding.careful() + noise)
    return replace(lenient, detail="folded in low precision") if lenient.ratio <= 1 else finding


def _unless_magnified(
    finding: Finding,
    left: Side,
    right: Side,
    given: Given,
    old: FloatArray,
    rounding: _Rounding,
    random: np.random.Generator,
) -> Finding:
    """The finding, unless AFTER magnifies the rounding of its weights and BEFORE does not: that explains anything."""
    unit = max((rounding_of(weight).u for weight in right.changed), default=0.0)
    if finding.ratio > 1 or finding.bound <= _MAGNIFIED * _TAIL * unit or not unit:
        return finding
    own = _Rounding(old, np.zeros(1, bool))
    own.measure(left, given, _SOME, random)
    if float(rounding.pooled().max()) <= _MAGNIFIED * float(own.pooled().max()):
        return finding
    return replace(finding, ratio=np.inf, detail="AFTER magnifies the rounding of its weights, BEFORE does not")


def _is_still(given: Given, rows: int) -> npt.NDArray[np.bool_]:
    """Which samples are made of zeros alone, so that each weight counts alike at all places."""
    arrays = [x.reshape(rows, -1) for x in given.values() if x.ndim and len(x) == rows and x.size]
    return np.logical_and.reduce([~x.any(axis=1) for x in arrays]) if arrays else np.zeros(1, bool)


class _Rounding:
    """What moving the weights of a side does to its value, measured again and again."""

    def __init__(self, value: FloatArray, still: npt.NDArray[np.bool_]) -> None:
        self.largest = np.zeros(value.shape)
        self._still = still.reshape(-1, *[1] * (value.ndim - 1)) if value.ndim else still.reshape(())
        self._value = value
        self._squares = np.zeros(value.shape)
        self._count = np.zeros(value.shape)
        self._times = 0
        size = np.abs(value)
        # a mask of -3e38 among numbers that mean something says nothing of what rounding does to those
        self._stands_out = size > _APART * float(np.median(size[size > 0])) if size.any() else size > 0

    def measure(
        self,
        side: Side,
        given: Given,
        times: int,
        random: np.random.Generator,
        *,
        weights: bool = True,
        scatter: bool = False,
        folds: bool = False,
        base: FloatArray | None = None,
    ) -> None:
        """Moves weights so many times, see `Side.moved`; ``base`` is what the side makes of them unmoved."""
        value = self._value if base is None else base
        for _ in range(times if side.changed or side.retuned or scatter else 0):
            self._times += 1
            moved = side.moved(given, random, weights=weights, scatter=scatter, folds=folds)
            if moved.shape != value.shape:
                continue  # a factor of a Resize was moved
            move = np.asarray(np.abs(moved - value))
            move[~np.isfinite(move)] = 0.0
            np.maximum(self.largest, move, out=self.largest)
            move[self._stands_out] = 0.0
            self._squares += move**2
            self._count += move != 0

    def careful(self) -> FloatArray:
        """What rounding explains at each entry, once it has been measured often enough."""
        return np.asarray(np.maximum(_TAIL * self.pooled(), _TAIL_OF_LARGEST * self.largest))

    def pooled(self) -> FloatArray:
        """The root mean square, over the entries of a sample that belong to one channel and move at all."""
        axis = _channel_axis(self._squares)
        keep = {0, axis} - {None}
        squares, count = (_sum_but(array, keep) for array in (self._squares, self._count))
        of_sample, in_sample = (_sum_but(array, {0}) for array in (self._squares, self._count))
        mean, overall = squares / np.maximum(count, 1), of_sample / np.maximum(in_sample, 1)
        are_few = (count < _POOL) | (self._still & (self._times < _POOL))
        mean = np.where(are_few, np.maximum(mean, overall), mean)
        return np.asarray(np.broadcast_to(np.sqrt(mean), self._squares.shape))


def _sum_but(array: FloatArray, keep: set[int | None]) -> FloatArray:
    return np.asarray(array.sum(axis=tuple(axis for axis in range(array.ndim) if axis not in keep), keepdims=True))


def _channel_axis(squares: FloatArray) -> int | None:
    """The axis, not the first, along which a value moves most unevenly: the one that tells channels apart."""
    best, found = 0.0, None
    for axis in range(1, squares.ndim):
        if squares.shape[axis] > 1:
            spread = float(np.log(_sum_but(squares, {axis}) + 1e-300).std())
            if spread > best:
                best, found = spread, axis
    return found


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
