"""One side of a region, and what rounding could have made of it."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx

from bnfold.affine import FloatArray
from bnfold.graph import Op, Value, cast_type, is_float
from bnfold.verification.float64.carried import Rounding, rounding_to
from bnfold.verification.float64.evaluate import ORDERING, Evaluator, is_stored
from bnfold.verification.float64.how import How, Result
from bnfold.verification.float64.kernels import RANDOM
from bnfold.verification.regions.numbering import Number, Numbering, takes_numbers
from bnfold.verification.regions.regions import Region

Array = npt.NDArray[Any]
Given = Mapping[Number, Array]

COMPARING = ORDERING | {"Equal"}
# What these make of sizes changes its course at some of them.
_BENDING = COMPARING | {"If", "Relu", "Clip", "Max", "Min", "Sign", "Abs", "Div", "Mod"}
_OVERRULING = {"And": False, "Or": True}
LEARNT = "ai.onnx.ml"
_BIAS_STEP = 1.0  # of the bias of a quantised operator: it is in units of products of scales, which are rounded too
_ON_THE_WAY = 4.0  # roundings of a BatchNormalization's parameter until it is in a weight: of v + eps, √, s / √ and s W


@dataclass(frozen=True, eq=False)
class Read:
    """An input of an operator."""

    op: Op
    index: int
    value: Value

    def __str__(self) -> str:
        return f"input {self.index} of {self.op.type}"


@dataclass(frozen=True)
class Side:
    """One side of a region.

    Attributes:
        evaluator: Evaluates the operators of its model.
        region: What there is to evaluate.
        active: Its operators that read data, or the size of it.
        changed: Its weights that the other side does not have.
        alone: Where its operators read constants that no operator of the other side reads.
        sizes: The same of integers that say where or how much.
        retuned: Its operators with floating-point attributes that no operator of the other side has.
        decided: Its Ifs that take the same branch whatever the inputs hold.
        compared: Its comparisons of sizes, and what else may go by them otherwise where they are small: an If, a Relu.
        counting: The same of what goes by the number of an iteration.
        conditions: The number of what each of its Ifs goes by.
        how: How its operators are evaluated.
    """

    evaluator: Evaluator
    region: Region
    active: tuple[Op, ...]
    changed: tuple[Value, ...]
    alone: tuple[Read, ...]
    sizes: tuple[Read, ...]
    retuned: frozenset[Op]
    decided: frozenset[Op]
    compared: frozenset[Op]
    counting: frozenset[Op]
    conditions: Mapping[Op, Number | None]
    how: How

    def known(self, given: Given) -> dict[Value, Array]:
        return {value: given[number] for value, number in self.region.border.items()}

    def evaluate(self, given: Given, how: How | None = None) -> Result:
        """The value at the end of the region."""
        return self.evaluator.evaluate(self.region.ops, self.known(given), self.region.target, how or self.how)

    def value(self, given: Given) -> Array:
        """The same, without what else there is to say."""
        return np.asarray(self.evaluate(given).num.value)

    def weight(self, value: Value) -> FloatArray:
        """A constant of the region, in float64."""
        if value.producer is None:
            return self.evaluator.constant(value)
        return self.evaluator.run(_made_of(value), {}, value)

    @property
    def is_rounded(self) -> bool:
        """Whether it has weights or attributes that the other side does not have."""
        return bool(self.changed or self.retuned)

    @cached_property
    def _whole_exponents(self) -> frozenset[Value]:
        """Which nobody has rounded, and if they were off, roots of negative numbers would be none."""
        exponents = {op.input(1) for op in self.region.all_ops if op.type == "Pow"}
        return frozenset(v for v in self.changed if v in exponents and (np.mod(self.weight(v), 1) == 0).all())

    @property
    def unit(self) -> float:
        """The coarsest rounding of its changed weights, relative to them."""
        return max((rounding_of(value).u for value in self.changed), default=0.0)

    def rounded(self, *, folds: bool = False) -> How:
        """With every changed weight off by a rounding to its type.

        With ``folds`` as by those who fold in that type: also all that is computed from constants is, and parameters by
        more than one, of what is computed of them on the way.
        """
        roundings = {value: rounding_of(value) for value in self.changed if value not in self._whole_exponents}
        if folds:  # what data is only held against is in no weight
            held = {read.value for read in self.alone if read.op.type in COMPARING}
            roundings = {
                v: r.times(_ON_THE_WAY) if _is_parameter(v) else r for v, r in roundings.items() if v not in held
            }
        return replace(self.how, rounded=roundings, retuned=self.retuned, folds=folds)


def changed_weights(region: Region, numbering: Numbering, other: Region, others: Numbering) -> tuple[Value, ...]:
    """The weights that one side has and the other has not: those that were rounded, if they are correct."""
    theirs = {others.numbers.get(value) for value in [*other.constants, *_casts(other, others)]}
    biases = {op.inputs[0] for op in region.all_ops if op.type == "DequantizeLinear" and _is_vector(op.inputs[0])}
    return tuple(
        value
        for value in [*region.constants, *_casts(region, numbering)]
        if numbering.numbers.get(value) not in theirs
        and (is_float(kind := stored_type(value)) or (kind == np.int32 and value in biases))
    )


def active_operators(region: Region) -> tuple[Op, ...]:
    """All but those that make something of what is stored; of the second input of a CastLike, the type alone counts."""
    made: set[Value] = set()

    def is_active(op: Op) -> bool:
        reads = [value for value in (op.inputs[:1] if op.type == "CastLike" else op.inputs) if value is not None]
        data = (value in region.border or not (value in made or is_stored(value)) for value in reads)
        return bool(op.bodies) or op.type in RANDOM or any(data)

    active = []
    for op in region.all_ops:
        if is_active(op):
            active.append(op)
        else:
            made.update(output for output in op.outputs if output is not None)
    return tuple(active)


def compared_sizes(region: Region, numbering: Numbering) -> frozenset[Op]:
    """Comparisons of sizes, and what else may go by them otherwise where they are small."""

    def is_of_sizes(op: Op) -> bool:
        reads = [value for value in (op.inputs[:1] if op.type == "If" else op.inputs) if value is not None]
        return all(value in numbering.constants for value in reads) and not all(map(is_made_of_constants, reads))

    squeezing = (op for op in region.all_ops if op.type == "Squeeze" and _is_open(op))
    return frozenset(itertools.chain(filter(is_of_sizes, _bending(region)), squeezing))


def _is_open(squeeze: Op) -> bool:
    """Whether it is the sizes of an input that say which axes go."""
    shape = squeeze.graph.shape(squeeze.data(0))
    is_stated = squeeze.input(1) is not None or squeeze.attribute("axes") is not None
    return not is_stated and not (shape is not None and all(isinstance(size, int) for size in shape))


def _bending(region: Region) -> Iterator[Op]:
    return (op for op in region.all_ops if op.type in _BENDING or cast_type(op) == np.bool_)


def counting_operators(region: Region, numbering: Numbering) -> frozenset[Op]:
    """What goes by the number of an iteration, in Loops that may have any number of them."""
    counted = set[Value]()

    def is_counted(op: Op) -> bool:
        reads = {value for value in (op.inputs[:1] if op.type == "If" else op.inputs) if value is not None}
        return not reads.isdisjoint(counted) and reads <= counted | numbering.constants

    for op in region.all_ops:
        if op.type == "Loop" and ((trips := op.input(0)) is None or op.graph.constant(trips) is None):
            counted.update(op.bodies[0].own(entry.name) for entry in op.bodies[0].proto.input[:1])
        elif counted and is_counted(op):
            counted.update(value for value in op.outputs if value is not None)
    return frozenset(filter(is_counted, _bending(region)))


def lone_reads(
    region: Region, numbering: Numbering, other: Region, others: Numbering, *, sizes: bool = False
) -> tuple[Read, ...]:
    """Where operators read constants that no operator of the other side reads, or compares with alike.

    Numbers, and integers beside data; or those that are sizes.
    """
    theirs = {_use(read, others) for read in _constant_reads(other, others, sizes=sizes)}
    ours = _constant_reads(region, numbering, sizes=sizes)
    return tuple(read for read in ours if _use(read, numbering) not in theirs)


def _use(read: Read, numbering: Numbering) -> tuple[Number | None, str]:
    """What is read; and how it is compared with, as to be greater is not to be as great."""
    return numbering.numbers.get(read.value), read.op.type if read.op.type in COMPARING else ""


def _constant_reads(region: Region, numbering: Numbering, *, sizes: bool) -> list[Read]:
    return [
        Read(op, index, value)
        for op in region.all_ops
        if not _is_overruled(op)
        for index, value in enumerate(op.inputs)
        if value is not None and value in numbering.constants and _is_size(op, index, value, numbering) == sizes
    ]


def _is_overruled(op: Op) -> bool:
    """Whether an And with what is never true, or an Or with what always is, makes nothing of what it says."""
    uses = [use for value in op.outputs if value is not None and not value.is_output for use in value.readers]
    return bool(uses) and all(_overrules(use.op, 1 - use.index) for use in uses)


def _overrules(op: Op, index: int) -> bool:
    known = op.graph.constant(op.data(index)) if op.type in _OVERRULING else None
    return known is not None and bool((known.array() == _OVERRULING[op.type]).all())


def is_settled(op: Op | None) -> bool:
    """Whether an And with what is never true, or an Or with what always is, decides what it makes."""
    if op is not None and op.type == "Not":
        return is_settled(op.data(0).producer)
    return op is not None and any(_overrules(op, index) for index in range(len(op.inputs)))


def _is_size(op: Op, index: int, value: Value, numbering: Numbering) -> bool:
    """Whether it is an integer that says where or how much, or from which nothing but such integers are computed."""
    kind = numbering.graph.dtype(value)
    if kind is not None and is_float(kind):
        return False
    makes_sizes = all(output in numbering.constants for output in op.outputs if output is not None)
    return makes_sizes or not takes_numbers(op.node.domain, op.node.op_type, op.opset, index)


def _casts(region: Region, numbering: Numbering) -> list[Value]:
    """Computed constants that are rounded to another type."""
    outputs = [op.outputs[0] for op in region.ops if op.type == "Cast"]
    return [value for value in outputs if value in numbering.constants and is_made_of_constants(value)]


def is_made_of_constants(value: Value) -> bool:
    """Whether it depends on nothing but what is stored; not on a shape either."""
    seen, stack = {value}, [value]
    while stack:
        current = stack.pop()
        if current.producer is not None:
            new = set(current.producer.reads()) - seen
            seen |= new
            stack += new
        elif not is_stored(current):
            return False
    return True


def _made_of(value: Value) -> list[Op]:
    """The operators that make a constant, in order."""
    ops: dict[Op, None] = {}
    stack = [(value, False)]
    while stack:
        current, done = stack.pop()
        if current.producer is None or current.producer in ops:
            continue
        if done:
            ops[current.producer] = None
        else:
            stack += [(current, True), *((read, False) for read in current.producer.reads())]
    return list(ops)


def _is_vector(value: Value | None) -> bool:
    return value is not None and value.tensor is not None and len(value.tensor.dims) == 1


def retuned_operators(region: Region, other: Region) -> frozenset[Op]:
    """The operators of one side with floating-point attributes that no operator of the other side has."""
    theirs = {tuning for op in other.all_ops if (tuning := _tuning(op))}
    return frozenset(op for op in region.all_ops if (tuning := _tuning(op)) and tuning not in theirs)


def _tuning(op: Op) -> tuple[tuple[str, float], ...]:
    kind = onnx.AttributeProto.FLOAT
    if op.node.domain == LEARNT:  # of which one is a threshold, or what is looked for
        return ()
    return tuple((attribute.name, attribute.f) for attribute in op.node.attribute if attribute.type == kind)


def _is_parameter(constant: Value) -> bool:
    """Whether it has a number for each channel at the most."""
    tensor = constant.tensor if constant.producer is None else constant.producer.attribute("value")
    return tensor is not None and math.prod(tensor.dims) == max(tensor.dims, default=1)


def stored_type(constant: Value) -> np.dtype[Any]:
    """The type that a constant is stored in, or cast to."""
    tensor = constant.tensor if constant.sparse is None else constant.sparse.values
    if constant.producer is not None and constant.producer.type == "Cast":
        return np.dtype(onnx.helper.tensor_dtype_to_np_dtype(constant.producer.attribute("to")))
    if tensor is None and constant.producer is not None:
        tensor = constant.producer.attribute("value")
        if tensor is None:
            name = constant.producer.node.attribute[0].name
            return np.dtype(np.float32 if "float" in name else np.int64)
    assert tensor is not None
    return np.dtype(onnx.helper.tensor_dtype_to_np_dtype(tensor.data_type))


def rounding_of(constant: Value) -> Rounding:
    """What one rounding to the type that a constant is stored in can do to it."""
    dtype = stored_type(constant)
    if dtype == np.int32:
        return Rounding(0.0, _BIAS_STEP)
    return rounding_to(dtype)
