"""Errors of what chooses: where rounding decides on the choice, whatever else may be chosen is within the bound."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from bnfold.affine import FloatArray
from bnfold.verification.float64.carried import Call, tried
from bnfold.verification.float64.kernel import NotComputed


def winner(call: Call) -> Sequence[Any]:
    """Of ArgMax and ArgMin: any place along the axis, where another number may be the winner"""
    axis = call.op.attribute("axis", 0)
    sign = 1.0 if call.op.type == "ArgMax" else -1.0
    is_open = _contested(sign * call.value(0), call.error(0), axis)
    error = is_open * float(call.value(0).shape[axis])
    return [error if call.op.attribute("keepdims", 1) else error.squeeze(axis)]


def hardmax(call: Call) -> Sequence[Any]:
    """1 for the winner, 0 for the others"""
    if call.op.opset < 13:
        raise NotComputed("all axes at once")
    return [
        np.broadcast_to(_contested(call.value(0), call.error(0), call.op.attribute("axis", -1)), call.value(0).shape)
    ]


def _contested(x: FloatArray, e: FloatArray, axis: int) -> FloatArray:
    """Along an axis, whether another than the largest number may be the largest. Equal numbers are told apart."""
    best = np.expand_dims(x.argmax(axis), axis)
    least, own = (np.take_along_axis(array, best, axis) for array in (x - e, e))
    rivals = (x + e >= least) & (e + own > 0)
    np.put_along_axis(rivals, best, False, axis)
    return np.asarray(rivals.any(axis=axis, keepdims=True))


def top(ends: Callable[[Call], Sequence[Any]]) -> Callable[[Call], Sequence[Any]]:
    """Of TopK: numbers in order are off no further than the numbers; places are open where two of these are close."""

    def rule(call: Call) -> Sequence[Any]:
        if call.is_off(1) or len(call.outputs) < 2 or not call.op.attribute("sorted", 1):
            return tried(call)
        axis, sign = call.op.attribute("axis", -1), -1.0 if call.op.attribute("largest", 1) else 1.0
        ordered = np.moveaxis(np.sort(sign * call.value(0), axis=axis), axis, -1)
        room = 2 * np.moveaxis(call.error(0), axis, -1).max(axis=-1, keepdims=True)
        close = (np.diff(ordered, axis=-1) <= room) & (room > 0)
        nothing = np.zeros((*close.shape[:-1], 1), bool)
        is_open = np.concatenate([close, nothing], axis=-1) | np.concatenate([nothing, close], axis=-1)
        places = is_open[..., : call.outputs[1].shape[axis]] * float(ordered.shape[-1])
        return [ends(call)[0], np.moveaxis(places, -1, axis)]

    return rule


def gathered(moved: Callable[[Call], Sequence[Any]]) -> Callable[[Call], Sequence[Any]]:
    """Of a Gather: where the index may be another, anything along the axis may come"""

    def rule(call: Call) -> Sequence[Any]:
        if not call.is_off(1):
            return moved(call)
        table, index = call.value(0), call.value(1)
        if table.dtype.kind not in "iuf":
            raise NotComputed("a choice of what is no number")
        axis = call.op.attribute("axis", 0) % table.ndim
        spread = table.max(axis=axis, keepdims=True) - table.min(axis=axis, keepdims=True)
        spread = spread + call.error(0).max(axis=axis, keepdims=True)
        is_open = call.error(1) > 0
        if call.op.type == "Gather":
            is_open = is_open.reshape(*index.shape, *[1] * (table.ndim - axis - 1))
        error, other = (
            call.run([np.array(e), index])[0] for e in (call.error(0), np.broadcast_to(spread, table.shape))
        )
        return [error + np.where(is_open, other, 0.0)]

    return rule


def one_hot(call: Call) -> Sequence[Any]:
    """Where the index may be another, every place may have either of the two values"""
    if call.is_off(1) or call.is_off(2):
        return tried(call)
    off, on = (float(value) for value in call.value(2))
    rank = np.ndim(call.value(0)) + 1
    axis = call.op.attribute("axis", -1) % rank
    is_open = np.expand_dims(call.error(0) > 0, axis)
    return [np.broadcast_to(abs(on - off) * is_open, np.shape(call.outputs[0]))]
