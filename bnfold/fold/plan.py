"""The plan: for every affine node, where it goes or why it stays.

Planning folds a copy of the model's skeleton as it goes, so that each fold sees the edits of those before it;
the model it is given is not touched, and no large weight is computed before the result is written.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase

from bnfold.affine import Affine
from bnfold.batchnorm import is_batchnorm
from bnfold.fold.apply import Changes, Writer
from bnfold.fold.cleanup import drop_stale_notes, remove_dead
from bnfold.fold.record import Entry, Outcome, Plan
from bnfold.fold.representable import refuse_unrepresentable
from bnfold.fold.walk import Blocked, Walk, Way, refuse_if_shared
from bnfold.graph import Graph, Op, Value
from bnfold.model_io import Model
from bnfold.ops import RULES, AddBehind
from bnfold.reasons import Reason, Refusal, Refused


def plan(model: Model, *, keep: Sequence[str] = (), assume_constant: bool = False) -> Plan:
    """Decides for every affine node of a model, and folds a copy of it accordingly.

    Args:
        model: The model; it is not changed.
        keep: Globs; a node whose name matches one stays as it is.
        assume_constant: Take initializers that are also graph inputs for constants.
    """
    folded = model.copy()
    graph = Graph(folded, assume_constant=assume_constant)
    nodes_before = sum(1 for _ in graph.ops())
    planner = _Planner(graph, keep)
    while planner.run_over_all():  # a fold can open the way for one that was refused before
        pass
    remove_dead(graph)
    drop_stale_notes(graph)
    nodes_after = sum(1 for _ in graph.ops())
    graph.commit()
    return Plan(planner.entries, nodes_before, nodes_after, folded)


@dataclass(frozen=True, eq=False)
class _Choice:
    """A way for one affine node, up or down."""

    way: Way
    bypass: Callable[[Op, Value], None]
    renames_source: bool

    @property
    def added(self) -> int:
        """How many nodes it adds."""
        return sum(isinstance(edit, AddBehind) for edit in self.way.edits)


class _Planner:
    def __init__(self, graph: Graph, keep: Sequence[str]) -> None:
        self._graph = graph
        self._writer = Writer(graph)
        self._keep = keep
        self._entries: dict[Op, Entry] = {}
        self._remains_of: dict[Op, Op] = {}  # a node that a fold added: the affine node it is left of

    @property
    def entries(self) -> tuple[Entry, ...]:
        return tuple(self._entries.values())

    def run_over_all(self) -> bool:
        """Decides for every affine node that is there; whether any could go."""
        progress = False
        for op in [op for op in self._graph.ops() if op.type in RULES and RULES[op.type].affine]:
            progress |= self._decide(op)
        return progress

    def _decide(self, op: Op) -> bool:
        try:
            source, affine = _read(op)
        except Refused as refused:
            if is_batchnorm(op):
                self._keep_it(op, [_refusal(refused, op)])
            return False
        if any(fnmatchcase(op.node.name, pattern) for pattern in self._keep):
            self._keep_it(op, [Refusal(Reason.KEPT_BY_NAME)])
            return False
        choice, refusals = self._choose(op, source, affine)
        if choice is None:
            self._keep_it(op, refusals)
            return False
        self._fold(op, source, choice)
        return True

    def _choose(self, op: Op, source: Value, affine: Affine) -> tuple[_Choice | None, list[Refusal]]:
        """The first way that leaves no node behind; else, for a BatchNormalization, one that leaves one."""
        refusals: list[Refusal] = []
        choices: list[_Choice] = []
        for direction in (self._upwards, self._downwards):
            try:
                choice = direction(op, source, affine)
                refuse_unrepresentable(choice.way.edits)
                if choice.added > is_batchnorm(op):
                    raise Refused(Reason.NO_GAIN)
            except Refused as refused:
                refusals.append(_refusal(refused, op))
                continue
            choices.append(choice)
            if not choice.added:
                break
        return min(choices, key=lambda choice: choice.added, default=None), refusals

    def _upwards(self, op: Op, source: Value, affine: Affine) -> _Choice:
        refuse_if_shared(source, op)
        return _Choice(Walk(op).up(source, affine), self._writer.bypass_upwards, renames_source=True)

    def _downwards(self, op: Op, source: Value, affine: Affine) -> _Choice:
        if affine.is_identity and not op.output.is_output:
            return _Choice(Way(), self._writer.bypass_downwards, renames_source=False)
        return _Choice(Walk(op).down(op.output, affine), self._writer.bypass_downwards, renames_source=False)

    def _fold(self, op: Op, source: Value, choice: _Choice) -> None:
        changes = self._writer.perform(choice.way.edits, source if choice.renames_source else None)
        label, op_type = op.label, op.type
        choice.bypass(op, source)
        origin = self._remains_of.pop(op, op)
        for added in changes.added:
            self._remains_of[added] = origin
        outcome = Outcome.REDUCED if origin in self._remains_of.values() else Outcome.FOLDED
        before = self._entries.get(origin, Entry(label, op_type, outcome))
        self._entries[origin] = _extended(before, outcome, choice.way, changes)

    def _keep_it(self, op: Op, refusals: list[Refusal]) -> None:
        if op not in self._remains_of:
            self._entries[op] = Entry(op.label, op.type, Outcome.KEPT, refusals=tuple(refusals))


def _read(op: Op) -> tuple[Value, Affine]:
    """The data input of an affine node and what the node does to it."""
    read = RULES[op.type].affine
    assert read is not None
    index, affine = read(op)
    if len(affine.axes) > 1:
        raise Refused(Reason.WRONG_AXIS, axes=sorted(affine.axes), op_type=op.type, expected="one axis")
    return op.data(index), affine


def _refusal(refused: Refused, op: Op) -> Refusal:
    return refused.refusal() if isinstance(refused, Blocked) else Refusal(refused.reason, refused.facts, op.label)


def _extended(entry: Entry, outcome: Outcome, way: Way, changes: Changes) -> Entry:
    return replace(
        entry,
        outcome=outcome,
        into=(*entry.into, *(op.label for op in way.into)),
        through=(*entry.through, *(op.label for op in way.through)),
        refusals=(),
        renamed=entry.renamed | changes.renamed,
        copied=entry.copied | changes.copied,
    )
