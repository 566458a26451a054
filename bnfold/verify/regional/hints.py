"""What has to be tried to tell two regions apart, by the operators and constants that they have."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterator

import numpy as np
import onnx

from bnfold.affine import FloatArray
from bnfold.verify.float64.kernel import Array
from bnfold.verify.regional.border import Hints
from bnfold.verify.regional.numbering import Number, Numbering
from bnfold.verify.regional.regions import Region
from bnfold.verify.regional.side import Side, is_made_of_constants

_MOVING = frozenset({"Conv", "ConvTranspose", "com.microsoft::FusedConv", "AveragePool", "MaxPool"})
# What these do at one size, and at one place, they do at every other.
UNIFORM = _MOVING | {
    *("BatchNormalization", "Add", "Sub", "Mul", "Div", "Neg", "Identity", "Constant", "DequantizeLinear"),
    *("Relu", "LeakyRelu", "PRelu", "Clip", "Sigmoid", "HardSigmoid", "HardSwish", "Tanh", "Gemm", "MatMul"),
}
_REACHED = 100.0, 1e30  # numbers below are met anyway, those above stand for infinity
_MOST_ROWS = 32


def is_uniform(left: Region, right: Region) -> bool:
    """Whether one size tells as much as two: both sides move over their inputs alike, and nothing asks for a size."""
    are_uniform = all(op.type in UNIFORM for region in (left, right) for op in region.ops)
    return are_uniform and _windows(left) == _windows(right)


def hints(left: Side, right: Side) -> Hints:
    """What makes a difference between two sides, if there is one."""
    bounds = [bound for bound in map(abs, [*_bounds(left), *_bounds(right)]) if _REACHED[0] < bound < _REACHED[1]]
    is_smooth = all(op.type in UNIFORM for side in (left, right) for op in side.region.ops)
    integers = sorted({near for side in (left, right) for k in _integers(side) for near in (k - 1, k, k + 1)})
    return Hints(max(bounds, default=0.0), is_smooth, (*_rows(left, right), *integers))


def grids(region: Region, numbering: Numbering) -> Counter[tuple[Number | None, ...]]:
    """The scales and zero points of the QuantizeLinears of a region."""
    quantizers = (op for op in region.ops if op.type == "QuantizeLinear")
    return Counter(tuple(numbering.numbers.get(value) for value in op.inputs[1:] if value) for op in quantizers)


def _windows(region: Region) -> Counter[bytes]:
    """How operators move over their inputs."""
    windows: Counter[bytes] = Counter()
    for op in region.ops:
        if op.type in _MOVING:
            node = onnx.NodeProto(op_type=op.type)
            node.attribute.extend(attribute for attribute in op.node.attribute if attribute.name != "kernel_shape")
            windows[node.SerializeToString(deterministic=True)] += 1
    return windows


def _bounds(side: Side) -> Iterator[float]:
    """Single numbers."""
    for value in side.region.constants:
        if (constant := side.weight(value)).size == 1 and constant.dtype == np.float64:
            yield float(constant.reshape(()))
    for op in side.region.ops:
        if op.type == "Cast" and (kind := onnx.helper.tensor_dtype_to_np_dtype(op.attribute("to"))).kind in "iu":
            yield float(np.iinfo(kind).max if kind.itemsize < 4 else 0)
        yield from (attribute.f for attribute in op.node.attribute if attribute.type == onnx.AttributeProto.FLOAT)


def _integers(side: Side) -> Iterator[int]:
    """What integers may be compared with, or divided by."""
    for value in side.region.constants:
        if (constant := side.weight(value)).dtype.kind in "iu" and constant.size == 1:
            yield int(constant.reshape(()))


def _rows(left: Side, right: Side) -> Iterator[int]:
    """Rows of the tables that integers choose from: those that stand out against the same table of the other side."""
    for old, new in itertools.product(_tables(left), _tables(right)):
        if old.shape == new.shape and not np.array_equal(old, new):
            yield from _standing_out(*(table.reshape(len(table), -1).astype(np.float64) for table in (old, new)))


def _tables(side: Side) -> Iterator[Array]:
    for op in side.region.ops:
        if op.type == "Gather" and not op.attribute("axis", 0) and is_made_of_constants(op.data(0)):
            table = side.weight(op.data(0))
            if table.ndim:
                yield table


def _standing_out(old: FloatArray, new: FloatArray) -> Iterator[int]:
    """Rows that are furthest from what an affine of each column makes of them."""
    x, y = old - old.mean(axis=0), new - new.mean(axis=0)
    power = (x**2).sum(axis=0)
    scale = np.divide((x * y).sum(axis=0), power, out=np.zeros_like(power), where=power > 0)
    yield from np.abs(y - scale * x).max(axis=1).argsort()[-_MOST_ROWS:].tolist()
