"""Operators that work element by element: arithmetic with a constant, and activations.

Mul, Div, Add and Sub by a constant are affines of their own, so they absorb another where the composition still
fits the operator, and let pass on what does not. With ``m`` and ``k`` the operator's own scale and shift:

    Mul, Div: A(m x) = m' x + t        Add, Sub: A(m x + k) = m (s x) + (s k + t),  m = ±1
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import prod

import numpy as np

from bnfold.affine import WIDE, Affine, FloatArray, narrowed
from bnfold.graph import Op, is_float
from bnfold.graph.evaluate import aligned, converted
from bnfold.ops.arithmetic import (
    product_lifts,
    product_meets,
    product_sinks,
    sum_lifts,
    sum_meets,
    sum_sinks,
)
from bnfold.ops.rule import (
    Assign,
    Edits,
    OpRule,
    Step,
    passes,
    refuse_shift,
)
from bnfold.ops.weights import Exact
from bnfold.reasons import Reason, Refused

_BROADCAST_IS_NUMPYS_FROM = 7
_MANY = 1 << 14  # elements that a constant may grow to


# --- arithmetic with a constant as an affine -----------------------------------------------------------------


def arithmetic_affine(op: Op) -> tuple[int, Affine]:
    """The data input's index, and what the op does to it.

    Raises:
        Refused: no operand is constant, or the constant broadcasts the data to a larger shape.
    """
    index, side = _sides(op)
    shape = op.shape(index)
    values = _operand(op, index, side)
    extra = len(shape) - values.ndim
    if extra < 0:
        raise Refused(Reason.EXPANDS, value=op.data(index).name)
    values = values.reshape((1,) * extra + values.shape)
    for size, own in zip(shape, values.shape, strict=True):
        if own not in (1, size):
            known = isinstance(size, int)
            raise Refused(Reason.EXPANDS if known else Reason.SHAPE_UNKNOWN, value=op.data(index).name)
    return index, _as_affine(op.type, values, constant_first=side == 0)


def scaler_affine(op: Op) -> tuple[int, Affine]:
    """(x - offset) * scale, as scikit-learn's converters write it; the result is float32 whatever x is."""
    shape = op.shape()
    if len(shape) != 2 or op.graph.dtype(op.data()) != np.float32:
        raise Refused(Reason.UNSUPPORTED, op_type=op.type, detail=f"a value of rank {len(shape)} or not float32")
    scale, offset = (np.array(op.attribute(name, ()), np.float64).reshape(1, -1) for name in ("scale", "offset"))
    if {scale.size, offset.size} - {1, shape[1]}:
        raise Refused(Reason.WRONG_SIZE, value=op.label, size=max(scale.size, offset.size), expected=shape[1])
    return 0, Affine(*np.broadcast_arrays(scale, -offset * scale))


def _sides(op: Op) -> tuple[int, int]:
    """Which input is data and which the constant."""
    if len(op.inputs) != 2:
        raise Refused(Reason.UNSUPPORTED, op_type=op.type, detail=f"{len(op.inputs)} inputs")
    left, right = (op.graph.constant(op.data(index)) for index in (0, 1))
    if left and right:
        raise Refused(Reason.UNSUPPORTED, op_type=op.type, detail="both operands are constant")
    if op.type == "Div" and left:
        raise Refused(Reason.UNSUPPORTED, op_type=op.type, detail="the divisor is computed")
    if not left and not right:
        op.constant(1)  # refuses, with the reason
    return (1, 0) if left else (0, 1)


def _operand(op: Op, index: int, side: int) -> FloatArray:
    constant = op.constant(side)
    if not is_float(constant.dtype):
        raise Refused(Reason.NOT_FLOAT, value=op.data(side).name)
    if side == 0 and op.opset < _BROADCAST_IS_NUMPYS_FROM and constant.shape != op.shape(index):
        raise Refused(Reason.UNSUPPORTED, op_type=op.type, detail="before opset 7 only the right operand broadcasts")
    values = constant.float64()
    if not np.isfinite(values).all() or (op.type == "Div" and not values.all()):
        raise Refused(Reason.NOT_FINITE, value=op.data(side).name)
    return converted(aligned(op, len(op.shape(index)), values), WIDE)


def _as_affine(op_type: str, values: FloatArray, *, constant_first: bool) -> Affine:
    one, zero = np.ones((1,) * values.ndim), np.zeros((1,) * values.ndim)
    match op_type:
        case "Mul":
            return Affine(values, zero)
        case "Div":
            return Affine(1 / values, zero)
        case "Add":
            return Affine(one, values)
        case "Sub":
            return Affine(-one, values) if constant_first else Affine(one, -values)
    raise ValueError(op_type)


