"""Can rounding explain the difference between the two sides of a region?

The sides get the same values at their border. Their difference is held against the effect of moving every changed
weight by half an ulp of its own type, up or down at random: one rounding cannot do more, save for a factor that covers
the tail of its distribution.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import ml_dtypes
import numpy as np
import numpy.typing as npt
import onnx

from bnfold.affine import FloatArray
from bnfold.graph import Op, Value
from bnfold.verify.evaluate import CannotEvaluate, Evaluator
from bnfold.verify.kernel import as_real
from bnfold.verify.numbering import Number, Numbering
from bnfold.verify.regions import Region

Array = npt.NDArray[Any]
Given = Mapping[Number, Array]

_MANY = 16  # times that the weights are moved before anything is called different
_SOME = 4  # of them, before a second look: one that is enough already stays so, near enough
# Rounding is uniform within half an ulp, the moves are half an ulp: five times their root mean square are nearly nine
# times that of rounding. The largest of many moves at one entry is about twice their root mean square there.
_TAIL, _TAIL_OF_LARGEST = 5.0, 3.0
_NOISE = 1e-13  # of the largest magnitude on the way: the noise of float64 itself
_JITTER = 2.0**-46  # 64 ulp of float64
_POOL = 8  # fewest entries that tell a root mean square
_SIGNS = 65521  # a prime, so that repeated signs line up with no axis


@dataclass(frozen=True)
class Finding:
    """The comparison at the place where it is worst.

    Attributes:
        ratio: The difference in units of what rounding explains.
        difference: The difference, relative to max |y|.
        bound: What rounding explains, relative to max |y|.
        axis: The axis along which the channels that differ can be told from those that do not.
        channel: The channel that differs most.
        detail: What else there is to say.
    """

    ratio: float
    difference: float
    bound: float
    axis: int | None = None
    channel: int | None = None
    detail: str = ""


@dataclass(frozen=True)
class Side:
    """One side of a region.

    Attributes:
        evaluator: Evaluates the operators of its model.
        region: What there is to evaluate.
        changed: Its weights that the other side does not have.
        retuned: Its operators with floating-point attributes that no operator of the other side has.
    """

    evaluator: Evaluator
    region: Region
    changed: tuple[Value, ...]
    retuned: frozenset[Op]

    def known(self, given: Given) -> dict[Value, Array]:
        return {value: given[number] for value, number in self.region.border.items()}

    def value(self, given: Given) -> Array:
        """The value at the end of the region."""
        return self.evaluator.run(self.region.ops, self.known(given), self.region.target)

    def moved(self, given: Given, random: np.random.Generator) -> Array:
        """The same with all changed weights moved by half an ulp."""
        weights = {value: _moved(self.evaluator, value, random) for value in self.changed}
        ops = [_retuned(op, random) if op in self.retuned else op for op in self.region.ops]
        return self.evaluator.run(ops, {**self.known(given), **weights}, self.region.target)


def changed_weights(region: Region, numbering: Numbering, other: Region, others: Numbering) -> tuple[Value, ...]:
    """The weights that one side has and the other has not: those that were rounded, if they are correct."""
    theirs = {others.numbers.get(value) for value in other.constants}
    biases = {op.inputs[0] for op in region.ops if op.type == "DequantizeLinear"}
    return tuple(
        value
        for value in region.constants
        if numbering.numbers.get(value) not in theirs
        and (as_real(kind := _stored_type(value)) == np.float64 or (kind == np.int32 and value in biases))
    )


def retuned_operators(region: Region, other: Region) -> frozenset[Op]:
    """The operators of one side with floating-point attributes that no operator of the other side has."""
    theirs = {tuning for op in other.ops if (tuning := _tuning(op))}
    return frozenset(op for op in region.ops if (tuning := _tuning(op)) and tuning not in theirs)


def _tuning(op: Op) -> tuple[tuple[str, float], ...]:
    kind = onnx.AttributeProto.FLOAT
    return tuple((attribute.name, attribute.f) for attribute in op.node.attribute if attribute.type == kind)


def compared(left: Side, right: Side, given: Given, old: Array, random: np.random.Generator) -> Finding:
    """Compares the two sides on the same values.

    Args:
        left: The side of BEFORE.
        right: The side of AFTER.
        given: The values at the border.
        old: What `evaluated` has made of them on the left.
        random: For moving the weights.

    Raises:
        CannotEvaluate: A side cannot be evaluated, or nothing that says anything comes of it.
    """
    new = evaluated(right, given)
    if old.shape != new.shape:
        return Finding(np.inf, np.inf, 0.0, detail=f"shape {list(new.shape)} in the place of {list(old.shape)}")
    if not old.size:
        raise CannotEvaluate("its value has no elements")
    if old.dtype != np.float64 or new.dtype != np.float64:
        share = float(np.mean(old != new))
        return Finding(np.inf, share, 0.0, detail=f"{share:.0%} of the entries differ") if share else Finding(0, 0, 0)
    both = np.isfinite(old) & np.isfinite(new)
    if wrong := int((~(both | (old == new) | (np.isnan(old) & np.isnan(new)))).sum()):
        return Finding(np.inf, np.inf, 0.0, detail=f"{wrong} entries are not finite on one side only")
    if not both.any():
        raise CannotEvaluate("nothing finite comes of it")
    return _explained(left, right, given, np.where(both, old, 0.0), np.where(both, new, 0.0), random)


def evaluated(side: Side, given: Given) -> Array:
    """The value at the end of a side; its evaluator then knows the largest magnitude on the way."""
    side.evaluator.magnitude = 0.0
    return side.value(given)


def is_mostly_finite(value: Array) -> bool:
    """Whether what was given suits the operators that made this of it, as negative numbers do not suit a root."""
    return value.dtype != np.float64 or not value.size or float(np.isfinite(value).mean()) >= 0.5


def _explained(
    left: Side, right: Side, given: Given, old: FloatArray, new: FloatArray, random: np.random.Generator
) -> Finding:
    """Tries a cheap bound, then a careful one, then one that grants the original a rounding of its own weights."""
    noise = _NOISE * max(left.evaluator.magnitude, right.evaluator.magnitude)
    rounding = _Rounding(new.shape)
    few = -(-_POOL * math.prod(new.shape[:2]) // new.size)
    rounding.measure(right, given, new, few, random)
    finding = _worst(old, new, _TAIL * rounding.pooled() + noise)
    if finding.ratio <= 1:
        return finding
    for times in (_SOME, _MANY - _SOME):
        rounding.measure(right, given, new, times, random, jitter=True)
        finding = _worst(old, new, rounding.careful() + noise)
        if finding.ratio <= 1:
            return finding
    if not left.changed:
        return finding
    rounding.measure(left, given, old, _MANY, random)
    lenient = _worst(old, new, rounding.careful() + noise)
    return replace(lenient, detail="folded in low precision") if lenient.ratio <= 1 else finding


class _Rounding:
    """What moving the weights does to a value, measured again and again."""

    def __init__(self, shape: tuple[int, ...]) -> None:
        self.largest = np.zeros(shape)
        self._squares = np.zeros(shape)
        self._count = np.zeros(shape)

    def measure(
        self,
        side: Side,
        given: Given,
        base: FloatArray,
        times: int,
        random: np.random.Generator,
        *,
        jitter: bool = False,
    ) -> None:
        """Moves the weights so many times; and the border by float64's own noise, which an operator may magnify."""
        for _ in range(times if side.changed or side.retuned or jitter else 0):
            jittered = {number: _jittered(x, random) for number, x in given.items()} if jitter else given
            move = np.abs(side.moved(jittered, random) - base)
            move[~np.isfinite(move)] = 0.0
            np.maximum(self.largest, move, out=self.largest)
            self._squares += move**2
            self._count += move != 0

    def careful(self) -> FloatArray:
        """What rounding explains at each entry, once it has been measured often enough."""
        return np.asarray(np.maximum(_TAIL * self.pooled(), _TAIL_OF_LARGEST * self.largest))

    def pooled(self) -> FloatArray:
        """The root mean square, over the entries of a sample that belong to one channel and move at all."""
        axis = _channel_axis(self._squares)
        keep = {0, axis} - {None}
        squares, count = (_sum_but(array, keep) for array in (self._squares, self._count))
        of_sample, in_sample = (_sum_but(array, {0}) for array in (self._squares, self._count))
        mean, overall = squares / np.maximum(count, 1), of_sample / np.maximum(in_sample, 1)
        mean = np.where(count < _POOL, np.maximum(mean, overall), mean)
        return np.asarray(np.broadcast_to(np.sqrt(mean), self._squares.shape))


