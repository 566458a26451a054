"""Layers whose weights are integers in the operator itself, as real numbers.

QLinearConv, QGemm           (W - zero) * scale, which are inputs
ConvInteger, MatMulInteger   the same, with the scale of a Mul behind them
MatMulNBits                  rows of W, packed in blocks that have a scale each
"""

from __future__ import annotations

from dataclasses import dataclass
from math import prod

import numpy as np
import numpy.typing as npt

from bnfold.affine import FloatArray
from bnfold.graph import Constant, Op

SCALES, ZERO_POINTS, GROUP_INDEX, OWN_BIAS = 2, 3, 4, 5  # inputs of MatMulNBits
_BYTE = 8


def real(weights: FloatArray, scale: Constant, zero_point: Constant | None, axis: int) -> FloatArray:
    """(W - zero) * scale, both numbers or vectors of channels."""
    sizes = [1] * weights.ndim
    sizes[axis] = -1
    zero = np.zeros(1) if zero_point is None else zero_point.float64().reshape(-1)
    return np.asarray((weights - zero.reshape(sizes)) * scale.float64().reshape(-1).reshape(sizes))


@dataclass(frozen=True)
class Packing:
    """How a MatMulNBits has its weights: rows of W^T in blocks, some bits each."""

    bits: int
    block: int
    inner: int
    outer: int

    @property
    def blocks(self) -> int:
        """Of a row."""
        return -(-self.inner // self.block)


def packing(op: Op) -> Packing | None:
    """How the weights of a MatMulNBits are packed; None if that is not known here, or not what it says."""
    sizes = [op.attribute(name, default) for name, default in (("bits", 4), ("block_size", 0), ("K", 0), ("N", 0))]
    if not all(isinstance(size, int) and size > 0 for size in sizes) or op.input(GROUP_INDEX) is not None:
        return None
    found = Packing(*sizes)
    if found.bits not in (2, 4, 8) or found.block * found.bits % _BYTE:
        return None
    packed, steps, zeros = op.constant(1), op.constant(SCALES), op.optional_constant(ZERO_POINTS)
    blocks = found.outer * found.blocks
    if packed.dtype != np.uint8 or prod(packed.shape) * _BYTE != blocks * found.block * found.bits:
        return None
    of_zeros = found.outer * -(-found.blocks * found.bits // _BYTE)
    if zeros is not None and prod(zeros.shape) != (of_zeros if zeros.dtype == np.uint8 else blocks):
        return None
    return found if prod(steps.shape) == blocks else None


def unpacked(op: Op, packing: Packing) -> FloatArray:
    """The weights of a MatMulNBits, `[K, N]`."""
    bits, outer, blocks = packing.bits, packing.outer, packing.blocks
    zeros = op.optional_constant(ZERO_POINTS)
    if zeros is None:
        zero = np.full((outer, blocks), 2.0 ** (bits - 1))
    elif zeros.dtype == np.uint8:
        zero = _levels(zeros.array().reshape(outer, -1), bits)[:, :blocks]
    else:
        zero = zeros.float64().reshape(outer, blocks)
    levels = _levels(op.constant(1).array().reshape(outer, -1), bits).reshape(outer, blocks, packing.block)
    weights = (levels - zero[..., None]) * op.constant(SCALES).float64().reshape(outer, blocks, 1)
    return np.asarray(weights.reshape(outer, -1)[:, : packing.inner].T)


def _levels(packed: npt.NDArray[np.uint8], bits: int) -> FloatArray:
    """Each byte as the numbers in it, the lowest bits first."""
    shifts = np.arange(0, _BYTE, bits, dtype=np.uint8)
    levels = (packed[..., None] >> shifts) & np.uint8(2**bits - 1)
    return levels.reshape(*packed.shape[:-1], -1).astype(np.float64)
