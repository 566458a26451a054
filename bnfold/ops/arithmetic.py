"""Add, Sub, Mul and Div of two computed values: residual sums and gates."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from bnfold.affine import Affine
from bnfold.graph import Op
from bnfold.ops.rule import Step, refuse_shift
from bnfold.reasons import Reason, Refused


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
    """(a + t) ± b = (a ± b) + t; a scale would have to come with both operands."""
    if affine.has_scale:
        raise Refused(Reason.SCALE_MEETS_SUM, op_type=op.type)
    sign = -1 if op.type == "Sub" and index == 1 else 1
    return [Step({0: _widened(op, Affine(affine.scale, sign * affine.shift))})]


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
    refuse_shift(op, affine)
    scale = _inverted(op, affine) if op.type == "Div" and index == 1 else affine
    return [Step({0: _widened(op, scale)})]


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