def _sum_but(array: FloatArray, keep: set[int | None]) -> FloatArray:
    return np.asarray(array.sum(axis=tuple(axis for axis in range(array.ndim) if axis not in keep), keepdims=True))


def _channel_axis(squares: FloatArray) -> int | None:
    """The axis, not the first, along which a value moves most unevenly: the one that tells channels apart."""
    best, found = 0.0, None
    for axis in range(1, squares.ndim):
        if squares.shape[axis] > 1:
            spread = float(np.log(_sum_but(squares, {axis}) + 1e-300).std())
            if spread > best:
                best, found = spread, axis
    return found


def _moved(evaluator: Evaluator, value: Value, random: np.random.Generator) -> FloatArray:
    """A weight with every entry moved by half an ulp of the type it is stored in, up or down."""
    weight = _weight(evaluator, value)
    if _stored_type(value) == np.int32:  # the bias of a quantised operator: half a step
        return np.asarray(weight + 0.5 * random.choice((-1.0, 1.0), weight.shape))
    moved = np.empty(weight.shape)
    source, target = weight.reshape(-1), moved.reshape(-1)
    # one block of signs serves all of a large weight, of which one output sees a small part
    block = 1 + half_ulp(value) * random.choice((-1.0, 1.0), min(weight.size, _SIGNS))
    for start in range(0, weight.size, _SIGNS):
        part = source[start : start + _SIGNS]
        np.multiply(part, block[: part.size], out=target[start : start + _SIGNS])
    return moved