def neg_affine(op: Op) -> tuple[int, Affine]:
    """-x, for real numbers: integers have a Neg too, and float64 does not hold them all"""
    dtype = op.graph.dtype(op.data())
    if dtype is None or not is_float(dtype):
        raise Refused(Reason.NOT_FLOAT, value=op.data().name)
    rank = len(op.shape(0))
    return 0, Affine(np.full((1,) * rank, -1.0), np.zeros((1,) * rank))


# --- and what it can take in or let pass ---------------------------------------------------------------------


def arithmetic_absorbs_output(op: Op, affine: Affine) -> Edits:
    """A(op(x)) as the same operator with another constant."""
    _, own = arithmetic_affine(op)
    return _with_affine(op, own.then(affine))


def arithmetic_absorbs_input(op: Op, index: int, affine: Affine) -> Edits:
    """op(A(x)) as the same operator with another constant."""
    data, own = arithmetic_affine(op)
    _refuse_constant_side(op, index, data)
    return _with_affine(op, affine.then(own))


def arithmetic_lifts(op: Op, output: int, affine: Affine) -> Sequence[Step]:
    """s(x + c) + t = s x + (s c + t), an Add takes the shift; or s(a x + c) + t = a(s x + ((s - 1) c + t) / a) + c"""
    if _is_computed(op):
        return sum_lifts(op, affine) if _is_sum(op) else product_lifts(op, affine)
    data, own = arithmetic_affine(op)
    steps = []
    if _is_sum(op):
        kept = Affine(own.scale, affine.scale * own.shift + affine.shift)
        steps += _steps(op, kept, {data: affine.only_scale()})
    if own.scale.all():
        shift = ((affine.scale - 1) * own.shift + affine.shift) / own.scale
        steps.append(Step({data: Affine(affine.scale, narrowed(shift))}))
    return steps + _steps(op, own.then(affine), {}, may_grow=True)


def arithmetic_sinks(op: Op, index: int, affine: Affine) -> Sequence[Step]:
    """(s x + t) + c = s(x + (t + c) / s), an Add takes the shift; or a(s x + t) + c = s(a x + c) + (a t + (1 - s) c)"""
    if _is_computed(op):
        return sum_sinks(op, index, affine) if _is_sum(op) else product_sinks(op, index, affine)
    data, own = arithmetic_affine(op)
    _refuse_constant_side(op, index, data)
    steps = []
    if _is_sum(op) and affine.scale.all():
        kept = Affine(own.scale, (own.scale * affine.shift + own.shift) / affine.scale)
        steps += _steps(op, kept, {0: affine.only_scale()})
    if own.scale.all():
        shift = own.scale * affine.shift + (1 - affine.scale) * own.shift
        steps.append(Step({0: Affine(affine.scale, narrowed(shift))}))
    return steps


def arithmetic_meets(op: Op, affines: Mapping[int, Affine]) -> Sequence[Step]:
    """A(a) ± B(b) = C(a ± b), A(a) B(b) = C(a b), where the operands are computed values"""
    if not _is_computed(op):
        raise Refused(Reason.PATHS_MEET, op_type=op.type)
    return sum_meets(op, affines) if _is_sum(op) else product_meets(op, affines)


def _steps(op: Op, wanted: Affine, to: dict[int, Affine], *, may_grow: bool = False) -> list[Step]:
    """The step in which the op becomes this affine, if it can."""
    try:
        return [Step(to, _with_affine(op, wanted, may_grow=may_grow))]
    except Refused:
        return []


def _is_computed(op: Op) -> bool:
    """Whether both operands are computed values, in a form that numpy's broadcasting describes."""
    if op.opset < _BROADCAST_IS_NUMPYS_FROM or len(op.inputs) != 2:
        return False
    return all(op.graph.constant(op.data(index)) is None for index in (0, 1))


def _is_sum(op: Op) -> bool:
    return op.type in ("Add", "Sub")


def _refuse_constant_side(op: Op, index: int, data: int) -> None:
    if index != data:
        raise Refused(Reason.NO_RULE, op_type=f"input {index} of {op.type}")


