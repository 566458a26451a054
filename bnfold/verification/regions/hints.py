"""What has to be tried to tell two regions apart, by the operators and constants that they have."""

from __future__ import annotations

import itertools
import math
from collections import Counter
from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx

from bnfold.affine import FloatArray
from bnfold.graph import Op, cast_type
from bnfold.model_io.protobuf import encoded
from bnfold.verification.float64.kernel import Array
from bnfold.verification.float64.rules import is_continuous
from bnfold.verification.regions.numbering import Number, Numbering
from bnfold.verification.regions.regions import Region
from bnfold.verification.regions.side import COMPARING, LEARNT, Side, is_made_of_constants
from bnfold.verification.regions.sizes import ENDLESS

MOVING = frozenset({"Conv", "ConvTranspose", "com.microsoft::FusedConv", "AveragePool", "MaxPool"})
# What these do at one size, and at one place, they do at every other.
UNIFORM = MOVING | {
    *("BatchNormalization", "Add", "Sub", "Mul", "Div", "Neg", "Identity", "Constant", "DequantizeLinear"),
    *("Relu", "LeakyRelu", "PRelu", "Clip", "Sigmoid", "HardSigmoid", "HardSwish", "Tanh", "Gemm", "MatMul"),
}
# What these make of numbers turns nowhere.
_STRAIGHT = frozenset(
    {"Conv", "ConvTranspose", "AveragePool", "GlobalAveragePool", "BatchNormalization", "Gemm", "MatMul"}
)
_STRAIGHT |= {"Add", "Sub", "Mul", "Neg", "Identity", "Constant", "DequantizeLinear", "Cast", "Reshape", "Transpose"}
_SAMPLE_BY_SAMPLE = UNIFORM - {"Gemm", "MatMul"} | {"Cast", "Pow"}
_REACHING = frozenset({"Min", "Max", "Add", "Sub", "Conv", "Gemm", "BatchNormalization"})
_MOST_BOUNDS = 1 << 12
_USUAL = 3.0  # normal numbers up to here are met anyway
_REACHED = 100.0, 1e30  # numbers below are met anyway, those above stand for infinity
_KEEPING, _SMALL = frozenset({"Add", "Max", "Clip"}), 1e-2
_STEEP = frozenset({"Sqrt", "Log", "Reciprocal", "Pow", "LayerNormalization", "InstanceNormalization"})
_STEEP |= {"GroupNormalization", "RMSNormalization", "SimplifiedLayerNormalization", "MeanVarianceNormalization"}
_STATED = {"ThresholdedRelu": ("alpha", 1.0), "Shrink": ("lambd", 0.5)}
_ODD = {"IsNaN": (math.nan,), "IsInf": (math.inf, -math.inf)}
_OVERFLOWING = frozenset({"Add", "Sub", "Mul", "Div", "Neg", "Abs", "Pow", "Sum", "BitShift"})
_ENDLESS = 4  # bytes of an integer that nothing overflows: an index, a label, a size
_MOST_WHOLE = 1 << 16  # of a number that integers may be held against
_MOST_ROWS = 32
_MOST_LEVELS = 32
ROUNDED = 1e-6  # of themselves, by which two constants differ that are the same but for rounding
_ALIKE = 1e-4  # of the largest number of a table, to which its rows are an affine of those of another


def is_uniform(left: Side, right: Side) -> bool:
    """Whether one size tells as much as two: both sides move over their inputs alike, and nothing asks for a size."""
    are_uniform = all(op.type in UNIFORM for side in (left, right) for op in side.active)
    return are_uniform and _windows(left) == _windows(right)


def reach(left: Side, right: Side) -> list[float]:
    """The largest number that a value may be held against, as the bounds of a Clip."""
    bounds = [bound for bound in map(abs, [*_bounds(left), *_bounds(right)]) if _REACHED[0] < bound < _REACHED[1]]
    return sorted(bounds)[-1:]


def deciding(left: Side, right: Side) -> list[Op]:
    """Operators that decide by comparing, for which equal numbers are something special."""
    return [op for side in (left, right) for op in side.active if not is_continuous(op)]


def choices(left: Side, right: Side) -> tuple[int, ...]:
    """Integers to try: rows of tables that stand out, and what integers are compared with."""
    integers = sorted({near for side in (left, right) for k in _integers(side) for near in (k - 1, k, k + 1)})
    return *rows(left, right), *integers


