"""All orders in which the affines of a small model can be folded, and what the best of them leaves over.

A state is the model after some folds and merges. From each, every fold and merge that is possible is done, by every
way, whatever a plan would prefer; states that differ in nothing but names and rounding are one.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field, replace
from hashlib import blake2b
from typing import NamedTuple

import numpy as np
import onnx
from onnx import ModelProto, TensorProto, numpy_helper

from bnfold.affine import Affine
from bnfold.batchnorm import is_batchnorm
from bnfold.folding import FoldOptions, plan
from bnfold.folding.affines import Remainder, affine_of, is_affine, remainder
from bnfold.folding.growth import Account
from bnfold.folding.planner import Planner
from bnfold.folding.stored import store_constants
from bnfold.folding.sums import completes_sum, mergers
from bnfold.folding.ways import Choice, choices
from bnfold.graph import Graph, Op, Value
from bnfold.graph.cleanup import drop_stale_notes, remove_dead
from bnfold.limits import NEVER
from bnfold.model_io import load, to_proto
from bnfold.reasons import Refused
from random_graphs.generate import Case
from random_graphs.properties import differences, usable

FEWEST, MOST = 2, 8  # affine nodes


class Move(NamedTuple):
    """One fold or merge: the place of its op among those of the graph, and which of its ways."""

    place: int
    number: int
    is_merge: bool = False


@dataclass
class Search:
    """What became of all orders.

    Attributes:
        planned: What the plan leaves over.
        best: The least that any order does.
        moves: That order; the moves of each state number the nodes of that state.
        states: The models on the way.
        is_complete: Whether these are all.
        faults: Where one of them computes something else.
    """

    planned: Remainder
    best: Remainder
    moves: tuple[Move, ...] = ()
    states: dict[bytes, ModelProto] = field(default_factory=dict)
    is_complete: bool = True
    faults: tuple[str, ...] = ()

    @property
    def is_beaten(self) -> bool:
        """Whether some order leaves fewer nodes or BatchNormalizations over; bytes alone are no matter."""
        return self.best[:3] < self.planned[:3]


def examined(case: Case, most_states: int) -> Search | None:
    """The search for a case, every model on the way computed; None where it has too few affines, or too many.

    Raises:
        Discarded: it is of no use.
    """
    if case.model.functions or not FEWEST <= remainder(load(case.model)).affines <= MOST:
        return None
    expected = usable(case)
    found = search(case.model, most_states)
    faults = (fault for model in found.states.values() for fault in differences(case, model, expected))
    return replace(found, faults=tuple(faults))


def search(proto: ModelProto, most_states: int) -> Search:
    """Goes through all orders, as far as so many states allow."""
    start = remainder(load(proto))
    found = Search(remainder(plan(load(proto)).model), start, states={key_of(proto): proto})
    pending: list[tuple[tuple[Move, ...], ModelProto]] = [((), proto)]
    while pending:
        done, state = pending.pop()
        for move, model in _after(state):
            key = key_of(model)
            if key in found.states:
                continue
            if len(found.states) == most_states:
                found.is_complete = False
                return found
            found.states[key] = model
            moves = (*done, move)
            pending.append((moves, model))
            if (left := remainder(load(model))) < found.best:
                found.best, found.moves = left, moves
    return found


def _after(state: ModelProto) -> Iterator[tuple[Move, ModelProto]]:
    """What each move makes of a state."""
    with np.errstate(all="ignore"):
        for move in _Board(state).moves():
            board = _Board(state)
            board.do(move)
            yield move, board.result()


class _Board(Planner):
    """A planner that does what it is told."""

    def __init__(self, proto: ModelProto) -> None:
        original = load(proto)
        self._model = original.copy()
        super().__init__(Graph(self._model), FoldOptions(), Account(original, FoldOptions()), NEVER)

    def moves(self) -> list[Move]:
        moves = []
        for place, op in enumerate(self._ops()):
            moves += [Move(place, number) for number, _ in enumerate(self._folds(op))]
            if completes_sum(op):
                allowed = (number for number, merger in enumerate(mergers(op)) if self._is_allowed(merger[1]))
                moves += [Move(place, number, is_merge=True) for number in allowed]
        return moves

    def do(self, move: Move) -> None:
        op = self._ops()[move.place]
        if move.is_merge:
            self._writer.merge(next(way for number, (_, way) in enumerate(mergers(op)) if number == move.number))
        else:
            self._fold(op, *next(fold for number, fold in enumerate(self._folds(op)) if number == move.number))
        remove_dead(self._graph)

    def result(self) -> ModelProto:
        store_constants(self._graph)
        drop_stale_notes(self._graph)
        self._graph.commit()
        return to_proto(self._model)

    def _ops(self) -> list[Op]:
        return list(self._graph.ops())

    def _folds(self, op: Op) -> Iterator[tuple[Value, Affine, Choice]]:
        if op.is_kept or not is_affine(op):
            return
        with suppress(Refused):
            source, affine = affine_of(op)
            self._patterns.refuse_member(op)
            for choice in choices(op, source, affine, int(is_batchnorm(op)), self._price, []):
                yield source, affine, choice


# --- equal but for names and rounding ------------------------------------------------------------------------


def key_of(model: ModelProto) -> bytes:
    """Equal for models that differ in names and rounding only."""
    keys = {info.name: info.name.encode() for info in model.graph.input}
    keys |= {tensor.name: _content(tensor) for tensor in model.graph.initializer}
    nodes = []
    for node in model.graph.node:
        inputs = [keys.get(name, name.encode()) for name in node.input]
        what = _digest(node.op_type.encode(), *sorted(map(_attribute, node.attribute)), *inputs)
        keys |= {name: _digest(what, bytes([index])) for index, name in enumerate(node.output)}
        nodes.append(what)
    return _digest(*sorted(nodes), *(keys.get(info.name, b"") for info in model.graph.output))


def _attribute(attribute: onnx.AttributeProto) -> bytes:
    if attribute.HasField("t"):
        return attribute.name.encode() + _content(attribute.t)
    return bytes(attribute.SerializeToString(deterministic=True))


def _content(tensor: TensorProto) -> bytes:
    array = numpy_helper.to_array(tensor)
    if array.dtype.kind == "f":
        mantissa, exponent = np.frexp(array.astype(np.float64))
        array = np.ldexp(np.round(mantissa, 3), exponent) + 0.0
    return _digest(str(array.dtype).encode(), str(array.shape).encode(), array.tobytes())


def _digest(*parts: bytes) -> bytes:
    made = blake2b(digest_size=16)
    for part in parts:
        made.update(len(part).to_bytes(8, "little") + part)
    return made.digest()
