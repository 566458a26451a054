"""The plain values of an index: a constant, a size, a shape, and how much is known of them."""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
from onnx import TensorShapeProto, TypeProto

from bnfold.affine import FloatArray

Array = npt.NDArray[Any]
Dim = int | str | None  # a size, the name of a symbolic one, or nothing known
Shape = tuple[Dim, ...]
FEW_SIZES = 64
"""Longer than any list of sizes or axes."""
_UNNAMED = "unk__"  # how inference calls a size that it does not know


class Constant(Protocol):
    """A constant tensor, read when asked for."""

    @property
    def shape(self) -> tuple[int, ...]: ...

    @property
    def dtype(self) -> np.dtype[Any]: ...

    def array(self) -> Array:
        """The values in their own type, in an array that the caller may write to."""
        ...

    def float64(self) -> FloatArray:
        """The values as they are before any rounding to ``dtype``; nobody may write to the array."""
        ...


def shape_of(kind: TypeProto | None) -> Shape | None:
    """The shape of a tensor's type; None where not even the rank is said."""
    if kind is None or not kind.HasField("tensor_type") or not kind.tensor_type.HasField("shape"):
        return None
    return tuple(map(_dim, kind.tensor_type.shape.dim))


def _dim(dim: TensorShapeProto.Dimension) -> Dim:
    return dim.dim_value if dim.HasField("dim_value") else dim.dim_param or None


def knowledge(dim: Dim) -> int:
    """How much is known of a size: 3 a number, 2 the model's name for it, 1 one that inference made up, 0 nothing."""
    if isinstance(dim, str):
        return 1 if dim.startswith(_UNNAMED) else 2
    return 0 if dim is None else 3
