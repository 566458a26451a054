"""One run over a graph: each affine node in its turn, then what can merge, until nothing goes any more."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from bnfold.affine import Affine
from bnfold.batchnorm import is_batchnorm
from bnfold.folding.affines import affine_of, is_affine, is_readable
from bnfold.folding.apply import Changes, Writer
from bnfold.folding.computed import stored
from bnfold.folding.growth import Account, growth
from bnfold.folding.keep import mark_kept
from bnfold.folding.leftover import Leftover, replacement
from bnfold.folding.norms import shed
from bnfold.folding.options import FoldOptions
from bnfold.folding.patterns import Patterns
from bnfold.folding.record import Ability, Answer, Entry, Outcome, Remnant
from bnfold.folding.rows import row_ending_in
from bnfold.folding.spelt import spelt_out
from bnfold.folding.sums import completes_sum, mergers
from bnfold.folding.walk import Asked, Way, refusal_of
from bnfold.folding.ways import Choice, choose
from bnfold.graph import Graph, Op, Shape, Value
from bnfold.graph.cleanup import remove_dead
from bnfold.limits import Deadline
from bnfold.ops import RULES, Edit
from bnfold.reasons import Reason, Refusal, Refused


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
        self._norms = options.fold_norms
        self._patterns = Patterns(None if options.inside_patterns else graph, norms=not options.fold_norms)
        self.is_open = False  # whether an affine stayed that might go once more is known
        mark_kept(graph, options.keep)
        self._entries: dict[Op, Entry] = {}
        self._spelt_out = {} if deadline.is_over else spelt_out(graph)
        self._merged: list[Entry] = []
        self._remains_of: dict[Op, Op] = {}  # an Add or Mul that a fold left: the affine node it stands for
        self._assumed: Mapping[str, Shape] = {}  # shapes of inputs that are taken for known
        self._unread: set[Op] = set()  # BatchNormalizations that cannot be read without these
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

    def assume(self, shapes: Mapping[str, Shape]) -> None:
        """Takes shapes of inputs for known; what folds from now on rests on them."""
        self._unread = {op for op in self._graph.ops() if is_batchnorm(op) and not is_readable(op)}
        self._graph.assume(shapes)
        self._assumed = shapes

    def fold_all(self) -> None:
        """Folds and merges until nothing goes any more."""
        # a fold can open the way for one that was refused before; leaving an Add or Mul is the last resort
        while self.fold_affines() or self.merge() or self.fold_affines(may_leave_one=True) or self.clear_norms():
            remove_dead(self._graph)

    def merge(self) -> bool:
        """Merges operators in a row, and branches of sums into those beside them; whether there were any."""
        progress = False
        for op in list(self._graph.ops()):
            while not (op.is_removed or self._deadline.is_over):
                merger = self._merger_at(op)
                if merger is None:
                    break
                guest, way = merger
                entry = _on_way(Entry(guest.label, guest.type, Outcome.MERGED), way)
                self._merged.append(self._changed(entry, self._writer.merge(way)))
                progress = True
        return progress

    def _merger_at(self, op: Op) -> tuple[Op, Way] | None:
        if completes_sum(op):
            return next((merger for merger in mergers(op) if self._is_allowed(merger[1])), None)
        return next((merger for merger in row_ending_in(op) if self._is_allowed(merger[1], may_grow=False)), None)

    def _is_allowed(self, way: Way, *, may_grow: bool = True) -> bool:
        try:
            size = self._price(way.edits)
        except Refused:
            return False
        if size > 0 and not may_grow:
            return False
        self._account.spent += max(size, 0)
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

    def _pay(self, edits: Sequence[Edit]) -> None:
        """Counts what edits cost that will be made; refuses what may not be done."""
        self._account.spent += max(self._price(edits), 0)

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

    def clear_norms(self) -> bool:
        """Moves scales and biases of norms into what reads them, if that is asked for; whether any could go."""
        norms = [op for op in self._graph.ops() if op.type in RULES and RULES[op.type].sheds] if self._norms else []
        progress = False
        for op in norms:
            progress |= self._clear(op)
        return progress

    def _clear(self, op: Op) -> bool:
        if self._deadline.is_over:
            return False
        try:
            affine, way = shed(op, self._pay)
        except Refused as refused:
            self._keep_it(op, [refusal_of(refused, op)])
            return False
        if affine.is_identity:
            return False
        itself = Answer(op.label, op.type, Ability.SHED, RULES[op.type].sheds, affine.extent)
        entry = replace(self._entries.get(op) or self._entry(op, Outcome.CLEARED), outcome=Outcome.CLEARED, refusals=())
        entry = _on_way(replace(entry, answers=(*entry.answers, itself)), way)
        changes = self._writer.merge(way)
        self._remains_of |= dict.fromkeys(changes.left, op)
        self._entries[op] = self._changed(entry, changes)
        return True

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
            entry = replace(entry, outcome=Outcome.REPLACED, wrote=tuple(changes.wrote), answers=(itself,))
            self._entries[op] = replace(entry, assumes=self._assumed) if op in self._unread else entry
            progress = True
        remove_dead(self._graph)
        return progress

    def _decide(self, op: Op, may_leave_one: bool) -> bool:
        if self._deadline.is_over:
            if is_batchnorm(op) and op not in self._entries:
                self._keep_it(op, [Refusal(Reason.OUT_OF_TIME)])
            return False
        try:
            if is_batchnorm(op) and not op.is_kept and self._graph.constant(op.output) is not None:
                return self._store(op)
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

    def _store(self, op: Op) -> bool:
        way = stored(op, self._pay)
        entry = _on_way(self._entry(op, Outcome.FOLDED), way)
        self._entries[op] = self._changed(entry, self._writer.merge(way))
        remove_dead(self._graph)
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
        outcome = entry.outcome if entry.outcome is Outcome.CLEARED else outcome
        self._entries[origin] = replace(self._changed(entry, changes), outcome=outcome, refusals=refusals)

    def _keep_it(self, op: Op, refusals: list[Refusal]) -> None:
        if op not in self._remains_of:
            self._entries[op] = replace(self._entry(op, Outcome.KEPT), refusals=tuple(refusals))

    def _changed(self, entry: Entry, changes: Changes) -> Entry:
        return replace(
            entry,
            renamed=entry.renamed | changes.renamed,
            copied=entry.copied | changes.copied,
            wrote=tuple(dict.fromkeys([*entry.wrote, *changes.wrote])),
            assumes={**entry.assumes, **self._assumed},
        )

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