def _with_affine(op: Op, wanted: Affine, *, may_grow: bool = False) -> Edits:
    """The op with the constant that makes it this affine; one that varies on more axes only if it ``may_grow``."""
    data, side = _sides(op)
    if _is_sum(op):
        sign = -1 if op.type == "Sub" and side == 0 else 1
        if (wanted.scale != sign).any():
            raise Refused(Reason.UNSUPPORTED, op_type=op.type, detail="it cannot take in a scale")
        values = -wanted.shift if op.type == "Sub" and side == 1 else wanted.shift
    else:
        refuse_shift(op, wanted)
        if op.type == "Div" and not wanted.scale.all():
            raise Refused(Reason.UNSUPPORTED, op_type=op.type, detail="it cannot take in a scale of zero")
        values = 1 / wanted.scale if op.type == "Div" else wanted.scale
    constant = op.constant(side)
    if any(own == 1 != size for own, size in zip(op.shape(data)[::-1], values.shape[::-1], strict=False)):
        raise Refused(Reason.EXPANDS, value=op.data(data).name)
    if values.size == np.prod(constant.shape, dtype=int):
        values = values.reshape(constant.shape)
    elif op.opset < _BROADCAST_IS_NUMPYS_FROM or len(op.shape(data)) != values.ndim:
        raise Refused(Reason.UNSUPPORTED, op_type=op.type, detail=f"a larger constant at opset {op.opset}")
    elif values.size > max(_MANY if may_grow else 0, *values.shape):
        raise Refused(Reason.UNSUPPORTED, op_type=op.type, detail="its constant would vary on more axes")
    return [Assign(op, side, Exact(np.asarray(values), constant.dtype, multiplies=op.type in ("Mul", "Div")))]


def neg_lifts(op: Op, output: int, affine: Affine) -> Sequence[Step]:
    """s(-x) + t = -(s x - t)"""
    return [Step({0: Affine(affine.scale, -affine.shift)})]


def neg_sinks(op: Op, index: int, affine: Affine) -> Sequence[Step]:
    """-(s x + t) = s(-x) - t"""
    return [Step({0: Affine(affine.scale, -affine.shift)})]


# --- activations ---------------------------------------------------------------------------------------------


def homogeneous(op: Op, affine: Affine) -> Affine:
    """f(s x) = s f(x) for s >= 0: Relu and its relatives."""
    refuse_shift(op, affine)
    if bad := int(np.count_nonzero(~(affine.scale >= 0))):
        raise Refused(Reason.SCALE_NOT_POSITIVE, count=bad, channels=affine.scale.size)
    return affine


def max_with_zero(op: Op, affine: Affine) -> Affine:
    """Max(x, 0) is Relu."""
    zero = op.constant(1)
    if len(op.inputs) != 2 or prod(zero.shape) != 1 or len(zero.shape) > affine.rank or zero.float64().any():
        raise Refused(Reason.UNSUPPORTED, op_type=op.type, detail="it is no Relu")
    return homogeneous(op, affine)


def clip_at_zero(op: Op, affine: Affine) -> Affine:
    """Clip(0, none) is Relu."""
    low, high = _bound(op, 1, "min"), _bound(op, 2, "max")
    if low != 0 or (high is not None and np.isfinite(high) and high < np.finfo(np.float32).max):
        raise Refused(Reason.UNSUPPORTED, op_type=op.type, detail=f"bounds {low} and {high}")
    return homogeneous(op, affine)


def _bound(op: Op, index: int, name: str) -> float | None:
    if op.opset < 11:  # bounds are attributes
        value = op.attribute(name)
        return None if value is None else float(value)
    constant = op.optional_constant(index)
    return None if constant is None else float(constant.float64().reshape(()))


_ARITHMETIC = OpRule(
    affine=arithmetic_affine,
    absorb_output=arithmetic_absorbs_output,
    absorb_input=arithmetic_absorbs_input,
    lift=arithmetic_lifts,
    sink=arithmetic_sinks,
    meet=arithmetic_meets,
)

RULES = {
    "Mul": _ARITHMETIC,
    "Div": _ARITHMETIC,
    "Add": _ARITHMETIC,
    "Sub": _ARITHMETIC,
    "Sum": OpRule(lift=lambda op, output, affine: sum_lifts(op, affine), sink=sum_sinks, meet=sum_meets),
    "ai.onnx.ml::Scaler": OpRule(affine=scaler_affine),
    "Neg": OpRule(affine=neg_affine, lift=neg_lifts, sink=neg_sinks),
    "Max": passes(max_with_zero),
    "Relu": passes(homogeneous),
    "LeakyRelu": passes(homogeneous),
    "PRelu": passes(homogeneous),
    "Abs": passes(homogeneous),
    "Clip": passes(clip_at_zero),
}
