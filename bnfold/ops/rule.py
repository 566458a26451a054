"""What a rule may answer: the edits that take an affine in, or the affine that goes on."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from math import prod
from typing import Any

import numpy as np

from bnfold.affine import Affine, FloatArray
from bnfold.graph import Constant, Op, Value
from bnfold.reasons import Reason, Refused

_MOST_SPREAD = 1 << 20  # numbers

# --- edits ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Assign:
    """Input ``index`` of ``op`` becomes this constant."""

    op: Op
    index: int
    constant: Constant


@dataclass(frozen=True, eq=False)
class Omit:
    """Optional input ``index`` of ``op``, the last that it has, is left out."""

    op: Op
    index: int


@dataclass(frozen=True, eq=False)
class SetAttribute:
    """An attribute of ``op`` gets this value; None removes it."""

    op: Op
    name: str
    value: int | float | tuple[int, ...] | None


@dataclass(frozen=True, eq=False)
class Retype:
    """``op`` becomes another operator, without attributes and without inputs from ``inputs`` on."""

    op: Op
    op_type: str
    inputs: int = 2


@dataclass(frozen=True, eq=False)
class AddBehind:
    """An Add of this constant is put behind ``op``; what it makes was the op's output."""

    op: Op
    constant: Constant


@dataclass(frozen=True, eq=False)
class Moved:
    """This value now means something else and gets another name."""

    value: Value


@dataclass(frozen=True, eq=False)
class Detach:
    """An addend leaves ``add``, and the Add goes: the operand at index ``stays`` stands for it.

    ``keeps_name`` says that this operand now means what the Add meant, so that it takes its name.
    """

    add: Op
    stays: int
    keeps_name: bool


Edit = Assign | Omit | SetAttribute | Retype | AddBehind | Moved | Detach
Edits = Sequence[Edit]

# --- answers -------------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Step:
    """One way on: edits of the operator, and the affines that still have to go somewhere.

    ``to`` maps input indices (going up) or output indices (going down) to what they get; ``beside``, going down, the
    inputs that the affine did not come to, to what they need: what makes them has to take it.
    """

    to: Mapping[int, Affine]
    edits: Edits = ()
    beside: Mapping[int, Affine] = field(default_factory=dict)


AbsorbOutput = Callable[[Op, Affine], Edits]
AbsorbInput = Callable[[Op, int, Affine], Edits]
Pass = Callable[[Op, int, Affine], Sequence[Step]]
Meet = Callable[[Op, Mapping[int, Affine]], Sequence[Step]]
Sheds = Callable[[Op], tuple[Affine, Edits]]


@dataclass(frozen=True)
class OpRule:
    """The abilities of one operator type. A rule says no by raising ``Refused``.

    Attributes:
        affine: Reads the op as an affine of its data input: ``op(x) = A(x)``; gives the input's index and A.
        absorb_output: ``A(op(x))`` becomes ``op'(x)``.
        absorb_input: ``op(A(x))`` becomes ``op'(x)``, A sitting on the input of the given index.
        lift: An affine on the output of the given index goes on to inputs; several ways, the best first.
        sink: An affine on the input of the given index goes on to outputs; several ways, the best first.
        meet: The same for affines on several inputs at once.
        sheds: ``op(x)`` becomes ``A(op'(x))``: the affine that a norm ends with, and the edits that take it off.
        data_inputs: The inputs that data comes in through, None for all. At a weight, a bias or a setting no affine is
            asked of ``absorb_input`` or ``sink``.
    """

    affine: Callable[[Op], tuple[int, Affine]] | None = None
    absorb_output: AbsorbOutput | None = None
    absorb_input: AbsorbInput | None = None
    lift: Pass | None = None
    sink: Pass | None = None
    meet: Meet | None = None
    sheds: Sheds | None = None
    data_inputs: Collection[int] | None = None

    def refuse_unless_data(self, op: Op, index: int) -> None:
        """Refuses an affine at an input that is no data; to be called before it is asked of a rule."""
        if self.data_inputs is not None and index not in self.data_inputs:
            raise Refused(Reason.NO_RULE, op_type=f"input {index} of {op.type}")


