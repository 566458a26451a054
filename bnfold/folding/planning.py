"""The plan: for every affine node, where it goes or why it stays.

Planning folds a copy of the model's skeleton as it goes, so that each fold sees the edits of those before it;
the model it is given is not touched, and no large weight is computed before the result is written.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from bnfold.affine import Affine
from bnfold.batchnorm import is_batchnorm
from bnfold.folding.affines import affine_of, is_affine, remainder
from bnfold.folding.apply import Changes, Writer
from bnfold.folding.growth import Account, growth
from bnfold.folding.keep import kept_functions, mark_kept
from bnfold.folding.leftover import Leftover, replacement
from bnfold.folding.options import FoldOptions
from bnfold.folding.patterns import Patterns
from bnfold.folding.record import Ability, Answer, Entry, Outcome, Plan, Remnant, followed
from bnfold.folding.spelt import spelt_out
from bnfold.folding.stored import store_constants
from bnfold.folding.sums import completes_sum, mergers
from bnfold.folding.walk import Asked, Way, refusal_of
from bnfold.folding.ways import Choice, choose
from bnfold.graph import Graph, Op, Value, inlined, old_objects_left_alone
from bnfold.graph.cleanup import drop_stale_notes, remove_dead
from bnfold.limits import NEVER, Deadline
from bnfold.model_io import Model
from bnfold.ops import RULES, Edit
from bnfold.reasons import Reason, Refusal, Refused

_DEFAULT = FoldOptions()
_MOST_RUNS = 4


@np.errstate(all="ignore")  # what is not finite is refused or stays; numpy need not warn of it
def plan(model: Model, options: FoldOptions = _DEFAULT, deadline: Deadline = NEVER) -> Plan:
    """Decides for every affine node of a model, and folds a copy of it accordingly; the model is not changed.

    Where the deadline is over before all are decided, the others stay.

    Raises:
        ModelError: a pattern of ``keep`` matches no node.
    """
    folded = _run(model, model, options, deadline)
    for _ in range(_MOST_RUNS):  # what the folds of one have made known may open the way for more
        if folded.is_settled:
            break
        again = _run(model, folded.plan.model, options, deadline, folded.growth)
        if not again.plan.changes:
            break
        folded = replace(again, plan=followed(folded.plan, folded.origins, again.plan))
    return replace(folded.plan, original=model)


@dataclass(frozen=True)
class _Folded:
    """What a run over a model has done.

    Attributes:
        plan: What became of each affine node.
        origins: How the nodes that are there now were called in the entries of the plan.
        is_settled: Whether another run would find nothing more to do.
        is_contested: Whether another order of folds might have left less over.
        growth: How many bytes larger the model has become.
    """

    plan: Plan
    origins: dict[str, str]
    is_settled: bool
    is_contested: bool
    growth: int


def _run(original: Model, model: Model, options: FoldOptions, deadline: Deadline, growth: int = 0) -> _Folded:
    has_functions = bool(model.proto.functions)
    own = _best(original, model, options, deadline, growth)
    if not has_functions or not any(_stayed(own.plan)):
        return own
    if any(op.shadowed for op in Graph(model).ops()):
        return own  # written out elsewhere, a name might mean another value
    own = replace(own, is_settled=not own.plan.changes)
    # what a function is given by its caller can only be seen where it is called
    try:
        written_out = inlined(model, but=kept_functions(model, options.keep))
    except Refused as refused:
        return replace(own, plan=_also_refused(own.plan, Refusal(refused.reason, refused.facts)))
    other = _best(original, written_out, options, deadline, growth)
    is_better = _stayed(other.plan) < _stayed(own.plan)
    account = Account(original, options)
    if is_better and (excess := account.excess_of(other.plan.model)):  # what a function holds is there for each call
        beyond = account.refused(excess)
        return replace(own, plan=_also_refused(own.plan, Refusal(beyond.reason, beyond.facts)))
    return replace(other, plan=replace(other.plan, nodes_before=own.plan.nodes_before)) if is_better else own


def _stayed(plan: Plan) -> tuple[int, int]:
    """How many BatchNormalizations found no place, and how many of them are still there."""
    kept = plan.count(Outcome.KEPT)
    return kept + plan.count(Outcome.REPLACED), kept


def _also_refused(plan: Plan, refusal: Refusal) -> Plan:
    """The plan in which one reason more keeps the nodes that stay."""
    stays = Outcome.KEPT, Outcome.REPLACED
    return replace(
        plan,
        entries=tuple(
            replace(entry, refusals=(*entry.refusals, refusal)) if entry.outcome in stays else entry
            for entry in plan.entries
        ),
    )


def _best(original: Model, model: Model, options: FoldOptions, deadline: Deadline, growth: int) -> _Folded:
    """The folds of a copy of a model, in that order of two which leaves less over, if the order may matter."""
    made = _affordable(original, model, options, deadline, growth)
    if not made.is_contested or deadline.is_over:
        return made
    other = _affordable(original, model, options, deadline, growth, batchnorms_first=False)
    return min(made, other, key=lambda folded: remainder(folded.plan.model))


def _affordable(
    original: Model,
    model: Model,
    options: FoldOptions,
    deadline: Deadline,
    growth: int,
    *,
    batchnorms_first: bool = True,
) -> _Folded:
    """The folds of a copy of a model, which comes of the original and is that much larger already."""
    account = Account(original, options, growth)
    made = _fold_copy(model, options, account, deadline, batchnorms_first)
    if account.excess:
        account = Account(original, options, growth, account.excess)
        made = _fold_copy(model, options, account, deadline, batchnorms_first)
    if excess := account.excess_of(made.plan.model):  # by many small ones
        account = Account(original, options, growth, excess, counts_vectors=True)
        made = _fold_copy(model, options, account, deadline, batchnorms_first)
    return made


def _fold_copy(
    model: Model, options: FoldOptions, account: Account, deadline: Deadline, batchnorms_first: bool
) -> _Folded:
    folded = model.copy()
    model.pack()  # a million nodes need not be there twice meanwhile
    graph = Graph(folded, assume_constant=options.assume_constant)
    nodes_before = sum(1 for _ in graph.ops())
    with old_objects_left_alone():
        planner = Planner(graph, options, account, deadline, batchnorms_first=batchnorms_first)
        planner.fold_all()
        leftover = Leftover(options.leftover)
        if leftover is not Leftover.KEEP and planner.replace_batchnorms(leftover):
            planner.fold_all()  # so that a second run finds nothing to do with what stands there now
    if any(entry.outcome is not Outcome.KEPT for entry in planner.entries):
        store_constants(graph)
    drop_stale_notes(graph)
    nodes_after = sum(1 for _ in graph.ops())
    plan = Plan(planner.entries, nodes_before, nodes_after, folded)
    origins = planner.origins()
    graph.commit()
    is_settled = not plan.changes or not planner.is_open
    return _Folded(plan, origins, is_settled, planner.is_contested, account.spent)


class Planner:
    """Folds a graph, one affine node after the other."""

    def __init__(
        self,
        graph: Graph,
        options: FoldOptions,
        account: Account,
        deadline: Deadline,
        *,
        batchnorms_first: bool = True,
    ) -> None:
        self._graph = graph
        self._batchnorms_first = batchnorms_first
        self._writer = Writer(graph)
        self._account = account
        self._deadline = deadline
        self._patterns = Patterns(None if options.inside_patterns else graph)
        self.is_open = False  # whether an affine stayed that might go once more is known
        mark_kept(graph, options.keep)
        self._entries: dict[Op, Entry] = {}
        self._spelt_out = {} if deadline.is_over else spelt_out(graph)
        self._merged: list[Entry] = []
        self._remains_of: dict[Op, Op] = {}  # an Add or Mul that a fold left: the affine node it stands for
        self._hosts: set[Op] = set()  # affine nodes that have become one with a BatchNormalization

    @property
    def entries(self) -> tuple[Entry, ...]:
        """Affine nodes in graph order, then what was merged."""
        left: dict[Op, tuple[Remnant, ...]] = {}
        for op, origin in self._remains_of.items():
            if not op.is_removed:
                remnant = Remnant(_name(op), op.type)
                left[origin] = (*left.get(origin, ()), remnant)
        ops = sorted(self._entries, key=lambda op: op.place)
        return (*(replace(self._entries[op], left=left.get(op, ())) for op in ops), *self._merged)

    @property
    def is_contested(self) -> bool:
        """Whether an affine node has taken in what might have taken it in, or affines met that could go each alone."""
        refusals = (refusal for entry in self._entries.values() for refusal in entry.refusals)
        return any(not op.is_removed for op in self._hosts) or any(
            refusal.reason is Reason.PATHS_MEET for refusal in refusals
        )

    def origins(self) -> dict[str, str]:
        """How each affine node that is still there, or what was left of it, was called when its entry was made."""
        there = {op: op for op in self._entries} | self._remains_of
        return {_name(op): self._entries[origin].node for op, origin in there.items() if not op.is_removed}

    def fold_all(self) -> None:
        """Folds and merges until nothing goes any more."""
        # a fold can open the way for one that was refused before; leaving an Add or Mul is the last resort
        while self.fold_affines() or self.merge_sums() or self.fold_affines(may_leave_one=True):
            remove_dead(self._graph)

    def merge_sums(self) -> bool:
        """Merges branches of sums into Convs beside them; whether there were any."""
        progress = False
        for add in [op for op in self._graph.ops() if completes_sum(op)]:
            while not (add.is_removed or self._deadline.is_over):
                merger = next(filter(self._is_allowed, mergers(add)), None)
                if merger is None:
                    break
                guest, way = merger
                entry = _on_way(Entry(guest.label, guest.type, Outcome.MERGED), way)
                self._merged.append(_with_changes(entry, self._writer.merge(way)))
                progress = True
        return progress

    def _is_allowed(self, merger: tuple[Op, Way]) -> bool:
        try:
            self._account.spent += max(self._price(merger[1].edits), 0)
        except Refused:
            return False
        return True

    def _price(self, edits: Sequence[Edit]) -> int:
        """How many bytes larger edits make the model.

        Raises:
            Refused: that is too much, or a runtime would no longer know a pattern.
        """
        self._patterns.refuse_broken(edits)
        size = growth(edits, self._writer, counts_vectors=self._account.counts_vectors)
        self._account.refuse_beyond(size)
        return size

    def fold_affines(self, *, may_leave_one: bool = False) -> bool:
        """Decides for every affine node that is there; whether any could go.

        Args:
            may_leave_one: Whether a BatchNormalization may leave a single Add or Mul.
        """
        progress = self.is_open = False
        affines = filter(is_affine, self._graph.ops())
        # a BatchNormalization may need the Add that would go otherwise; or it may hold what two others do
        for op in sorted(affines, key=is_batchnorm, reverse=self._batchnorms_first):
            progress |= not op.is_removed and self._decide(op, may_leave_one and is_batchnorm(op))
        return progress

    def replace_batchnorms(self, form: Leftover) -> bool:
        """Puts other operators in the place of the BatchNormalizations that are left; whether there were any."""
        progress = False
        for op in [op for op in self._graph.ops() if is_batchnorm(op) and not op.is_kept]:
            entry = self._entries[op]
            try:
                source, affine = affine_of(op)
                way = Way(replacement(op, source, affine, form))
            except Refused as refused:
                refusal = refusal_of(refused, op)
                self._keep_it(op, [*entry.refusals, *([] if refusal in entry.refusals else [refusal])])
                continue
            changes = self._writer.merge(way)
            self._remains_of |= dict.fromkeys([op, *changes.left], op)
            itself = Answer(entry.node, entry.op_type, Ability.IS_AFFINE, RULES[entry.op_type].affine, affine.extent)
            self._entries[op] = replace(entry, outcome=Outcome.REPLACED, wrote=tuple(changes.wrote), answers=(itself,))
            progress = True
        remove_dead(self._graph)
        return progress

    def _decide(self, op: Op, may_leave_one: bool) -> bool:
        if self._deadline.is_over:
            if is_batchnorm(op) and op not in self._entries:
                self._keep_it(op, [Refusal(Reason.OUT_OF_TIME)])
            return False
        try:
            source, affine = affine_of(op)
        except Refused as refused:
            self.is_open |= refused.reason is Reason.SHAPE_UNKNOWN
            if is_batchnorm(op):
                self._keep_it(op, [Refusal(Reason.KEPT_BY_NAME) if op.is_kept else refusal_of(refused, op)])
            return False
        if op.is_kept:
            self._keep_it(op, [Refusal(Reason.KEPT_BY_NAME)])
            return False
        try:
            self._patterns.refuse_member(op)
        except Refused as refused:
            self._keep_it(op, [refusal_of(refused, op)])
            return False
        choice, refusals = choose(op, source, affine, int(may_leave_one), self._price)
        if choice is None:
            self.is_open = True
            self._keep_it(op, refusals)
            return False
        self._fold(op, source, affine, choice)
        return True

    def _fold(self, op: Op, source: Value, affine: Affine, choice: Choice) -> None:
        origin = self._remains_of.pop(op, op)
        itself = Answer(op.label, op.type, Ability.IS_AFFINE, RULES[op.type].affine, affine.extent)
        entry = self._entries.get(origin) or self._entry(op, Outcome.FOLDED)
        entry = _on_way(replace(entry, answers=(*entry.answers, itself)), choice.way)
        self._account.spent += choice.bytes_more
        has_batchnorm = is_batchnorm(op) or op in self._hosts
        self._hosts.update(host for host in filter(is_affine, choice.way.into) if has_batchnorm or is_batchnorm(host))
        changes = self._writer.fold(op, source, choice)
        for left in changes.left:
            self._remains_of[left] = origin
        is_gone = not changes.left and (origin is op or origin not in self._remains_of.values())
        outcome, refusals = (Outcome.FOLDED, ()) if is_gone else (Outcome.REDUCED, entry.refusals)
        self._entries[origin] = replace(_with_changes(entry, changes), outcome=outcome, refusals=refusals)

    def _keep_it(self, op: Op, refusals: list[Refusal]) -> None:
        if op not in self._remains_of:
            self._entries[op] = replace(self._entry(op, Outcome.KEPT), refusals=tuple(refusals))

    def _entry(self, op: Op, outcome: Outcome) -> Entry:
        return Entry(op.label, op.type, outcome, part_of=self._spelt_out.get(op, ""))


def _name(op: Op) -> str:
    """What a report calls an op of the folded model."""
    return op.node.name or next(filter(None, op.node.output), "")


def _on_way(entry: Entry, way: Way) -> Entry:
    """To be asked before an edit, while each operator is what answered."""
    return replace(
        entry,
        into=tuple(dict.fromkeys([*entry.into, *(op.label for op in way.into)])),
        through=tuple(dict.fromkeys([*entry.through, *(op.label for op in way.through)])),
        answers=(*entry.answers, *(_answer(*answered) for answered in way.answers)),
    )


def _answer(op: Op, asked: Asked) -> Answer:
    ability, rule, affine = asked
    return Answer(op.label, op.type, ability, rule, affine.extent)


def _with_changes(entry: Entry, changes: Changes) -> Entry:
    return replace(
        entry,
        renamed=entry.renamed | changes.renamed,
        copied=entry.copied | changes.copied,
        wrote=tuple(dict.fromkeys([*entry.wrote, *changes.wrote])),
    )
