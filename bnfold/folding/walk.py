"""Where an affine can go: every branch ends in an operator that absorbs it, or nothing happens.

A walk edits nothing. It returns the edits, or raises ``Refused`` with the place where it ended.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np

from bnfold.affine import Affine
from bnfold.folding.keep import kept_that_changes
from bnfold.folding.record import Ability
from bnfold.graph import Constant, Op, Use, Value, is_float
from bnfold.ops import RULES, Assign, Detach, Edit, Moved, OpRule, Step
from bnfold.ops.weights import Exact
from bnfold.reasons import Reason, Refusal, Refused

# Inputs at which an operator looks at the shape or type of a value only, which no affine changes.
_BLIND = {("Shape", 0), ("Size", 0), ("CastLike", 1)}
_NO_RULE = OpRule()
_MAX_STEPS = 120
_MAX_READERS = 64  # of one value, of which all but one would have to be blind to what changes
_MAX_DEPTH = 80  # operators between an affine and where it ends


Asked = tuple[Ability, Callable[..., Any] | None, Affine]
Answered = tuple[Op, Asked]
"""An operator; what it did, by which rule, and what was asked of it."""
Answer = tuple[Ability, Callable[..., Any] | None, Step]
"""What an operator does, by which rule, and what follows from it."""
Arrived = dict[int, Affine]
"""The affines that have come to inputs of an operator."""
Front = dict[Op, Arrived]
"""How far a walk down has come."""


@dataclass
class Way:
    """A way that an affine can go; there is none over nodes that are kept."""

    edits: list[Edit] = field(default_factory=list)
    into: list[Op] = field(default_factory=list)
    through: list[Op] = field(default_factory=list)
    answers: list[Answered] = field(default_factory=list)

    def __post_init__(self) -> None:
        refuse_change_of_kept(self.edits)

    def join(self, other: Way) -> Way:
        """Adds another branch; two branches may not touch the same operator."""
        taken = {*self.into, *self.through}
        for op in (*other.into, *other.through):
            if op in taken:
                raise Refused(Reason.PATHS_MEET, op_type=op.type)
        self.edits += other.edits
        self.into += other.into
        self.through += other.through
        self.answers += other.answers
        return self


class Blocked(Refused):
    """A refusal that knows the operator where the walk ended."""

    def __init__(self, refused: Refused, op: Op) -> None:
        super().__init__(refused.reason, **refused.facts)
        self.op = op
        self.towards = refused.towards


@contextmanager
def malformed_is_refused(op: Op) -> Iterator[None]:
    """A node whose attributes do not fit its inputs (a group of 0, say) stays; it is not what stops the others."""
    try:
        yield
    except (ArithmeticError, LookupError, MemoryError, TypeError, ValueError) as error:
        raise Refused(Reason.MALFORMED, op_type=op.type, detail=str(error)) from error


@contextmanager
def towards(side: str) -> Iterator[None]:
    """Notes of a refusal which way led to it."""
    try:
        yield
    except Refused as refused:
        refused.towards = side
        raise


def refusal_of(refused: Refused, op: Op) -> Refusal:
    """The record of a refusal: at the operator that it names, else at ``op``."""
    at = refused.op if isinstance(refused, Blocked) else op
    return Refusal(refused.reason, refused.facts, at.label, refused.towards)


def refuse_change_of_kept(edits: Sequence[Edit]) -> None:
    """Refuses what would change a node that is kept, at that node."""
    if (kept := kept_that_changes(edits)) is not None:
        raise Blocked(Refused(Reason.KEPT_BY_NAME), kept)


def data_readers(value: Value) -> list[Use]:
    """The readers that look at the numbers."""
    return [use for use in value.readers if (use.op.type, use.index) not in _BLIND]


def refuse_if_shared(value: Value, reader: Op, affine: Affine) -> None:
    """An affine may only leave a value upwards if nobody but the reader that it comes from would see it."""
    if value.is_output:
        raise Refused(Reason.GRAPH_OUTPUT, value=value.name)
    readers = data_readers(value)
    others = [use for use in readers if use.op is not reader]
    if len(readers) != 1 + len(others) or len(readers) > _MAX_READERS or any(_sees(use, affine) for use in others):
        raise Refused(Reason.BRANCHES, value=value.name, readers=len(readers))
    if value.scope is not reader.scope:
        raise Refused(Reason.OTHER_SCOPE, value=value.name)


def _sees(use: Use, affine: Affine) -> bool:
    """Whether an affine of what is read there changes anything; not where it leaves alone what is picked."""
    rule = RULES.get(use.op.type, _NO_RULE)
    try:
        rule.refuse_unless_data(use.op, use.index)
        steps = rule.sink(use.op, use.index, affine) if rule.sink is not None else ()
    except Refused:
        return True
    return not any(
        not step.edits and not step.beside and all(behind.is_identity for behind in step.to.values()) for step in steps
    )


class Walk:
    """One attempt to place an affine; it is not endless, though alternatives multiply where a graph branches."""

    def __init__(self, op: Op) -> None:
        self._op = op
        self._steps = 0
        self._depth = 0

    def up(self, value: Value, affine: Affine) -> Way:
        """Puts an affine of a value into what makes the value, whatever else reads it."""
        op = value.producer
        if op is None:
            raise Blocked(Refused(Reason.GRAPH_INPUT, value=value.name), self._op)
        with self._entered(op) as rule:
            return _first(op, self._ways_up(value, op, rule, affine))

    def _ways_up(self, value: Value, op: Op, rule: OpRule, affine: Affine) -> Iterator[Callable[[], Way]]:
        if rule.absorb_output is not None and value.index == 0:
            absorb = rule.absorb_output
            taken: Answered = op, (Ability.TOOK_OUTPUT, absorb, affine)
            yield lambda: Way([*absorb(op, affine), Moved(value)], [op], answers=[taken])
        if rule.lift is not None:
            for step in rule.lift(op, value.index, affine):
                yield partial(self._lifted, value, step, (op, (Ability.LIFTED, rule.lift, affine)))
        if op.type == "If":
            yield lambda: self._into_branches(value, op, affine)

    def down(self, value: Value, affine: Affine) -> Way:
        """Puts an affine of a value into everything that reads it."""
        front: Front = {}
        _arrive(front, value, affine)
        return self._onwards(front)

    def _onwards(self, front: Front) -> Way:
        """Goes on until all have absorbed; at the first in the graph, for what else can come to it has done so."""
        way = Way()
        while front:
            op = min(front, key=lambda op: op.place)
            arrived = front.pop(op)
            with self._entered(op) as rule:
                *first, last = _answers(op, rule, arrived)
                for answer in first:
                    with suppress(Refused):
                        beyond = {reader: dict(affines) for reader, affines in front.items()}
                        here = self._passed(op, arrived, answer, beyond)
                        return way.join(here.join(self._onwards(beyond)))
                way.join(self._passed(op, arrived, last, front))
        return way

    def _passed(self, op: Op, arrived: Arrived, answer: Answer, front: Front) -> Way:
        """What is done at an operator; the front is then behind it."""
        ability, rule, step = answer
        takers = dict.fromkeys(edit.op for edit in step.edits if not isinstance(edit, Moved | Detach))
        if ability is not Ability.TOOK_INPUT or op in takers or not takers:
            takers = {op: None}  # else a shift alone was all for the Add behind
        asked = [(ability, rule, affine) for affine in arrived.values()]
        way = Way(list(step.edits), answers=[(taker, each) for taker in {op: None} | takers for each in asked])
        way.into += takers if ability is Ability.TOOK_INPUT else ()
        way.through += [op] if op not in way.into else []
        for index, affine in step.beside.items():
            try:
                way.join(self._above(op, index, affine))
            except Refused as error:  # only sums ask for it
                raise Refused(Reason.SCALE_MEETS_SUM, op_type=op.type) from error
        for index, affine in step.to.items():
            value = op.outputs[index]
            if value is not None and not affine.is_identity:
                way.edits.append(Moved(value))
                _arrive(front, value, affine)
        return way

    @contextmanager
    def _entered(self, op: Op) -> Iterator[OpRule]:
        """The rule of the operator that the walk has come to."""
        if op.is_kept:
            raise Blocked(Refused(Reason.KEPT_BY_NAME), op)
        self._steps += 1
        self._depth += 1
        if self._depth > _MAX_DEPTH or self._steps > _MAX_STEPS:
            raise Blocked(Refused(Reason.TOO_FAR, op_type=op.type), op)
        try:
            yield RULES.get(op.type, _NO_RULE)
        except Blocked:
            raise
        except Refused as refused:
            raise Blocked(refused, op) from refused
        finally:
            self._depth -= 1

    def _lifted(self, value: Value, step: Step, answer: Answered) -> Way:
        op = answer[0]
        way = Way([*step.edits, Moved(value)], through=[op], answers=[answer])
        needed = {index: affine for index, affine in step.to.items() if not affine.is_identity}
        for index, affine in needed.items():  # before any long walk is begun
            if op.graph.constant(op.data(index)) is None:
                refuse_if_shared(op.data(index), op, affine)
        for index, affine in needed.items():
            way.join(self._above(op, index, affine))
        return way

    def _above(self, op: Op, index: int, affine: Affine) -> Way:
        value = op.data(index)
        constant = op.graph.constant(value)
        if constant is not None:
            return Way([Assign(op, index, _moved(op, constant, affine))])
        refuse_if_shared(value, op, affine)
        return self.up(value, affine)

    def _into_branches(self, value: Value, op: Op, affine: Affine) -> Way:
        """Each branch of an If makes the value on its own, so each has to take the affine."""
        way = Way([Moved(value)], through=[op], answers=[(op, (Ability.BRANCHED, None, affine))])
        for body in op.bodies:
            inner = body.outputs[value.index]
            if inner.scope is not body or inner.readers or body.outputs.count(inner) != 1:
                raise Refused(Reason.BRANCHES, value=inner.name, readers=len(inner.readers) + 1)
            way.join(self.up(inner, affine))
        return way


def _arrive(front: Front, value: Value, affine: Affine) -> None:
    """Brings an affine of a value to everything that reads it."""
    if value.is_output:
        raise Refused(Reason.GRAPH_OUTPUT, value=value.name)
    readers = data_readers(value)
    if not readers:
        raise Refused(Reason.NO_READER, value=value.name)
    for op, index in readers:
        front.setdefault(op, {})[index] = affine


def _answers(op: Op, rule: OpRule, arrived: Arrived) -> Sequence[Answer]:
    """How an operator can deal with what has come to its inputs: absorb it, or else let it pass, one way or another."""
    if len(arrived) > 1 and rule.meet is not None:
        return [(Ability.SANK, rule.meet, step) for step in rule.meet(op, arrived)]
    alone = [_answers_alone(op, rule, index, affine) for index, affine in arrived.items()]  # a refusal of one says more
    if len(arrived) > 1:
        raise Refused(Reason.PATHS_MEET, op_type=op.type)
    return alone[0]


def _answers_alone(op: Op, rule: OpRule, index: int, affine: Affine) -> Sequence[Answer]:
    rule.refuse_unless_data(op, index)
    refused = Refused(Reason.NO_RULE, op_type=op.type)
    try:
        if rule.absorb_input is not None:
            try:
                return [(Ability.TOOK_INPUT, rule.absorb_input, Step({}, rule.absorb_input(op, index, affine)))]
            except Refused as error:
                refused = error
        steps = rule.sink(op, index, affine) if rule.sink is not None else ()
        if not steps:
            raise refused
        return [(Ability.SANK, rule.sink, step) for step in steps]
    finally:
        del refused  # a frame that holds its own exception is garbage only a collector finds, with all of the walk


def _first(op: Op, ways: Iterator[Callable[[], Way]]) -> Way:
    """The first way that succeeds; else the refusal of the last, which came furthest."""
    refused = Refused(Reason.NO_RULE, op_type=op.type)
    try:
        while True:
            try:
                way = next(ways, None)  # a rule may refuse as soon as it is asked
                if way is None:
                    break
                return way()
            except Refused as error:
                refused = error
        raise refused
    finally:
        del refused  # as above


def _moved(op: Op, constant: Constant, affine: Affine) -> Exact:
    """An affine of a constant value is another constant."""
    if not is_float(constant.dtype):
        raise Refused(Reason.NOT_FLOAT, value=op.label)
    if constant.shape != np.broadcast_shapes(constant.shape, affine.shape):
        raise Refused(Reason.EXPANDS, value=op.label)
    return Exact(affine(constant.float64()), constant.dtype)
