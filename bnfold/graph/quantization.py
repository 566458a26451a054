"""Constants behind QuantizeLinear and DequantizeLinear.

    DequantizeLinear: (q - zero point) * scale        QuantizeLinear: saturated(round(x / scale) + zero point)

Scale and zero point are one number for the whole tensor; or, from opset 13 on, one for each index of an axis; or,
from opset 21 on, one for each block of ``block_size`` along an axis.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import ml_dtypes
import numpy as np
import onnx

from bnfold.affine import FloatArray
from bnfold.graph.facts import Array, Constant
from bnfold.graph.op import Op
from bnfold.rounding import rounded

_CONTRIB = "com.microsoft::"  # ONNX Runtime's own, for types that older opsets lack
X, SCALE, ZERO_POINT = 0, 1, 2
_DEFAULT_AXIS = 1


def is_dequantize(op: Op) -> bool:
    return op.type.removeprefix(_CONTRIB) == "DequantizeLinear"


def is_quantize(op: Op) -> bool:
    return op.type.removeprefix(_CONTRIB) == "QuantizeLinear"


@dataclass(frozen=True, eq=False)
class Grid:
    """The steps that a tensor's values are multiples of.

    Attributes:
        op: The QuantizeLinear or DequantizeLinear that they belong to.
        shape: The tensor's shape.
        scale: The step, or one for each index or block.
        zero_point: The integer that stands for 0; 0 if there is none.
    """

    op: Op
    shape: tuple[int, ...]
    scale: Constant
    zero_point: Constant | None

    def __post_init__(self) -> None:
        sizes = (self.shape[self.axis] if self.shape else 1, 1)
        for parameter in (self.scale, self.zero_point):
            if parameter is not None and not self.block and np.prod(parameter.shape) not in sizes:
                raise ValueError(f"a parameter of shape {parameter.shape} for a tensor of shape {self.shape}")

    @property
    def axis(self) -> int:
        """The axis along which scale and zero point vary; has no meaning where they are one number."""
        return int(self.op.attribute("axis", _DEFAULT_AXIS)) % max(1, len(self.shape))

    @property
    def block(self) -> int:
        """How many indices along the axis share a step; 0 where steps do not come in blocks."""
        return int(self.op.attribute("block_size", 0))

    @property
    def scales(self) -> FloatArray:
        """The scale with the rank of the tensor."""
        return self._aligned(self.scale.float64())

    @property
    def zero_points(self) -> FloatArray:
        """The zero point with the rank of the tensor."""
        return np.zeros((1,) * len(self.shape)) if self.zero_point is None else self._aligned(self.zero_point.float64())

    def spread(self, aligned: Array) -> Array:
        """What ``scales`` or ``zero_points`` gives, broadcastable to the tensor."""
        if not self.block or aligned.size == 1:
            return aligned
        return np.repeat(aligned, self.block, self.axis).take(np.arange(self.shape[self.axis]), self.axis)

    def _aligned(self, parameter: FloatArray) -> FloatArray:
        if self.block:
            return parameter
        sizes = [1] * len(self.shape)
        if parameter.size != 1:
            sizes[self.axis] = parameter.size
        return parameter.reshape(sizes)


class Dequantized:
    """What a DequantizeLinear makes of a constant."""

    def __init__(self, stored: Constant, grid: Grid) -> None:
        self.stored = stored
        self.grid = grid
        self.shape = stored.shape
        output = grid.op.attribute("output_dtype", 0)
        self.dtype: np.dtype[Any] = (
            np.dtype(onnx.helper.tensor_dtype_to_np_dtype(output)) if output else grid.scale.dtype
        )

    def array(self) -> Array:
        return rounded(self.float64(), self.dtype)

    def float64(self) -> FloatArray:
        zero = self.grid.spread(self.grid.zero_points)
        values: FloatArray = (self.stored.float64() - zero) * self.grid.spread(self.grid.scales)
        return values


class Quantized:
    """What a QuantizeLinear makes of a float32 constant: integers."""

    def __init__(self, base: Constant, grid: Grid) -> None:
        self.base = base
        self.grid = grid
        self.shape = base.shape
        given = grid.op.attribute("output_dtype", 0)
        if grid.zero_point is not None:
            self.dtype: np.dtype[Any] = grid.zero_point.dtype
        else:
            self.dtype = np.dtype(onnx.helper.tensor_dtype_to_np_dtype(given)) if given else np.dtype(np.uint8)
        if not is_integer(self.dtype) or base.dtype != np.float32 or grid.scale.dtype != np.float32:
            raise ValueError("another type than integers made of float32")

    def array(self) -> Array:
        return self.of(self.base.array()).astype(self.dtype)

    def float64(self) -> FloatArray:
        return self.of(self.base.array())

    def of(self, values: Array, scales: FloatArray | None = None) -> FloatArray:
        """The integers for other values, or on other steps. Runtimes divide in float32."""
        lowest, highest = limits(self.dtype)
        steps = self.grid.spread(self.grid.scales if scales is None else scales).astype(np.float32)
        with np.errstate(all="ignore"):
            counts = np.rint(values / steps).astype(np.float64)
        integers: FloatArray = np.clip(counts + self.grid.spread(self.grid.zero_points), lowest, highest)
        return integers


def is_integer(dtype: np.dtype[Any]) -> bool:
    """Whether it is a type of integers, one of less than a byte included."""
    return dtype.name.startswith(("int", "uint"))


def limits(dtype: np.dtype[Any]) -> tuple[int, int]:
    """The smallest and the largest integer of a type."""
    info = ml_dtypes.iinfo(dtype)  # type: ignore[no-untyped-call]  # it ships no types for this
    return int(info.min), int(info.max)
