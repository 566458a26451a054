"""The same graphs with constants at the ends of their types, and sizes unknown: for what must hold of any numbers."""

from __future__ import annotations

import numpy as np
from onnx import ModelProto, numpy_helper

from random_graphs.builder import Array
from random_graphs.evaluate import float_tensors
from random_graphs.generate import random_case

_SIZES = 0.3  # how many of the sizes of inputs and outputs are left out
_CONSTANTS = 0.4  # how many constants change


def extreme_model(seed: int) -> ModelProto:
    """A random model whose constants are very large or very small, zero, equal or not finite; it need not be run.

    Raises:
        Unfit: nothing came of the seed.
    """
    model = random_case(seed).model
    rng = np.random.default_rng(seed)
    for tensor in float_tensors(model):
        if rng.random() < _CONSTANTS:
            values = numpy_helper.to_array(tensor)
            tensor.CopyFrom(numpy_helper.from_array(_moved(values, rng), tensor.name))
    for info in (*model.graph.input, *model.graph.output):
        for dim in info.type.tensor_type.shape.dim:
            if rng.random() < _SIZES:
                dim.Clear()
    return model


def _moved(values: Array, rng: np.random.Generator) -> Array:
    limits = np.finfo(values.dtype)
    result = values.copy()
    with np.errstate(all="ignore"):
        match rng.integers(7):
            case 0:
                result[...] = 0
            case 1:
                result[...] = result.flat[0] if result.size else 0
            case 2:
                result *= rng.choice([limits.max / 100, np.sqrt(limits.max)])
            case 3:
                result *= rng.choice([limits.tiny, limits.smallest_subnormal, np.sqrt(limits.tiny)])
            case 4:
                result[...] = rng.choice([limits.max, limits.tiny, limits.smallest_subnormal])
            case 5:
                result.reshape(-1)[: result.size // 2] *= rng.choice([1e-4, 1e4])
            case _:
                result.reshape(-1)[:1] = rng.choice([np.inf, np.nan, limits.max])
    return result