def winners(left: Side, right: Side) -> list[tuple[int, tuple[int, ...]]]:
    """Places to make the largest one, or the smallest, where an operator chooses, and then reads tables that differ."""
    wanted = {_ends(op) for side in (left, right) for op in side.region.all_ops} - {0}
    return [(sign, places) for sign in sorted(wanted, reverse=True) if (places := rows(left, right))]


def meeting(left: Side, right: Side) -> list[bool]:
    """Whether an operator may bring together what is in different samples."""
    return [not all(_keeps_samples(side, op) for side in (left, right) for op in side.active)]


def odd(left: Side, right: Side) -> list[float]:
    """What is no number, if an operator asks for that."""
    types = {op.type for side in (left, right) for op in side.region.all_ops}
    return [number for op_type, numbers in _ODD.items() if op_type in types for number in numbers]


def grids(region: Region, numbering: Numbering) -> Counter[tuple[Number | None, ...]]:
    """The scales and zero points of the QuantizeLinears of a region."""
    quantizers = (op for op in region.all_ops if op.type == "QuantizeLinear")
    return Counter(tuple(numbering.numbers.get(value) for value in op.inputs[1:] if value) for op in quantizers)


def _windows(side: Side) -> list[tuple[bytes, object]]:
    """How operators move over their inputs, in order: by which of them is first, others may reach the end."""
    windows: list[tuple[bytes, object]] = []
    for op in side.active:
        if op.type in MOVING:
            node = onnx.NodeProto(op_type=op.type)
            node.attribute.extend(attribute for attribute in op.node.attribute if attribute.name != "kernel_shape")
            kernel = op.attribute("kernel_shape") or (op.graph.shape(op.data(1)) or ())[2:]
            windows.append((encoded(node, deterministic=True), tuple(kernel)))
    return windows


