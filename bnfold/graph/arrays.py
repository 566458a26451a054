"""What constants are: a tensor of the model, a sparse one, or what operators make of others."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import cached_property
from math import prod
from typing import Any

import numpy as np
import onnx

from bnfold.affine import FloatArray
from bnfold.graph.evaluate import converted
from bnfold.graph.facts import Array
from bnfold.memo import Memo
from bnfold.model_io import Model, ModelError
from bnfold.rounding import rounded

SMALL = 1 << 14  # elements; what is larger is read or computed again when it is asked for later, not kept
_BLOCK = 1 << 20  # bytes that fit into a processor's cache
_BITS: dict[str, Any] = {"float16": np.uint16, "bfloat16": np.uint16, "float32": np.uint32, "float64": np.uint64}


class Stored:
    """A tensor of the model."""

    def __init__(self, model: Model, tensor: onnx.TensorProto) -> None:
        self._model = model
        self._tensor = tensor
        self.shape = tuple(tensor.dims)
        self.dtype: np.dtype[Any] = np.dtype(onnx.helper.tensor_dtype_to_np_dtype(tensor.data_type))
        self._peaks: dict[tuple[int, ...], FloatArray] = {}

    def array(self) -> Array:
        array = self._model.array(self._tensor)
        return array if array.flags.writeable else array.copy()

    def blocks(self) -> Iterator[tuple[slice, Array]]:
        """What ``array`` gives, a few rows at a time, and which they are; of a large tensor never more are read."""
        if not self.shape or 0 in self.shape:
            yield slice(None), self.array()
            return
        count = max(1, _BLOCK // (prod(self.shape[1:]) * self.dtype.itemsize))
        for start in range(0, self.shape[0], count):
            stop = min(start + count, self.shape[0])
            yield slice(start, stop), self._model.rows(self._tensor, start, stop)

    def peaks(self, axes: tuple[int, ...] = ()) -> FloatArray:
        """The largest magnitude of its finite values for each index along ``axes``; the other axes have size 1."""
        if len(axes) > 1:  # of the tensor's own size, perhaps
            return self._find_peaks(axes)
        if axes not in self._peaks:
            self._peaks[axes] = self._find_peaks(axes)
        return self._peaks[axes]

    def _find_peaks(self, axes: tuple[int, ...]) -> FloatArray:
        """Among numbers of one sign, the bits of a larger one are those of a larger integer."""
        others = tuple(axis for axis in range(len(self.shape)) if axis not in axes)
        if self.dtype.name not in _BITS:
            finite = np.nan_to_num(self.float64(), posinf=0, neginf=0)
            return np.asarray(np.abs(finite).max(others, keepdims=True, initial=0))
        kind = np.dtype(_BITS[self.dtype.name])
        infinite = np.array(np.inf, self.dtype).view(kind)
        result = np.zeros([size if axis in axes else 1 for axis, size in enumerate(self.shape)], kind)
        for rows, block in self.blocks():
            bits = block.view(kind)
            bits &= ~np.array(-0.0, self.dtype).view(kind)  # the sign
            found = bits.max(others, keepdims=True, initial=0)
            if (found >= infinite).any():
                bits[bits >= infinite] = 0
                found = bits.max(others, keepdims=True, initial=0)
            part = result[rows] if 0 in axes else result
            np.maximum(part, found, out=part)
        return np.asarray(result.view(self.dtype), np.float64)

    def float64(self) -> FloatArray:
        with np.errstate(invalid="ignore"):  # a NaN may be a signalling one
            return self._model.array(self._tensor).astype(np.float64)


class Sparse:
    """A sparse tensor of the model: values, and their indices into the flattened tensor or one column for each axis."""

    def __init__(self, model: Model, sparse: onnx.SparseTensorProto) -> None:
        self._name = sparse.values.name
        self._values = Stored(model, sparse.values)
        self._indices = Stored(model, sparse.indices)
        self.shape = tuple(sparse.dims)
        self.dtype = self._values.dtype

    def array(self) -> Array:
        """Dense.

        Raises:
            ModelError: indices do not fit, are out of range, or do not ascend, so that one may stand there twice.
        """
        dense = np.zeros(prod(self.shape), self.dtype)
        try:
            indices = self._indices.array().astype(np.int64)
            places = indices if indices.ndim == 1 else np.ravel_multi_index(tuple(indices.T), self.shape)
            if places.size and not (places[0] >= 0 and places[-1] < dense.size and (np.diff(places) > 0).all()):
                raise ValueError("its indices are out of range, or do not ascend")
            dense[places] = self._values.array()
        except ValueError as error:
            raise ModelError(f"sparse tensor {self._name!r}: {error}") from error
        return dense.reshape(self.shape)

    def float64(self) -> FloatArray:
        return self.array().astype(np.float64)


class Evaluated:
    """The result of an operator on constants, evaluated when asked for.

    Attributes:
        cost: How many elements that takes, those on the way included.
    """

    def __init__(
        self, preview: Array, evaluate: Callable[[], Array], cost: int = 0, recent: Memo | None = None
    ) -> None:
        self.shape = preview.shape
        self.dtype = preview.dtype
        self.cost = cost
        self._evaluate = evaluate
        self._recent = recent
        self._kept: Array | None = None

    def array(self) -> Array:
        values = self.values()
        return (
            rounded(values.astype(np.float64, copy=False), self.dtype)
            if is_float(self.dtype)
            else values.astype(self.dtype)
        )

    def float64(self) -> FloatArray:
        values = self.values()
        return values if values.dtype == np.float64 else converted(values, np.float64)

    @cached_property
    def peak(self) -> float:
        """The largest magnitude; NaN if there is one."""
        return float(np.abs(self.float64()).max(initial=0))

    def values(self) -> Array:
        """Floating-point values in float64, all others in their own type."""
        if self._kept is not None:
            return self._kept
        if self._recent is not None and prod(self.shape) > SMALL:
            return self._recent.get(self, self._made, lambda values: values.nbytes)
        self._kept = self._made()
        return self._kept

    def _made(self) -> Array:
        with np.errstate(all="ignore"):
            values = np.asarray(self._evaluate())  # numpy makes a scalar of what has no axes
        values.flags.writeable = False  # others get it, too
        return values


def is_float(dtype: np.dtype[Any]) -> bool:
    """Whether a type is floating-point, those of ml_dtypes included."""
    return bool(dtype.kind == "f" or (dtype.kind == "V" and dtype.names is None and "float" in dtype.name))
