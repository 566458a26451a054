"""Operators that hide what they read: labels may be equal in every trial, though what they are chosen by is not.

So what such an operator reads is compared, and not only what it makes of it.
"""

from __future__ import annotations

import numpy as np

from bnfold.graph import Op, Value, cast_type, is_float

_CHOOSING = frozenset({"ArgMax", "ArgMin", "Hardmax"})
_HIDING = _CHOOSING | {
    *("TopK", "NonMaxSuppression", "Equal", "Greater", "GreaterOrEqual", "Less", "LessOrEqual"),
    *("Floor", "Ceil", "Round", "Sign", "NonZero", "ai.onnx.ml::Binarizer"),
}
_TURNED = {"Less": "Greater", "LessOrEqual": "GreaterOrEqual"}
_RISING = frozenset({"Identity", "Sigmoid", "Tanh", "Exp", "Softsign", "Erf"})


def hides(op: Op) -> bool:
    """Whether an operator makes steps of numbers."""
    made = cast_type(op) if op.type == "Cast" else None
    return op.type in _HIDING if made is None else not is_float(made)


def counterpart(op: Op) -> tuple[str, bool]:
    """The type by which such an operator is looked for, and whether its inputs then stand the other way round."""
    turned = _TURNED.get(op.type)
    return (op.type, False) if turned is None else (turned, True)


def decisive(op: Op, value: Value) -> Value:
    """What such an operator goes by: a value that it reads, or the one that this has its order from."""
    while op.type in _CHOOSING and (below := _below(op, value)) is not None:
        value = below
    return value


def _below(op: Op, value: Value) -> Value | None:
    """What an operator makes a value of that never changes the order along the axis of the one that chooses."""
    made = value.producer
    if made is None:
        return None
    if made.type in _RISING or (made.type in ("Softmax", "LogSoftmax") and _is_along(made, op)):
        return made.data(0)
    if made.type in ("Add", "Sub", "Mul", "Div"):
        constant, shape = made.graph.constant(made.data(1)), made.graph.shape(made.data(0))
        array = None if constant is None else constant.array()
        if array is None or array.size != 1 or array.ndim > len(shape or ()) or not np.isfinite(array.item()):
            return None
        if made.type in ("Add", "Sub") or array.item() > 0:
            return made.data(0)
    return None


def _is_along(softmax: Op, op: Op) -> bool:
    """Whether a Softmax of new versions is along the axis of the operator that chooses behind it."""
    shape = softmax.graph.shape(softmax.data(0))
    default = -1 if op.type == "Hardmax" else 0
    return (
        shape is not None
        and softmax.opset >= 13
        and softmax.attribute("axis", -1) % len(shape) == (op.attribute("axis", default) % len(shape))
    )