def _keeps_samples(side: Side, op: Op) -> bool:
    """Whether what it makes of a sample, the first axis counts them, stays in the place of that sample."""
    if op.type in ("Concat", "Split"):
        axis, shape = op.attribute("axis", 0), op.graph.shape(op.data(0))
        return bool(axis > 0 or (shape is not None and 0 < -axis < len(shape)))
    if op.type == "Transpose":
        return list(op.attribute("perm", []))[:1] == [0]
    if op.type not in ("Slice", "Pad"):
        return op.type in _SAMPLE_BY_SAMPLE
    settings = [value for value in op.inputs[1:] if value is not None and is_made_of_constants(value)]
    if not settings or len(settings) < len(op.inputs) - 1:
        return False
    first, *others = (side.weight(value).reshape(-1).tolist() for value in settings)
    if op.type == "Pad":
        return op.input(3) is None and first[0] == first[len(first) // 2] == 0
    ends, axes, steps = (*others, *[[]] * 3)[:3]
    cuts = zip(axes or range(len(first)), first, ends, steps or [1] * len(first), strict=False)
    return all(axis > 0 or (end >= ENDLESS and (axis, start, step) == (0, 0, 1)) for axis, start, end, step in cuts)


def _ends(op: Op) -> int:
    """1 for an operator that says where the largest number is, -1 where the smallest one is."""
    if op.type == "TopK":
        return 1 if op.attribute("largest", 1) else -1
    return {"ArgMax": 1, "ArgMin": -1}.get(op.type, 0)


def _bounds(side: Side) -> Iterator[float]:
    """Single numbers."""
    for constant in _single_numbers(side):
        if constant.dtype == np.float64:
            yield float(constant.reshape(()))
    for op in side.region.all_ops:
        if op.type == "Cast" and (kind := cast_type(op)) is not None and kind.kind in "iu":
            yield float(np.iinfo(kind).max if kind.itemsize < 4 else 0)
        yield from (attribute.f for attribute in op.node.attribute if attribute.type == onnx.AttributeProto.FLOAT)
        for array in _vectors(side, op):
            bound = float(np.abs(array[np.isfinite(array)]).max(initial=0.0))
            yield bound * (_steps(op) if op.type == "QuantizeLinear" else 1)


def _vectors(side: Side, op: Op) -> Iterator[Array]:
    """The bounds of a Min or a Max, what is added, and the scales of a QuantizeLinear."""
    for value in op.inputs[1:2] if op.type == "QuantizeLinear" else op.inputs if op.type in _REACHING else ():
        few = value is not None and value.tensor is not None and math.prod(value.tensor.dims) <= _MOST_BOUNDS
        if value in side.region.constants and few and (array := side.weight(value)).dtype == np.float64:
            yield array


def _steps(op: Op) -> int:
    """How many there are in the type of a QuantizeLinear."""
    zero = op.input(2)
    dtype = None if zero is None else op.graph.dtype(zero)
    return 1 << 8 * (1 if dtype is None else dtype.itemsize)


def levels(left: Side, right: Side) -> tuple[float, ...]:
    """Numbers at each threshold that only one side has, or compares with in its way, on both sides, and between."""
    is_bent = not all(op.type in _STRAIGHT for side in (left, right) for op in side.active)
    types = COMPARING | {"Add", "Sub"} if is_bent else COMPARING
    reads = [(side, read) for side in (left, right) for read in side.alone if read.op.type in types]
    arrays = [(read.op, side.weight(read.value)) for side, read in reads if is_made_of_constants(read.value)]
    small = ((op, array) for op, array in arrays if array.size <= _MOST_LEVELS // 4 and array.dtype == np.float64)
    few = [_turning(op, array) for op, array in small]
    stated = [_stated(op) for op in left.retuned | right.retuned if op.type in _STATED]
    steps = sorted({step for array in few for step in array.ravel().tolist()}.union(*stated, _learnt(left, right)))
    pairs = itertools.pairwise(steps)
    twins = {step for pair in pairs if math.isclose(*pair, rel_tol=ROUNDED) for step in pair}  # rounding between them
    steps = [step for step in steps if step not in twins]
    if not steps:
        return ()
    beyond = [end + sign * max(1.0, abs(end)) for end, sign in ((steps[0], -1), (steps[-1], 1))]
    between = [(low + high) / 2 for low, high in itertools.pairwise(steps)]
    return tuple([*between, *beyond, *steps][:_MOST_LEVELS])


def _turning(op: Op, constant: Array) -> Array:
    """What is held against a constant; or what comes to zero with it, where a Sigmoid may turn, if it is not usual."""
    if op.type in COMPARING:
        return constant
    constant = constant[np.abs(constant) > _USUAL]
    return np.concatenate([constant, -constant]) if op.type == "Add" else constant


def _learnt(left: Side, right: Side) -> set[float]:
    """The numbers in the attributes of ai.onnx.ml if they are few; else those that one side has, if these are."""
    ours, theirs = (
        {
            float(number)
            for op in side.region.all_ops
            if op.node.domain == LEARNT
            for attribute in op.node.attribute
            for number in ([attribute.f] if attribute.type == onnx.AttributeProto.FLOAT else attribute.floats)
        }
        for side in (left, right)
    )
    few = (numbers for numbers in (ours | theirs, ours ^ theirs) if len(numbers) <= _MOST_LEVELS // 4)
    return next(few, set()) if ours != theirs else set()


def _stated(op: Op) -> tuple[float, float]:
    """A threshold that an operator has as an attribute, on both sides of zero."""
    name, default = _STATED[op.type]
    threshold = op.attribute(name, default)
    return -threshold, threshold


def epsilon(left: Side, right: Side) -> list[float]:
    """The largest of the small numbers of one side that keep others away from zero."""
    if not any(_is_steep(op) for side in (left, right) for op in side.region.all_ops):
        return []
    found = [0.0]
    for side in (left, right):
        norms = (op for op in side.retuned if op.type != "BatchNormalization")  # of which it is in the weights
        found += [op.attribute("epsilon", 0.0) for op in norms]
        values = [read.value for read in side.alone if read.op.type in _KEEPING and is_made_of_constants(read.value)]
        arrays = map(side.weight, values)
        found += [abs(array.item()) for array in arrays if array.size == 1 and array.dtype == np.float64]
    return [most] if (most := max(number for number in found if number < _SMALL)) else []


def _is_steep(op: Op) -> bool:
    """Whether near zero it makes much of little."""
    return op.type in _STEEP or (op.type == "Div" and not is_made_of_constants(op.data(1)))


def _integers(side: Side) -> Iterator[int]:
    """What integers may be compared with, or divided by; what is looked for among them."""
    lone = (side.weight(read.value) for read in side.alone if is_made_of_constants(read.value))
    for constant in _single_numbers(side):
        if constant.dtype.kind == "f" and abs(constant.item()) < _MOST_WHOLE:
            yield int(constant.item())
    for constant in (*_single_numbers(side), *lone):
        if constant.dtype.kind in "iu" and constant.size <= _MOST_LEVELS:
            yield from map(int, constant.ravel())
    for op in side.region.all_ops:
        if op.node.domain == LEARNT:
            yield from (number for attribute in op.node.attribute for number in attribute.ints[:_MOST_LEVELS])


def extremes(left: Side, right: Side) -> list[int]:
    """Integers that are cast to a narrower type, which does not hold them; the ends of one that is computed with."""
    ops = (*left.region.all_ops, *right.region.all_ops)
    own = [op.graph.dtype(op.data(0)) for op in (*left.active, *right.active) if op.type in _OVERFLOWING]
    ends = {end for kind in own if kind and kind.kind in "iu" and kind.itemsize < _ENDLESS for end in _ends_of(kind)}
    pairs = [(op.graph.dtype(op.data(0)), new) for op in ops if (new := cast_type(op)) and new.kind in "iu"]
    narrow = {np.iinfo(new) for old, new in pairs if old and old.kind in "iu" and old.itemsize > new.itemsize}
    return sorted(ends | {end for info in narrow for end in (info.max + 1, info.min - 1)})


def _ends_of(kind: np.dtype[Any]) -> tuple[int, int]:
    return np.iinfo(kind).max, np.iinfo(kind).min


def words(left: Side, right: Side) -> list[str]:
    """Texts that others are held against."""
    texts = [
        text for op in (*left.region.all_ops, *right.region.all_ops) for a in op.node.attribute for text in a.strings
    ]
    tensors = (value.tensor for value in (*left.region.constants, *right.region.constants) if value.tensor is not None)
    texts += [text for tensor in tensors if tensor.data_type == onnx.TensorProto.STRING for text in tensor.string_data]
    plain = [text.decode(errors="replace") for text in texts]
    return list(dict.fromkeys([*plain, *map(str.swapcase, plain)]))


def _single_numbers(side: Side) -> Iterator[Array]:
    for value in side.region.constants:
        if (value.tensor is None or math.prod(value.tensor.dims) == 1) and (array := side.weight(value)).size == 1:
            yield array


def rows(left: Side, right: Side) -> tuple[int, ...]:
    """Rows of the tables that integers choose from: those that stand out against the same table of the other side."""
    found: dict[int, None] = {}
    for old, new in itertools.product(_tables(left), _tables(right)):
        if old.shape == new.shape and not np.array_equal(old, new):
            tables = (table.reshape(len(table), -1).astype(np.float64) for table in (old, new))
            found |= dict.fromkeys(_standing_out(*tables))
    return tuple(found)


def _tables(side: Side) -> Iterator[Array]:
    for op in side.region.all_ops:
        if op.type == "Gather" and not op.attribute("axis", 0) and is_made_of_constants(op.data(0)):
            table = side.weight(op.data(0))
            if table.ndim:
                yield table


def _standing_out(old: FloatArray, new: FloatArray) -> Iterator[int]:
    """Rows that are furthest from what an affine of each column makes of them."""
    yield from _residuals(old, new, np.ones(len(old), bool)).argsort()[-_MOST_ROWS:].tolist()


def stray_rows(old: Array, new: Array) -> list[int]:
    """The few rows of a table that are not what an affine of each column makes of them, as it does of all others."""
    if old.ndim == 0 or len(old) < _MOST_ROWS * 2:
        return []
    x, y = (table.reshape(len(table), -1).astype(np.float64) for table in (old, new))
    is_usual = np.ones(len(x), bool)
    is_usual[list(_standing_out(x, y))] = False
    rows = np.flatnonzero(_residuals(x, y, is_usual) > _ALIKE * np.abs(y).max())
    return rows.tolist() if len(rows) <= _MOST_ROWS else []


def _residuals(old: FloatArray, new: FloatArray, rows: npt.NDArray[np.bool_]) -> FloatArray:
    """How far each row is from what the affine of each column makes of it that suits the given rows."""
    means = old[rows].mean(axis=0), new[rows].mean(axis=0)
    x, y = old - means[0], new - means[1]
    power = (x[rows] ** 2).sum(axis=0)
    scale = np.divide((x[rows] * y[rows]).sum(axis=0), power, out=np.zeros_like(power), where=power > 0)
    return np.asarray(np.abs(y - scale * x).max(axis=1))
