"""Operators that reduce a window or whole axes. An affine that does not vary on those axes commutes with a mean."""

from __future__ import annotations

import numpy as np

from bnfold.affine import Affine, FloatArray
from bnfold.graph import Op
from bnfold.ops.pointwise import homogeneous
from bnfold.ops.rule import Carrier, OpRule, passes, refuse_shift, refuse_unless_positive
from bnfold.reasons import Reason, Refused

_SPATIAL_FROM = 2


def mean_of_window(op: Op, affine: Affine) -> Affine:
    """mean(s x + t) = s mean(x) + t; padding that counts as zeros receives no shift."""
    _refuse_spatial(op, affine)
    counted = op.attribute("count_include_pad", 0)
    if counted and affine.has_shift and _reaches_beyond(op):
        raise Refused(Reason.SHIFT_MEETS_PADDING)
    return affine


def _reaches_beyond(op: Op) -> bool:
    """Whether a window can cover more than the input; sizes are not looked at."""
    auto_pad = op.attribute("auto_pad", b"NOTSET")
    return bool(any(op.attribute("pads", ())) or op.attribute("ceil_mode", 0) or auto_pad not in (b"NOTSET", b"VALID"))


def largest_of_window(op: Op, affine: Affine) -> Affine:
    """max(s x + t) = s max(x) + t for s > 0; padding never wins."""
    _refuse_spatial(op, affine)
    refuse_unless_positive(affine)
    return affine


def norm_of_window(op: Op, affine: Affine) -> Affine:
    """‖s x‖ = s ‖x‖ for s >= 0; zero padding adds nothing to a norm."""
    _refuse_spatial(op, affine)
    return homogeneous(op, affine)


def mean_of_plane(op: Op, affine: Affine) -> Affine:
    """GlobalAveragePool"""
    _refuse_spatial(op, affine)
    return affine


def _refuse_spatial(op: Op, affine: Affine) -> None:
    spatial = [axis for axis in affine.axes if axis >= _SPATIAL_FROM]
    if spatial:
        raise Refused(Reason.WRONG_AXIS, axes=sorted(affine.axes), op_type=op.type, expected=[0, 1])


# --- Reduce: axes may be dropped, and the rank with them -----------------------------------------------------

_AXES_ARE_AN_INPUT_FROM = {"ReduceSum": 13}
_AXES_ARE_AN_INPUT_FROM_18 = 18


def reduced_axes(op: Op) -> tuple[int, ...]:
    """The axes that a Reduce operator works on, counted from the front."""
    rank = len(op.shape(0))
    if op.opset < _AXES_ARE_AN_INPUT_FROM.get(op.type, _AXES_ARE_AN_INPUT_FROM_18):
        axes = op.attribute("axes")
    else:
        constant = op.optional_constant(1)
        axes = None if constant is None else constant.array().tolist()
    if not axes:
        return () if op.attribute("noop_with_empty_axes", 0) else tuple(range(rank))
    return tuple(sorted(axis % rank for axis in axes))


def _down(op: Op, affine: Affine) -> Affine:
    axes = reduced_axes(op)
    if affine.axes & set(axes):
        raise Refused(Reason.WRONG_AXIS, axes=sorted(affine.axes), op_type=op.type, expected="an axis that is kept")
    _refuse_what_the_reduction_changes(op, affine)
    summed = Affine(affine.scale, affine.shift * _count(op, affine, axes))
    return summed if op.attribute("keepdims", 1) else summed.carried(lambda array: np.squeeze(array, axes))


def _up(op: Op, affine: Affine) -> Affine:
    axes = reduced_axes(op)
    expanded = affine if op.attribute("keepdims", 1) else affine.carried(lambda array: np.expand_dims(array, axes))
    if expanded.axes & set(axes):
        raise Refused(Reason.WRONG_AXIS, axes=sorted(expanded.axes), op_type=op.type, expected="an axis that is kept")
    _refuse_what_the_reduction_changes(op, expanded)
    return Affine(expanded.scale, expanded.shift / _count(op, expanded, axes))


def _refuse_what_the_reduction_changes(op: Op, affine: Affine) -> None:
    if op.type in ("ReduceMax", "ReduceMin"):
        refuse_unless_positive(affine)
    if op.type in ("ReduceL1", "ReduceL2"):
        homogeneous(op, affine)


def _count(op: Op, affine: Affine, axes: tuple[int, ...]) -> FloatArray | float:
    """How often the shift is counted: as many times as values are summed."""
    if op.type != "ReduceSum" or not affine.has_shift:
        return 1.0
    sizes = [op.shape(0)[axis] for axis in axes]
    known = [size for size in sizes if isinstance(size, int)]
    if len(known) != len(sizes) or 0 in known:
        refuse_shift(op, affine)
    return float(np.prod(known))


_REDUCE = Carrier(_up, _down).rule()

RULES: dict[str, OpRule] = {
    "AveragePool": passes(mean_of_window),
    "GlobalAveragePool": passes(mean_of_plane),
    "MaxPool": passes(largest_of_window),
    "GlobalMaxPool": passes(largest_of_window),
    "LpPool": passes(norm_of_window),
    "GlobalLpPool": passes(norm_of_window),
    "ReduceMean": _REDUCE,
    "ReduceSum": _REDUCE,
    "ReduceMax": _REDUCE,
    "ReduceMin": _REDUCE,
    "ReduceL1": _REDUCE,
    "ReduceL2": _REDUCE,
}
