"""Which operator of a region that differs is at fault.

What a fold moves about are affines: inside a correct region, every value of AFTER is one of BEFORE up to a factor and
a shift in each channel. The first value that is not was made by the operator at fault, or by one right before it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, TypeGuard

import numpy as np
import numpy.typing as npt

from bnfold.affine import FloatArray
from bnfold.graph import Op, Value
from bnfold.verification.float64.evaluate import CannotEvaluate
from bnfold.verification.regions.side import Given, Side

Array = npt.NDArray[Any]
Known = Mapping[Value, Any]
_ADDS = frozenset({"Add", "Sub"})
_MORE_ROWS = 7
_ROUNDINGS = 8.0
_ALIKE = 1e-5  # of its size, to which a value has to be an affine of another


def changed_operators(left: Side, right: Side) -> list[Op]:
    """The operators of AFTER that have other weights; else the last of the region."""
    readers = [op for op in right.region.ops if any(value in right.changed for value in op.inputs)]
    return readers or list((right.region.ops or left.region.ops)[-1:])


def culprit(left: Side, right: Side, given: Given) -> Op | None:
    """The operator at fault, None if that cannot be told.

    Args:
        left: The side of BEFORE.
        right: The side of AFTER.
        given: Values at the border for which the two sides differ.
    """
    try:
        old, new = _traces(left, right, given)
    except CannotEvaluate:
        return None
    changed = changed_operators(left, right)
    met: list[Op] = []
    for op in right.region.ops:
        output = op.outputs[0] if op.outputs else None
        value = None if output is None else new.get(output)
        if op in changed:
            met.append(op)
        if not met or not _is_real(value):
            continue
        if output is right.region.target:
            left_over = [o for o in met if o is op or not _is_cleared(o, old, new, _ROUNDINGS * right.unit)]
            return _blamed(left_over or met, value, old[left.region.target])
        if not any(_is_real(other) and _is_affine_of(value, other) for other in old.values()):
            return _blamed(met, value, old[left.region.target])
    return met[-1] if met else None


def _is_cleared(op: Op, old: Known, new: Known, rounding: float) -> bool:
    """Whether its output is a value of BEFORE, unchanged but for rounding."""
    output = op.outputs[0]
    value = None if output is None else new.get(output)
    return _is_real(value) and any(
        _is_real(other)
        and other.shape == value.shape
        and float(np.linalg.norm(other - value)) <= rounding * float(np.linalg.norm(value))
        for other in old.values()
    )


def _blamed(met: Sequence[Op], value: FloatArray, target: Any) -> Op:
    """The last changed operator; the one before if that only adds a constant, and more than a constant is wrong."""
    if len(met) > 1 and met[-1].type in _ADDS and not (_is_real(target) and _is_affine_of(value, target, factor=1.0)):
        return met[-2]
    return met[-1]


def _traces(left: Side, right: Side, given: Given) -> tuple[Known, Known]:
    """All values on both sides, for more samples than were given if that is possible."""
    rows = {array.shape[0] for array in given.values() if array.ndim}
    more = {number: np.concatenate([x, *_like(x)]) if x.ndim else x for number, x in given.items()}
    if len(rows) == 1:
        try:
            return _traced(left, right, more)
        except CannotEvaluate:
            pass  # the region knows the number of samples by heart
    return _traced(left, right, given)


def _traced(left: Side, right: Side, given: Mapping[int, Array]) -> tuple[Known, Known]:
    old, new = (side.evaluator.trace(side.region.ops, side.known(given), side.how) for side in (left, right))
    if left.region.target not in old or right.region.target not in new:
        raise CannotEvaluate("a side of the region has no operators")
    return old, new


def _like(x: Array) -> Iterator[Array]:
    """More samples like the given ones."""
    random = np.random.default_rng(0)
    for _ in range(_MORE_ROWS):
        yield random.permuted(x, axis=x.ndim - 1) * (1 + 0.1 * random.standard_normal(x.shape)) if _is_real(x) else x


def _is_real(array: Any) -> TypeGuard[FloatArray]:
    return isinstance(array, np.ndarray) and array.dtype == np.float64


def _is_affine_of(array: FloatArray, other: FloatArray, factor: float | None = None) -> bool:
    """Whether a value is another but for a factor (any, or a given one) and a shift along some axis, and rounding."""
    if array.shape != other.shape:
        return False
    return array.ndim < 2 or any(_is_affine_along(axis, array, other, factor) for axis in range(1, array.ndim))


def _is_affine_along(axis: int, array: FloatArray, other: FloatArray, factor: float | None) -> bool:
    y = np.moveaxis(array, axis, 0).reshape(array.shape[axis], -1)
    x = np.moveaxis(other, axis, 0).reshape(array.shape[axis], -1)
    if y.shape[1] < 3:
        return True  # two points always lie on a line
    if not (np.isfinite(x).all() and np.isfinite(y).all()):
        return False
    shifted, aim = x - x.mean(axis=1, keepdims=True), y - y.mean(axis=1, keepdims=True)
    power = (shifted**2).sum(axis=1, keepdims=True)
    fitted = np.divide((shifted * aim).sum(axis=1, keepdims=True), power, out=np.zeros_like(power), where=power > 0)
    rest = np.linalg.norm(aim - (fitted if factor is None else factor) * shifted, axis=1)
    return bool((rest <= _ALIKE * np.linalg.norm(aim, axis=1)).all())
