"""Whether folded constants can be written in their type. What is refused here never fails while it is written."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from bnfold.folding.underflow import (
    NOTHING_KNOWN,
    Scaling,
    refuse_small_factors,
    refuse_small_product,
    refuse_underflow,
)
from bnfold.graph import Constant, Evaluated, is_float
from bnfold.ops import AddBehind, Assign, Edit
from bnfold.ops.linear import WEIGHT
from bnfold.ops.rows import ROWS
from bnfold.ops.weights import Enlarged, Exact, Scaled, bound
from bnfold.reasons import Reason, Refused
from bnfold.rounding import FORMATS, rounded


def refuse_unrepresentable(edits: Iterable[Edit], scaling: Scaling = NOTHING_KNOWN) -> None:
    """Refuses a fold that would write infinities, or channels so small that they suffer from it.

    A weight is read for this once, and only where its factors make some numbers larger or, by far, smaller.
    """
    for edit in edits:
        if not isinstance(edit, Assign | AddBehind):
            continue
        if isinstance(edit.constant, Exact | Scaled) and not is_float(edit.constant.dtype):
            raise Refused(Reason.NOT_FLOAT, value=edit.op.label)
        if is_float(edit.constant.dtype):
            if _overflows(edit.constant):
                raise Refused(Reason.OVERFLOW, op_type=edit.op.type)
            if isinstance(edit.constant, Scaled):
                refuse_underflow(edit.op, edit.constant, scaling)
            elif isinstance(edit.constant, Exact) and _is_product(edit):
                refuse_small_product(edit.op, edit.constant)
            elif isinstance(edit.constant, Exact) and edit.constant.multiplies:
                refuse_small_factors(edit.op, edit.constant, scaling)


def _is_product(edit: Assign | AddBehind) -> bool:
    return isinstance(edit, Assign) and edit.index == WEIGHT and edit.op.type in ROWS


def _overflows(constant: Constant) -> bool:
    """Whether something finite would be infinite; what came in as NaN or infinity may stay so in a weight."""
    if isinstance(constant, Scaled) and (np.abs(constant.factor) <= 1).all():
        return False
    is_weight = isinstance(constant, Scaled | Enlarged) and constant.dtype.name in FORMATS
    if is_weight and bound(constant) < FORMATS[constant.dtype.name].largest:
        return False
    match constant:
        case Scaled():
            exact = constant.peaks()
        case Evaluated():
            exact = np.asarray(constant.peak)
        case _:
            exact = constant.float64()
    return not np.isfinite(rounded(exact, constant.dtype)).all()
