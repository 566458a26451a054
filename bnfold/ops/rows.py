"""Two operators with weights in a row, as one: only where it has no more weights than both, and does no more work."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import prod

import numpy as np

from bnfold.affine import Affine
from bnfold.graph import Op
from bnfold.ops import kernels, matrices
from bnfold.ops.borders import border_of, bordered, inside_zeros, padded_by
from bnfold.ops.kernels import Kernel, Window, kernel_of
from bnfold.ops.linear import BIAS, RIGHT, WEIGHT, new_addend, shift_behind
from bnfold.ops.matrices import matrix_of
from bnfold.ops.rule import Assign, Edit, Edits, SetAttribute
from bnfold.ops.weights import Exact
from bnfold.reasons import Reason, Refused

Row = tuple[Op, Edits]
"""Which of the two stays, and what becomes of it."""


def convs_in_a_row(first: Op, second: Op, around: Sequence[Op] = ()) -> Row:
    """V*(W*x + b) + c  =  (V W)*x + (V b + c), where one of the two reads single positions

    ``around`` is what puts a border around the result of the first.
    """
    inner, outer = kernel_of(first), kernel_of(second)
    border = border_of(around) if around else None
    host, own = (second, outer) if inner.is_point else (first, inner)
    shape, _ = kernels.shape_in_a_row(inner, outer)
    makes_more = _makes_more_positions(padded_by(outer, border) if border else outer)
    there = [outer] if makes_more else [inner, outer]
    _refuse_more(host, prod(shape), sum(prod(kernel.shape) for kernel in there))
    whole = kernels.in_a_row(bordered(inner, border, outer) if border else inner, outer)
    _refuse_more(host, whole.size, sum(kernel.size for kernel in there))
    edits: list[Edit] = [Assign(host, WEIGHT, Exact(whole.weights(), whole.dtype))]
    if whole.bias.any() or host.input(BIAS) is not None:
        edits.append(Assign(host, BIAS, Exact(whole.bias, whole.dtype)))
    if whole.groups != own.groups:
        edits.append(SetAttribute(host, "group", whole.groups))
    return host, [*edits, *_new_window(host, own.window, whole.window)]


def _makes_more_positions(kernel: Kernel) -> bool:
    """Whether so much is padded that the result is larger than what is read."""
    sizes = zip(kernel.taps, kernel.window.dilations, kernel.window.pads, strict=True)
    return any(sum(pads) > dilation * (taps - 1) for taps, dilation, pads in sizes)


def _new_window(host: Op, old: Window, new: Window) -> list[Edit]:
    if new == old:
        return []
    before, after = zip(*new.pads, strict=True)
    edits: list[Edit] = [SetAttribute(host, "auto_pad", None), SetAttribute(host, "pads", (*before, *after))]
    return edits + ([SetAttribute(host, "strides", new.strides)] if new.strides != old.strides else [])


def conv_absorbs_zeros(around: Sequence[Op], conv: Op) -> Edits:
    """W*pad(x, 0)  =  W'*x, of which the padding is as much wider"""
    own = kernel_of(conv)
    return _new_window(conv, own.window, inside_zeros(border_of(around), own).window)


def matrices_in_a_row(first: Op, second: Op, around: Sequence[Op] = ()) -> Row:
    """(x·A + a)·B + b  =  x·(A B) + (a·B + b)"""
    if around:
        raise Refused(Reason.UNSUPPORTED, op_type=around[0].type, detail="between matrices")
    inner, outer = matrix_of(first), matrix_of(second)
    matrices.refuse_unless_they_fit(inner, outer)
    # what is added is no work to speak of, and may have a number for each row
    _refuse_more(second, inner.shape[0] * outer.shape[1], prod(inner.shape) + prod(outer.shape))
    if inner.is_turned:
        raise Refused(Reason.UNSUPPORTED, op_type=first.type, detail="another orientation")
    whole = matrices.in_a_row(inner, outer)
    _refuse_more(second, whole.size, inner.size + outer.size)
    is_turned = bool(second.type == "Gemm" and second.attribute("transB", 0))
    weights = whole.weights().T if is_turned else whole.weights()
    edits: list[Edit] = [Assign(second, RIGHT, Exact(weights, whole.dtype))]
    if second.type == "Gemm" and second.attribute("alpha", 1.0) != 1:
        edits.append(SetAttribute(second, "alpha", None))
    if (shift := matrices.passed_on(inner, outer)) is None:
        return second, edits
    if second.type == "MatMul":
        return second, [*edits, *shift_behind(second, shift)]
    return second, [*edits, *new_addend(second, Affine(np.ones((1, 1)), shift))]


def _refuse_more(op: Op, size: int, together: int) -> None:
    if size > together:
        detail = f"{size} weights where both have {together}"
        raise Refused(Reason.UNSUPPORTED, op_type=op.type, detail=detail)


ROWS: dict[str, Callable[[Op, Op, Sequence[Op]], Row]] = {
    "Conv": convs_in_a_row,
    "Gemm": matrices_in_a_row,
    "MatMul": matrices_in_a_row,
}
"""For two operators of these types, of which one reads what the other makes, and what stands between them."""
