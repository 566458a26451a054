"""What a MatMul or Gemm of data and a constant computes, or two of them in a row: x·W + c."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from math import prod
from typing import Any

import numpy as np

from bnfold.affine import FloatArray
from bnfold.graph import Constant, Op, is_float
from bnfold.ops.kernels import refuse_endless
from bnfold.ops.linear import ADDEND, RIGHT
from bnfold.ops.rule import refuse_spread
from bnfold.ops.weights import bound
from bnfold.reasons import Reason, Refused


@dataclass(frozen=True, eq=False)
class Matrix:
    """A map from the last axis of x to that of the result; of xᵀ where ``is_turned``.

    Attributes:
        shape: Of W: [inputs, outputs], of a MatMul perhaps with axes before them.
        dtype: The type of its weights.
        is_turned: Whether it reads x transposed.
        addend: What is added to the result, as a matrix that broadcasts against it.
        weights: Reads or computes W, in float64.
        most: Finds a number that no weight is larger than, in magnitude.
    """

    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    is_turned: bool
    addend: FloatArray | None
    weights: Callable[[], FloatArray]
    most: Callable[[], float]

    @property
    def size(self) -> int:
        """How many numbers it is made of."""
        return prod(self.shape) + (0 if self.addend is None else self.addend.size)


def matrix_of(op: Op) -> Matrix:
    """What a MatMul or Gemm computes of its left operand; see `product_of`."""
    return replace(product_of(op), addend=_addend(op)) if op.type == "Gemm" else product_of(op)


def product_of(op: Op) -> Matrix:
    """The same, whatever is added to it.

    Raises:
        Refused: the right one is not constant, or of integers: they wrap around, and no real number stands for that.
    """
    weight = op.constant(RIGHT)
    if not is_float(weight.dtype):
        raise Refused(Reason.NOT_FLOAT, value=op.data(RIGHT).name)
    if op.type == "MatMul":
        return Matrix(weight.shape, weight.dtype, False, None, weight.float64, partial(bound, weight))
    alpha, turned = op.attribute("alpha", 1.0), bool(op.attribute("transB", 0))
    shape = weight.shape[::-1] if turned else weight.shape
    return Matrix(
        shape,
        weight.dtype,
        bool(op.attribute("transA", 0)),
        None,
        partial(_read, weight, alpha, turned=turned),
        lambda: abs(alpha) * bound(weight),
    )


def _read(weight: Constant, alpha: float, *, turned: bool) -> FloatArray:
    values = weight.float64()
    return alpha * (values.T if turned else values)


def _addend(gemm: Op) -> FloatArray | None:
    """Beta C, as a matrix."""
    constant, beta = gemm.optional_constant(ADDEND), gemm.attribute("beta", 1.0)
    if constant is None or not beta:
        return None
    values = beta * constant.float64()
    return np.asarray(values.reshape((1,) * (2 - values.ndim) + values.shape))


def in_a_row(first: Matrix, second: Matrix) -> Matrix:
    """(x·A + a)·B + b  =  x·(A B) + (a·B + b)

    Raises:
        Refused: they are no two matrices that fit.
    """
    refuse_unless_they_fit(first, second)
    refuse_endless(first.shape[0] * prod(second.shape))
    if not all(np.isfinite(matrix.weights()).all() for matrix in (first, second)):
        raise Refused(Reason.NOT_FINITE, value="a weight")
    middle, outputs = second.shape
    shifts = [shift for shift in (passed_on(first, second), second.addend) if shift is not None]
    refuse_spread("Gemm", *(shift.shape for shift in shifts))
    addend = np.asarray(sum(shifts)) if shifts else None

    def weights() -> FloatArray:
        return np.asarray(first.weights() @ second.weights())

    shape = (first.shape[0], outputs)
    return Matrix(shape, first.dtype, first.is_turned, addend, weights, lambda: first.most() * second.most() * middle)


def refuse_unless_they_fit(first: Matrix, second: Matrix) -> None:
    """Refuses a pair that is not one matrix, by what is known without reading any."""
    fits = len(first.shape) == len(second.shape) == 2 and first.shape[1] == second.shape[0]
    if not fits or first.dtype != second.dtype:
        raise Refused(Reason.UNSUPPORTED, op_type="MatMul", detail="matrices that do not fit each other")
    if second.is_turned:
        raise Refused(Reason.UNSUPPORTED, op_type="Gemm", detail="another orientation")


def passed_on(first: Matrix, second: Matrix) -> FloatArray | None:
    """a·B: what comes of the addend of the first."""
    if first.addend is None:
        return None
    refuse_spread("Gemm", (len(first.addend), 1), (1, second.shape[1]))
    return np.asarray(np.broadcast_to(first.addend, (len(first.addend), second.shape[0])) @ second.weights())
