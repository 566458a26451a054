"""Layers whose weights are integers in the operator itself, as real numbers.

QLinearConv, QGemm           (W - zero) * scale, which are inputs
ConvInteger, MatMulInteger   Cast, and Mul by x_scale * scale behind them (ONNX Runtime's dynamic quantizer)
MatMulNBits                  rows of W, packed in blocks that have a scale each
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from bnfold.affine import FloatArray
from bnfold.graph import Constant, Op, Value

SCALES, ZERO_POINTS, GROUP_INDEX, OWN_BIAS = 2, 3, 4, 5  # inputs of MatMulNBits
_BYTE = 8


def real(weights: FloatArray, scale: Constant, zero_point: Constant | None, axis: int) -> FloatArray:
    """(W - zero) * scale, both numbers or vectors of channels."""
    sizes = [1] * weights.ndim
    sizes[axis] = -1
    zero = np.zeros(1) if zero_point is None else zero_point.float64().reshape(-1)
    return np.asarray((weights - zero.reshape(sizes)) * scale.float64().reshape(-1).reshape(sizes))


def scaling(op: Op) -> tuple[Op, Constant] | None:
    """The Mul behind an operator that gives int32, and the scale of its weights; None if it is used otherwise."""
    cast = _reader(op.output, "Cast")
    mul = _reader(cast.output, "Mul") if cast is not None else None
    if cast is None or mul is None:
        return None
    (by,) = [value for value in mul.inputs if value is not cast.output] or [None]
    product = by.producer if by is not None else None
    if product is None or product.type != "Mul" or product.scope is not op.scope:
        return None
    constants = [c for value in product.inputs if value is not None and (c := op.graph.constant(value)) is not None]
    return (mul, constants[0]) if len(constants) == 1 else None


def unpacked(op: Op) -> FloatArray | None:
    """The weights of a MatMulNBits, `[K, N]`; None if they are packed in a way that is not known here."""
    bits, block = op.attribute("bits", 4), op.attribute("block_size", 0)
    inner, outer = op.attribute("K", 0), op.attribute("N", 0)
    if bits not in (2, 4, 8) or not (block and inner and outer) or op.input(GROUP_INDEX) is not None:
        return None
    levels = _levels(op.constant(1).array().reshape(outer, -1), bits)
    blocks = -(-inner // block)
    scales, zeros = op.constant(SCALES).float64().reshape(outer, blocks), op.optional_constant(ZERO_POINTS)
    if zeros is None:
        zero = np.full((outer, blocks), 2.0 ** (bits - 1))
    elif zeros.dtype == np.uint8:
        zero = _levels(zeros.array().reshape(outer, -1), bits)[:, :blocks]
    else:
        zero = zeros.float64().reshape(outer, blocks)
    weights = (levels.reshape(outer, blocks, block) - zero[..., None]) * scales[..., None]
    return np.asarray(weights.reshape(outer, -1)[:, :inner].T)


def _levels(packed: npt.NDArray[np.uint8], bits: int) -> FloatArray:
    """Each byte as the numbers in it, the lowest bits first."""
    shifts = np.arange(0, _BYTE, bits, dtype=np.uint8)
    levels = (packed[..., None] >> shifts) & np.uint8(2**bits - 1)
    return levels.reshape(*packed.shape[:-1], -1).astype(np.float64)


def _reader(value: Value, op_type: str) -> Op | None:
    if value.is_output or len(value.readers) != 1:
        return None
    (use,) = value.readers
    return use.op if use.op.type == op_type and use.op.scope is value.scope else None
