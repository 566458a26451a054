"""Add, Sub, Mul and Div of two computed values: residual sums and gates."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from bnfold.affine import Affine
from bnfold.graph import Op
from bnfold.ops.rule import Step, refuse_shift
from bnfold.reasons import Reason, Refused

# That other operands are multiplied or divided by: what is computed on the way must stay in the range of its type.
_MOST, _MOST_OF_HALF = 2.0**10, 2.0**3


def sum_lifts(op: Op, affine: Affine) -> Sequence[Step]:
    """s(a ± b) + t = (s a + t) ± s b = s a ± (s b ± t)"""
    scaled = {index: _narrowed(op, index, affine.only_scale()) for index in range(len(op.inputs))}
    if not affine.has_shift:
        return [Step(scaled)]
    steps = []
    for index in range(len(op.inputs)):
        sign = -1 if op.type == "Sub" and index == 1 else 1
        steps.append(Step({**scaled, index: _narrowed(op, index, Affine(affine.scale, sign * affine.shift))}))
    return steps


def sum_sinks(op: Op, index: int, affine: Affine) -> Sequence[Step]:
    """(s a + t) ± b = s(a ± b / s) + t"""
    return sum_meets(op, {index: affine})


def sum_meets(op: Op, affines: Mapping[int, Affine]) -> Sequence[Step]:
    """(s a + t) ± (s b + u) ± c = s(a ± b ± c / s) + (t ± u)"""
    affines = {index: _widened(op, affine) for index, affine in affines.items()}
    first, *others = affines.values()
    if any((other.scale != first.scale).any() for other in others):
        raise Refused(Reason.SCALE_MEETS_SUM, op_type=op.type)
    shift = sum(-affine.shift if op.type == "Sub" and index == 1 else affine.shift for index, affine in affines.items())
    missing = [index for index in range(len(op.inputs)) if index not in affines]
    whole = Affine(first.scale, np.asarray(shift))
    return [Step({0: whole}, beside=_unscaled(op, missing, whole) if whole.has_scale else {})]


def _unscaled(op: Op, indices: Sequence[int], affine: Affine) -> dict[int, Affine]:
    """What operands need that a scale did not come to: its inverse."""
    size = np.abs(affine.scale)
    dtype = op.graph.dtype(op.data(0))
    most = _MOST if dtype is not None and dtype.itemsize >= 4 else _MOST_OF_HALF
    if indices and not ((size >= 1 / most) & (size <= most)).all():
        raise Refused(Reason.SCALE_MEETS_SUM, op_type=op.type)
    return {index: _narrowed(op, index, affine.only_scale().inverse()) for index in indices}


def product_lifts(op: Op, affine: Affine) -> Sequence[Step]:
    """s(a b) = (s a) b = a (s b), s(a / b) = (s a) / b"""
    refuse_shift(op, affine)
    steps = []
    for index in range(len(op.inputs)):
        try:
            scale = _inverted(op, affine) if op.type == "Div" and index == 1 else affine
            steps.append(Step({index: _narrowed(op, index, scale)}))
        except Refused as error:
            refused = error
    if not steps:
        raise refused
    return steps


def product_sinks(op: Op, index: int, affine: Affine) -> Sequence[Step]:
    """(s a) b = s(a b), a / (s b) = (a / b) / s"""
    return product_meets(op, {index: affine})


def product_meets(op: Op, affines: Mapping[int, Affine]) -> Sequence[Step]:
    """(s a)(r b) = s r(a b), (s a) / (r b) = (s / r)(a / b)"""
    whole = None
    for index, affine in affines.items():
        refuse_shift(op, affine)
        scale = _widened(op, _inverted(op, affine) if op.type == "Div" and index == 1 else affine)
        whole = scale if whole is None else whole.then(scale)
    assert whole is not None
    return [Step({0: whole})]


def _inverted(op: Op, affine: Affine) -> Affine:
    if not affine.scale.all():
        raise Refused(Reason.UNSUPPORTED, op_type=op.type, detail="a divisor with a scale of zero")
    return Affine(1 / affine.scale, affine.shift)


def _narrowed(op: Op, index: int, affine: Affine) -> Affine:
    """The affine of the result as one of an operand, which may be broadcast along axes it does not vary on."""
    shape = op.shape(index)
    extra = affine.rank - len(shape)
    for axis in affine.axes:
        if axis < extra or shape[axis - extra] != affine.shape[axis]:
            raise Refused(Reason.EXPANDS, value=op.data(index).name)
    return affine.carried(lambda array: array.reshape(array.shape[extra:]))


def _widened(op: Op, affine: Affine) -> Affine:
    """The affine of an operand as one of the result, which may have more axes in front."""
    rank = max(len(op.shape(index)) for index in range(len(op.inputs)))
    return affine.carried(lambda array: np.reshape(array, (1,) * (rank - affine.rank) + array.shape))