def _retuned(op: Op, random: np.random.Generator) -> Op:
    """An operator with its float32 attributes moved by half an ulp."""
    node = onnx.NodeProto()
    node.CopyFrom(op.node)
    for attribute in node.attribute:
        if attribute.type == onnx.AttributeProto.FLOAT:
            attribute.f *= 1 + 2.0**-23 * random.choice((-1.0, 1.0))  # half an ulp would be rounded away again
    moved = Op(op.graph, op.scope, node, op.type)
    moved.inputs, moved.outputs, moved.bodies = op.inputs, op.outputs, op.bodies
    return moved


def _jittered(x: Array, random: np.random.Generator) -> Array:
    return x * (1 + _JITTER * random.choice((-1.0, 1.0), x.shape)) if x.dtype == np.float64 else x


def _weight(evaluator: Evaluator, value: Value) -> Array:
    if value.tensor is not None:
        return evaluator.constant(value)
    assert value.producer is not None  # a Constant node
    return evaluator.run([value.producer], {}, value)


def _stored_type(constant: Value) -> np.dtype[Any]:
    """The type that an initializer or the output of a Constant node is stored in."""
    tensor = constant.tensor
    if tensor is None and constant.producer is not None:
        tensor = constant.producer.attribute("value")
        if tensor is None:
            name = constant.producer.node.attribute[0].name
            return np.dtype(np.float32 if "float" in name else np.int64)
    assert tensor is not None
    return np.dtype(onnx.helper.tensor_dtype_to_np_dtype(tensor.data_type))


def half_ulp(constant: Value) -> float:
    """Half an ulp of the type that a constant is stored in, relative to a value that is a power of two."""
    if _stored_type(constant) == np.int32:
        return 2.0**-24
    mantissa: int = ml_dtypes.finfo(_stored_type(constant)).nmant  # type: ignore[no-untyped-call]
    return float(2.0 ** -(mantissa + 1))


def _worst(old: FloatArray, new: FloatArray, bound: FloatArray) -> Finding:
    error = np.abs(old - new)
    ratio = np.divide(error, bound, out=np.where(error > 0, np.inf, 0.0), where=bound > 0)
    place = np.unravel_index(int(ratio.argmax()), ratio.shape)
    scale = float(np.abs(old).max()) or 1.0
    axis = _telling_axis(ratio > 1)
    return Finding(
        ratio=float(ratio[place]),
        difference=float(error[place]) / scale,
        bound=float(bound[place]) / scale,
        axis=axis,
        channel=None if axis is None else int(place[axis]),
    )


def _telling_axis(wrong: npt.NDArray[np.bool_]) -> int | None:
    """The axis, not the first, that has the smallest share of places where something is wrong; None if all have."""
    best, found = 1.0, None
    for axis in range(1, wrong.ndim):
        share = float(wrong.any(axis=tuple(other for other in range(wrong.ndim) if other != axis)).mean())
        if 0 < share < best:
            best, found = share, axis
    return found
