"""Variations of a model and its inputs that change nothing but the rounding: what they do to an output is its noise."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import ml_dtypes
import numpy as np
import numpy.typing as npt
from onnx import TensorProto, helper

from bnfold.graph import is_float
from bnfold.model_io import Model

Array = npt.NDArray[Any]


def moved_by_an_ulp(feed: Mapping[str, Array]) -> dict[str, Array]:
    """The same inputs, every floating-point entry moved to a neighbour."""
    random = np.random.default_rng(0)
    return {name: _neighbours(array, random) for name, array in feed.items()}


def weights_moved(model: Model, other: Model) -> Model:
    """The same model, every weight that another one does not have moved to a neighbour.

    The next number is an ulp away, twice what a rounding can do at the most, and about what it does to one in two.
    So is the next integer of a quantized bias.
    """
    theirs = {tensor.name: _digest(other, tensor) for tensor in other.proto.graph.initializer}
    moved = model.copy()
    biases = {node.input[0] for node in moved.proto.graph.node if node.op_type == "DequantizeLinear" and node.input}
    for tensor in moved.proto.graph.initializer:
        is_bias = tensor.data_type == TensorProto.INT32 and tensor.name in biases
        is_rounded = is_bias or is_float(helper.tensor_dtype_to_np_dtype(tensor.data_type))
        if is_rounded and theirs.get(tensor.name) != _digest(moved, tensor):
            original = TensorProto()
            original.CopyFrom(tensor)
            moved.attach(tensor, _Moved(model, original))
    return moved


@dataclass(frozen=True)
class _Moved:
    """The payload of a moved weight, computed when it is written."""

    model: Model
    tensor: TensorProto

    @property
    def nbytes(self) -> int:
        return int(np.prod(self.tensor.dims)) * helper.tensor_dtype_to_np_dtype(self.tensor.data_type).itemsize

    def chunks(self) -> Iterator[bytes | memoryview]:
        array, random = self.model.array(self.tensor), np.random.default_rng(0)
        moved = _other_integers(array, random) if array.dtype == np.int32 else _neighbours(array, random)
        yield moved.tobytes()


def _neighbours(array: Array, random: np.random.Generator) -> Array:
    if not is_float(array.dtype):
        return array
    largest = ml_dtypes.finfo(array.dtype).max  # type: ignore[no-untyped-call]  # some types have no infinity
    limit = np.where(random.random(array.shape) < 0.5, -largest, largest).astype(array.dtype)
    return np.asarray(np.where(np.isfinite(array) & (array != 0), np.nextafter(array, limit), array))


def _other_integers(array: Array, random: np.random.Generator) -> Array:
    ends = np.iinfo(array.dtype)
    steps = np.where(random.random(array.shape) < 0.5, -1, 1)
    return np.asarray(np.clip(array.astype(np.int64) + steps, ends.min, ends.max).astype(array.dtype))


def _digest(model: Model, tensor: TensorProto) -> int:
    return hash((tuple(tensor.dims), model.array(tensor).tobytes()))
