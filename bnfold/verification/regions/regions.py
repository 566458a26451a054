"""Cutting a graph at values that two models share."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

from bnfold.graph import Graph, Op, Scope, Value
from bnfold.verification.float64.control import body as body_of
from bnfold.verification.regions.numbering import Number, Numbering

# What comes of these does not take every value.
_CONFINING = frozenset(
    {
        *("Sigmoid", "HardSigmoid", "Softmax", "Relu", "Clip", "Abs", "Exp", "Sqrt", "Softplus", "Tanh"),
        *("Pad", "Concat", "Expand", "Tile", "Resize", "Upsample"),  # of which parts are alike, or constant
    }
)


@dataclass(frozen=True)
class Region:
    """The part of a graph between some values and one that is made of them.

    Attributes:
        target: The value at its end.
        ops: Its operators, in graph order.
        border: The values that it starts from, with their numbers; equal values have equal numbers.
        constants: The initializers and Constant nodes' values that it reads.
        data: Of the border, what is read for more than its shape.
    """

    target: Value
    ops: tuple[Op, ...]
    border: dict[Value, Number]
    constants: tuple[Value, ...]
    data: frozenset[Number] = frozenset()

    @cached_property
    def all_ops(self) -> tuple[Op, ...]:
        """Its operators, and those in their bodies."""
        return tuple(all_ops(self.ops))


def needed(graph: Graph) -> set[Value]:
    """The values of a graph, those in bodies included, that some output is made of."""
    found: set[Value] = set()
    stack = list(graph.main.outputs)
    while stack:
        value = stack.pop()
        if value not in found and (op := value.producer) is not None:
            stack += filter(None, op.inputs)
            stack += (output for inner in _reachable(op) for output in inner.outputs)
        found.add(value)
    return found


def cut(numbering: Numbering, target: Value, is_border: Callable[[Value], bool]) -> Region:
    """The region that ends at ``target`` and starts where ``is_border`` says so, at the latest at graph inputs."""
    ops: dict[Op, None] = {}
    border: dict[Value, Number] = {}
    constants: dict[Value, None] = {}
    seen: set[Value] = set()
    stack: list[tuple[Value, bool]] = [(target, False)]
    while stack:
        value, done = stack.pop()
        if done:
            assert value.producer is not None
            ops.setdefault(value.producer)
        elif value not in seen:
            seen.add(value)
            if value is not target and value not in numbering.constants and is_border(value):
                border[value] = numbering.numbers[value]
            elif value.producer is None:
                _end(numbering, value, border, constants)
            else:
                if value.producer.type == "Constant":
                    constants[value] = None
                stack.append((value, True))
                stack.extend((read, False) for read in value.producer.reads() if read not in seen)
    for op in ops:
        constants.update(dict.fromkeys(_inner_constants(op)))
    read = {target}
    for op in reversed(ops):
        if not read.isdisjoint(value for value in op.outputs if value is not None):
            read.update(numbering.read_for_data(op))
    data = frozenset(number for value, number in border.items() if value in read)
    return Region(target, tuple(ops), border, tuple(constants), data)


def balanced(
    before: Numbering,
    after: Numbering,
    target: Value,
    replacement: Value,
    may_cut: Callable[[Value], bool],
    forbidden: frozenset[Number] = frozenset(),
) -> tuple[Region, Region]:
    """The regions of two values that should be equal, cut at the same values.

    A value that only one side reads is no border: if ``b`` is made of ``a``, and one side starts from ``a`` and the
    other from ``b``, then only ``a`` can be chosen freely. The latest such value is opened until the borders agree, but
    for what is read for its shape alone: it may hold anything.

    Args:
        before: The numbers of one model.
        after: The numbers of the other.
        target: The value in ``before``.
        replacement: The value in ``after``.
        may_cut: Whether a value of ``before`` can be made up.
        forbidden: Numbers at which not to cut.
    """
    opened = set(forbidden)

    def is_border(value: Value, numbering: Numbering) -> bool:
        number = numbering.numbers.get(value)
        if number is None or number in opened or number not in before.values or number not in after.values:
            return False
        return may_cut(before.values[number])

    while True:
        left = cut(before, target, lambda value: is_border(value, before))
        right = cut(after, replacement, lambda value: is_border(value, after))
        uneven = {
            number
            for number in left.data ^ right.data
            if all(number in side.values and side.values[number].producer is not None for side in (before, after))
        }
        if not uneven:
            return left, right
        opened.add(max(uneven, key=lambda number: before.order[before.values[number]]))


def dependent_border(before: Numbering, *sides: Region) -> Number | None:
    """The latest value at a border that is made of another value at a border, of either side; None if there is none."""
    border = {before.values[number] for side in sides for number in side.border.values() if number in before.values}
    for value in sorted(border, key=lambda value: before.order[value], reverse=True):
        if value.producer is not None and _reaches(value, border - {value}):
            return before.numbers[value]
    return None


def all_ops(ops: Iterable[Op]) -> Iterator[Op]:
    """Operators, and those in the bodies that they may run."""
    for op in ops:
        yield op
        for inner in _reachable(op):
            yield from all_ops(inner.live_ops())


def _reachable(op: Op) -> Sequence[Scope]:
    """The bodies of an operator; of an If by a constant, the branch that it takes."""
    known = op.graph.constant(op.data(0)) if op.type == "If" else None
    if known is None or known.shape not in ((), (1,)):
        return op.bodies
    return [body_of(op, "then_branch" if known.array().item() else "else_branch")]


def named(op: Op) -> str:
    """An operator in reports."""
    return f"{op.type} {op.label!r}"


def confined_border(region: Region) -> Number | None:
    """A value at the border that its operator keeps within a range, None if there is none."""
    made = ((value.producer, number) for value, number in region.border.items())
    return next((number for op, number in made if op is not None and _is_confining(op)), None)


def _is_confining(op: Op) -> bool:
    return op.type in _CONFINING or (op.type == "Mul" and op.inputs[0] is op.inputs[1])


def _reaches(value: Value, others: set[Value]) -> bool:
    seen, stack = {value}, [value]
    while stack:
        producer = stack.pop().producer
        for read in () if producer is None else producer.reads():
            if read in others:
                return True
            if read not in seen:
                seen.add(read)
                stack.append(read)
    return False


def _end(numbering: Numbering, value: Value, border: dict[Value, Number], constants: dict[Value, None]) -> None:
    """A value that no operator makes: a constant, an input, or the input of a body."""
    if value in numbering.constants:
        constants[value] = None
    else:
        border[value] = numbering.numbers[value]


def _inner_constants(op: Op) -> list[Value]:
    found: list[Value] = []
    for body in op.bodies:
        for inner in body.live_ops():
            found += [value for value in inner.inputs if value is not None and value.tensor is not None]
            if inner.type == "Constant" and inner.outputs[0] is not None:
                found.append(inner.outputs[0])
            found += _inner_constants(inner)
    return found
