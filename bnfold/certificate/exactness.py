"""How far folded parameters are from what they should be: the static verdict, of linear cost.

A pending constant knows its values before they are rounded, in float64 at least and in longdouble where the model is
in float64 itself. The error is counted in units in the last place of the exact value, in the type that is stored:
the nearest number of that type is at most half such a unit away.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import ml_dtypes
import numpy as np
import numpy.typing as npt

from bnfold.affine import FloatArray
from bnfold.certificate.record import Parameter
from bnfold.folding.apply import Pending
from bnfold.graph import Constant
from bnfold.graph.quantization import is_integer
from bnfold.model_io import Model
from bnfold.model_io.tensors import all_tensors
from bnfold.ops.weights import Nudged

_HALF = 0.5
_MOST_NUDGED = 8.5  # one rounding and eight steps back to the integer that it has to quantize to
_BLOCK = 1 << 18  # numbers at a time: what is made of a large weight in between is small


def parameters(folded: Model) -> Iterator[Parameter]:
    """Every constant that folding wrote into a model, with its error; one at a time is in memory."""
    for tensor in all_tensors(folded.proto):
        payload = folded.payload(tensor)
        if isinstance(payload, Pending):
            constant = payload.constant
            limit = _MOST_NUDGED if isinstance(constant, Nudged) else _HALF
            yield Parameter(tensor.name, constant.dtype.name, tuple(tensor.dims), largest_error(constant), limit)


def largest_error(constant: Constant) -> float:
    """The largest error of a number in it, in ULP; of integers, in ones."""
    exact = constant.unmoved() if isinstance(constant, Nudged) else constant.float64()
    exact, written = exact.reshape(-1), constant.array().reshape(-1)
    blocks = (slice(start, start + _BLOCK) for start in range(0, exact.size, _BLOCK))
    return max((_error(exact[block], written[block]) for block in blocks), default=0.0)


def _error(exact: FloatArray, written: npt.NDArray[Any]) -> float:
    numbers = written.astype(np.float64)  # which has every number of the types that a weight can have
    finite = np.isfinite(exact) & np.isfinite(numbers)
    if not (finite | (numbers == exact) | (np.isnan(numbers) & np.isnan(exact))).all():
        return float("inf")
    wanted = exact[finite]
    distance = np.abs(numbers[finite] - wanted)
    return float(np.ldexp(distance, -_unit_exponents(wanted, written.dtype)).max(initial=0))


def _unit_exponents(values: FloatArray, dtype: np.dtype[Any]) -> npt.NDArray[np.int32]:
    """The exponents of the units in the last place, which do not get smaller below the normal numbers."""
    if dtype.kind == "b" or is_integer(dtype):
        return np.zeros(values.shape, np.int32)
    info = ml_dtypes.finfo(dtype)  # type: ignore[no-untyped-call]  # it ships no types for this
    _, exponents = np.frexp(values)
    units = np.maximum(exponents - 1, info.minexp) - info.nmant
    return np.where(values == 0, info.minexp - info.nmant, units).astype(np.int32)