@dataclass(frozen=True)
class Carrier:
    """How an affine passes an operator of which the first input alone is data: both directions as plain functions."""

    up: Callable[[Op, Affine], Affine]
    down: Callable[[Op, Affine], Affine]

    def rule(self) -> OpRule:
        return OpRule(lift=self._lift, sink=self._sink, data_inputs=(0,))

    def _lift(self, op: Op, output: int, affine: Affine) -> Sequence[Step]:
        _refuse_unless_first(op, output)
        return [Step({0: self.up(op, affine)})]

    def _sink(self, op: Op, _index: int, affine: Affine) -> Sequence[Step]:
        if any(value is not None and (value.readers or value.is_output) for value in op.outputs[1:]):
            raise Refused(Reason.UNSUPPORTED, op_type=op.type, detail="a further output is in use")
        return [Step({0: self.down(op, affine)})]


def passes(both: Callable[[Op, Affine], Affine]) -> OpRule:
    """The rule of an operator that an affine passes in the same way in both directions."""
    return Carrier(both, both).rule()


def function_of(rule: Callable[..., Any], *, upwards: bool) -> Callable[..., Any]:
    """The function behind a rule: of a Carrier, the one for this direction."""
    if isinstance(rule, partial):
        return function_of(rule.func, upwards=upwards)
    carrier = getattr(rule, "__self__", None)
    if isinstance(carrier, Carrier):
        return function_of(carrier.up if upwards else carrier.down, upwards=upwards)
    return rule


def equation_of(rule: Callable[..., Any], *, upwards: bool) -> str:
    """What a rule rests on: the first paragraph of its docstring, as a line."""
    return " ".join((inspect.getdoc(function_of(rule, upwards=upwards)) or "").partition("\n\n")[0].split())


def _refuse_unless_first(op: Op, output: int) -> None:
    if output != 0:
        raise Refused(Reason.NO_RULE, op_type=f"output {output} of {op.type}")


# --- questions that many rules ask ---------------------------------------------------------------------------


def along(op: Op, affine: Affine, axis: int, size: int) -> tuple[FloatArray, FloatArray]:
    """Scale and shift as vectors of ``size`` values along ``axis`` (negative: from the end).

    Raises:
        Refused: the affine varies along another axis, or its size is another.
    """
    axis %= affine.rank
    if affine.axes - {axis}:
        raise Refused(Reason.WRONG_AXIS, axes=sorted(affine.axes), op_type=op.type, expected=axis)
    if affine.shape[axis] not in (1, size):
        raise Refused(Reason.WRONG_SIZE, value=op.label, size=affine.shape[axis], expected=size)
    scale, shift = (np.broadcast_to(array.reshape(-1), (size,)) for array in (affine.scale, affine.shift))
    return scale, shift


def refuse_shift(op: Op, affine: Affine) -> None:
    if affine.has_shift:
        raise Refused(Reason.SHIFT_NOT_ZERO, op_type=op.type)


def refuse_unless_positive(affine: Affine) -> None:
    if bad := int(np.count_nonzero(~(affine.scale > 0))):
        raise Refused(Reason.SCALE_NOT_POSITIVE, count=bad, channels=affine.scale.size)


def refuse_along(op: Op, affine: Affine, axes: Iterable[int]) -> None:
    """Refuses an affine that varies on one of these axes."""
    if met := affine.axes & set(axes):
        expected = f"others than {sorted(met)}"
        raise Refused(Reason.WRONG_AXIS, axes=sorted(affine.axes), op_type=op.type, expected=expected)


def refuse_rank_other_than(op: Op, affine: Affine, rank: int) -> None:
    if affine.rank != rank:
        raise Refused(Reason.UNSUPPORTED, op_type=op.type, detail=f"rank {rank} beside a value of rank {affine.rank}")


def operands_type(op: Op) -> np.dtype[Any]:
    """The type that all operands have; a constant one says it without inference."""
    values = [value for value in op.inputs if value is not None]
    for value in sorted(values, key=lambda value: op.graph.constant(value) is None):
        if (dtype := op.graph.dtype(value)) is not None:
            return dtype
    raise Refused(Reason.SHAPE_UNKNOWN, value=op.output.name)


def static(op: Op, index: int) -> tuple[int, ...]:
    """The shape of an input, every size known."""
    shape = op.shape(index)
    sizes = tuple(size for size in shape if isinstance(size, int))
    if len(sizes) != len(shape):
        raise Refused(Reason.SHAPE_UNKNOWN, value=op.data(index).name)
    return sizes


def refuse_spread(op_type: str, *shapes: Sequence[int]) -> None:
    """Refuses a sum of constants that broadcasting makes far larger than they are: a small file could fill memory."""
    size = prod(np.broadcast_shapes(*map(tuple, shapes)))
    if size > max(_MOST_SPREAD, sum(map(prod, shapes))):
        raise Refused(Reason.UNSUPPORTED, op_type=op_type, detail=f"a sum of constants of {size} numbers")
