"""Values that carry a bound on their error.

What differs between a model and its right rewriting is how weights were rounded. A stored weight that only one side has
is off by half a unit in its last place; from there on every operator says how far its result may be off
(`bnfold.verification.float64.rules`), and two results that are within their bounds of each other may be equal.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import ml_dtypes
import numpy as np

from bnfold.affine import FloatArray
from bnfold.graph import Op
from bnfold.verification.float64.kernel import Array

K = 8.0
"""Standard deviations that a sum of independent roundings is granted. By Hoeffding's inequality for what is uniform
within its bounds, one number in exp(K²/2) / 2 = 4e13 has more."""
NOISE = 2.0**-46
"""64 units in the last place of float64: what its own rounding is taken for where it is carried too."""
_SMALLER = 2  # moves by less than the whole error, of each kind
_EXPONENT = np.uint64(0x7FF << 52)  # the bits of a float64 that say how large it is
_WHOLE = 2.0**52  # below it, whole numbers are counts and positions, mostly, and exact


class Rounding(NamedTuple):
    """Rounding moves a number w by u|w| + eta at the most (Higham 2002, 2.2: with gradual underflow).

    Attributes:
        u: Half the distance of neighbours, relative to a power of two.
        eta: Half the smallest subnormal number.
    """

    u: float
    eta: float

    def of(self, x: Array) -> FloatArray:
        """How far each number may be from what was rounded to it: half the distance to its neighbour."""
        x = np.asarray(x, np.float64)
        step = np.bitwise_and(x.view(np.uint64), _EXPONENT, out=np.empty(x.shape, np.uint64)).view(np.float64)
        if not np.isfinite(step.max(initial=0.0)):
            step = np.where(np.isfinite(x), step, 0.5)
        step *= self.u
        return np.maximum(step, self.eta, out=step)

    def times(self, factor: float) -> Rounding:
        return Rounding(factor * self.u, factor * self.eta)


def rounding_to(dtype: np.dtype[Any]) -> Rounding:
    """What one rounding to a floating-point type can do."""
    info = ml_dtypes.finfo(dtype)  # type: ignore[no-untyped-call]
    smallest = float(info.smallest_subnormal)
    return Rounding(2.0 ** -(info.nmant + 1), smallest / 2 or smallest)  # half of float64's is 0


class Num(NamedTuple):
    """A value, and how far it may be off.

    Attributes:
        value: An array in float64, or in its own type if that is not floating-point; None of an omitted input.
        error: A bound for each entry; None if it is exact.
        fresh: Whether each entry was rounded on its own, so that the errors in a sum do not all add up.
    """

    value: Any
    error: FloatArray | None = None
    fresh: bool = False


@dataclass(frozen=True)
class Call:
    """An operator at work.

    Attributes:
        op: The operator.
        inputs: What it reads.
        outputs: What it makes of their values.
        run: What it makes of other values.
        unit: How far a result of float64 is off for its own rounding, relative to it; 0 if that does not count.
    """

    op: Op
    inputs: Sequence[Num]
    outputs: Sequence[Any]
    run: Callable[[Sequence[Any]], Sequence[Any]]
    unit: float = 0.0

    def error(self, place: int) -> FloatArray:
        """The bound of an input."""
        num = self.inputs[place]
        return np.zeros(np.shape(num.value)) if num.error is None else num.error

    def value(self, place: int) -> Any:
        """The value of an input, None if it is omitted."""
        return self.inputs[place].value if place < len(self.inputs) else None

    def is_off(self, place: int) -> bool:
        """Whether an input has an error."""
        return place < len(self.inputs) and self.inputs[place].error is not None

    def shifted(self, sign: Callable[[FloatArray], Any]) -> list[Any]:
        """The inputs off by as much as they may be, up or down as ``sign`` says of each error."""
        return [
            num.value if num.error is None else _shifted(num.value, sign(num.error) * num.error) for num in self.inputs
        ]


Rule = Callable[[Call], Sequence[Any]]
"""How far each result of a call may be off."""


def _shifted(value: Array, by: FloatArray) -> Array:
    if value.dtype == np.bool_:
        return value ^ (by > 0)
    if value.dtype.kind not in "iu":
        return np.asarray(value + by)
    limits = np.iinfo(value.dtype)
    return np.asarray(np.clip(np.rint(value + by), limits.min, limits.max).astype(value.dtype))


def distance(old: Array, new: Array) -> FloatArray:
    """How far two results are apart; infinitely if that cannot be told."""
    if np.shape(old) != np.shape(new):
        return np.full(np.shape(old), np.inf)
    gap = np.abs(np.asarray(new, np.float64) - np.asarray(old, np.float64))
    if np.isnan(gap.max(initial=0.0)):  # infinite both, or no numbers
        gap = np.where(old == new, 0.0, np.where(np.isnan(gap), np.inf, gap))
    return np.asarray(gap)


def tried(call: Call) -> list[FloatArray | None]:
    """Of an operator without a rule: moved up, down, and at random, the same each time, as if independent.

    And by less than that: what jumps may jump back.
    """
    random = np.random.default_rng(0)
    signs = [lambda e: np.ones(e.shape), lambda e: -np.ones(e.shape)]
    signs += [lambda e: random.choice((-1.0, 1.0), e.shape)] * int(K)
    signs += [lambda e: random.uniform(-1.0, 1.0, e.shape), lambda e: random.uniform(-0.1, 0.1, e.shape)] * _SMALLER
    moved = [call.run(call.shifted(sign)) for sign in signs]
    found: list[FloatArray | None] = []
    for place, y in enumerate(call.outputs):
        if y is None:
            found.append(None)
            continue
        moves = np.stack([distance(y, results[place]) for results in moved])
        found.append(np.maximum(moves.max(axis=0), K * np.sqrt((moves[2 : 2 + int(K)] ** 2).mean(axis=0))))
    return found


def noise(y: Array, unit: float) -> FloatArray:
    """What float64's own rounding does to a result."""
    exact = (y == np.rint(y)) & (np.abs(y) < _WHOLE)
    return np.where(exact, 0.0, unit * np.abs(y))
