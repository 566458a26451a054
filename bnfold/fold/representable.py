"""Whether folded constants can be written in their type without losing more than one rounding."""

from __future__ import annotations

from collections.abc import Iterable

import ml_dtypes
import numpy as np

from bnfold.graph import is_float
from bnfold.ops import Assign, Edit
from bnfold.ops.weights import Exact, Scaled
from bnfold.reasons import Reason, Refused
from bnfold.rounding import rounded

_HARMLESS = 2.0**20  # a float32 weight survives a factor within this and its inverse


def refuse_unrepresentable(edits: Iterable[Edit]) -> None:
    """Refuses a fold that would write infinities, or channels so small that their type keeps few bits of them.

    A large float32 weight is only read for this where its factor is extreme.
    """
    for edit in edits:
        if not isinstance(edit, Assign):
            continue
        constant = edit.constant
        if isinstance(constant, Exact | Scaled) and not is_float(constant.dtype):
            raise Refused(Reason.NOT_FLOAT, value=edit.op.label)
        if isinstance(constant, Exact):
            _refuse_overflow(edit, constant)
        elif isinstance(constant, Scaled) and _is_risky(constant):
            _refuse_overflow(edit, constant)
            _refuse_underflow(edit, constant)


def _is_risky(constant: Scaled) -> bool:
    if constant.dtype == np.float16:
        return True
    size = np.abs(constant.factor[constant.factor != 0])
    return bool(size.size and (size.max() > _HARMLESS or size.min() < 1 / _HARMLESS))


def _refuse_overflow(edit: Assign, constant: Exact | Scaled) -> None:
    exact = constant.float64()
    if not np.isfinite(rounded(exact, constant.dtype)[np.isfinite(exact)]).all() or not np.isfinite(exact).all():
        raise Refused(Reason.OVERFLOW, op_type=edit.op.type)


def _refuse_underflow(edit: Assign, constant: Scaled) -> None:
    """Each channel's largest rounding error may be what one rounding of its largest weight is."""
    exact = np.abs(constant.float64())
    error = np.abs(rounded(exact, constant.dtype).astype(np.float64) - exact)
    unit = 2.0 ** -_precision(constant.dtype)
    factor = constant.factor.reshape((1,) * (exact.ndim - constant.factor.ndim) + constant.factor.shape)
    for channels in [axis for axis, size in enumerate(factor.shape) if size > 1] or [-1]:  # -1: one factor for all
        others = tuple(axis for axis in range(exact.ndim) if axis != channels)
        if (error.max(others) > 1.01 * unit * exact.max(others)).any():
            raise Refused(Reason.UNDERFLOW, op_type=edit.op.type)


def _precision(dtype: np.dtype) -> int:
    """Bits of the significand, the hidden one included."""
    bits: int = ml_dtypes.finfo(dtype).nmant + 1  # type: ignore[no-untyped-call]  # it ships no types for this
    return bits
