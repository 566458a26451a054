"""The main verdict: every changed region alone, in float64. Equal regions make equal models.

A value of AFTER is equal to one of BEFORE if the same operator makes it from equal values, or if it has the same name
and the regions that end there compare equal. Each comparison rests on values further up in BEFORE only, so the proof
has no circle, and all of them together reach from the inputs to the outputs.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import zip_longest

from bnfold.graph import Graph, Op, Scope, Shape, Value
from bnfold.verification.evidence import Evidence
from bnfold.verification.regions.hiding import counterpart, decisive, hides
from bnfold.verification.regions.judge import Judge
from bnfold.verification.regions.numbering import Number, Numbering, Table
from bnfold.verification.regions.regions import Region, balanced, confined_border, dependent_border, named, needed
from bnfold.verification.result import Layer, Outcome, RegionResult

_OPENINGS = 4  # of values at a border that cannot be chosen freely
_TRIES = 8  # behind an opened border
_PATIENCE = 4  # values that may be redefined at a time, or opened in vain, before something has to make up for it


Progress = Callable[[str, int, int], None]


@dataclass
class Comparison:
    """What lining up the two models came to.

    Attributes:
        regions: The comparisons that were made.
        layers: The operators of AFTER in graph order, those in bodies before the one that has them.
        doubted: Values at which the first try found a difference.
        problem: Why nothing was compared, if so.
        evidence: Of the first difference, if it is asked for; or why there is none.
        sizes: Shapes of the inputs that BEFORE seems to take, if there are several to choose from.
        is_broken_off: Whether the rest was not looked at: something differs that was taken to be redefined.
    """

    regions: list[RegionResult] = field(default_factory=list)
    layers: list[Layer] = field(default_factory=list)
    doubted: set[str] = field(default_factory=set)
    problem: str = ""
    evidence: Evidence | str = ""
    sizes: Mapping[str, tuple[int, ...]] | None = None
    is_broken_off: bool = False

    def having(self, outcome: Outcome) -> list[RegionResult]:
        return [region for region in self.regions if region.outcome is outcome]


def compare_regions(
    before: Graph, after: Graph, outputs: Mapping[str, str], judge: Judge, progress: Progress
) -> Comparison:
    """Compares two models region by region.

    Where a region differs, its value may have been redefined on purpose (some tools keep the name of a Conv that has
    taken in a BatchNormalization), and a later region, which then differs as well, makes up for that. So where more
    than one differs, a second pass does not take those values to be shared: it goes on to the next of them, and all is
    well if the longer region is equal. A region that was equal at first must not get longer: rounding hides more in it.
    Where a single one differs, what makes up for it can have been equal only if it was not cut there: at a copy, say.

    Args:
        before: A model, without functions.
        after: The model made from it, without functions.
        outputs: Each output of ``before`` with its name in ``after``.
        judge: Compares two regions.
        progress: Told how many operators of ``after`` are done.
    """
    found = _best(before, after, outputs, judge, progress)
    if judge.is_late:
        found.regions = list(map(_in_doubt, found.regions))
    return found


def _in_doubt(region: RegionResult) -> RegionResult:
    """A region where it is not known whether a later one makes up for it."""
    if region.outcome not in (Outcome.DIFFERENT, Outcome.REDEFINED):
        return region
    return replace(
        region, outcome=Outcome.NOT_EVALUATED, detail="there was no time to see whether what follows makes up for it"
    )


def _best(before: Graph, after: Graph, outputs: Mapping[str, str], judge: Judge, progress: Progress) -> Comparison:
    """What the first pass found, or the second."""
    first = _Alignment(before, after, outputs, judge).run(progress)
    if judge.is_late or not first.having(Outcome.DIFFERENT):
        return first
    if len(first.doubted) < 2 and not all(judge.may_cut(before.main.lookup(name)) for name in first.doubted):
        return first
    second = _Alignment(before, after, outputs, judge, frozenset(first.doubted)).run(progress)
    helped = second.having(Outcome.REDEFINED) if second.having(Outcome.DIFFERENT) else not second.is_broken_off
    return second if helped else first  # which tells the places apart


class _Unmatched(Exception):
    """Nothing makes up for a value that was redefined."""


class _Alignment:
    """One pass over AFTER, in graph order."""

    def __init__(
        self,
        before: Graph,
        after: Graph,
        outputs: Mapping[str, str],
        judge: Judge,
        suspects: frozenset[str] = frozenset(),
    ) -> None:
        table = Table()
        free = _free_inputs(before) & _free_inputs(after)
        self._before = Numbering(before, table, free)
        self._after = Numbering(after, table, free)
        self._outputs = outputs
        self._judge = judge
        self._suspects = suspects
        self._needed = needed(before) | needed(after)
        self._tainted: set[Value] = set()  # values that mean something else than their namesakes, in the second pass
        self._open: dict[Value, RegionResult] = {}  # those of them that nothing has made up for yet
        self._unlike: dict[Op, RegionResult] = {}  # of AFTER, that hide what they read: where that is something else
        self._in_vain = 0  # openings that did not help: two models that differ everywhere need no more of them
        self._found = Comparison()

    def run(self, progress: Progress) -> Comparison:
        _number_all(self._before, self._before.graph.main)
        try:
            self._walk(self._after.graph.main, self._before.graph.main, progress)
            for name, renamed in self._outputs.items():
                left, right = self._before.graph.main.lookup(name), self._after.graph.main.lookup(renamed)
                if self._before.numbers[left] != self._after.numbers[right]:
                    self._record(self._compared(left, right)[0])
        except _Unmatched:
            self._found.is_broken_off = True
        fate = Outcome.DIFFERENT if self._failed else Outcome.REDEFINED
        self._found.regions += [replace(result, outcome=fate) for result in self._open.values()]
        return self._found

    @property
    def _failed(self) -> bool:
        return self._found.is_broken_off or bool(self._found.having(Outcome.DIFFERENT))

    def _walk(self, scope: Scope, twin: Scope | None, progress: Progress) -> None:
        for done, op in enumerate(scope.live_ops()):
            if scope is self._after.graph.main:
                progress("comparing operators", done, len(scope.ops))
            self._after.enter_bodies(op)
            twin_op = None if twin is None else _twin(op, twin)
            for body, other in zip_longest(op.bodies, twin_op.bodies if twin_op else []):
                if body is not None:
                    self._walk(body, other, progress)
            self._after.note_constant(op)
            keys = self._matched(op, twin) or self._after.keys(op)
            numbers = [number for value, number in zip(op.outputs, keys, strict=True) if value]
            values = [value for value in op.outputs if value is not None]
            is_shared = all(number in self._before.values for number in numbers)
            self._found.layers.append(Layer(named(op), ", ".join(value.name for value in values), is_shared))
            for value, number in zip(values, numbers, strict=True):
                if number not in self._before.values and (claimed := self._claimed(value, twin)) is not None:
                    number = claimed  # noqa: PLW2901 -- it has the number of its counterpart
                self._after.assign(value, number)

    def _matched(self, op: Op, twin: Scope | None) -> list[Number]:
        """The numbers of an operator of BEFORE that hides what it reads as this one does, if that is equal."""
        if twin is None or not hides(op) or self._after.keys(op)[0] in self._before.values:
            return []
        kind, settings = counterpart(op)[0], self._after.settings(op)
        alike = (old for old in twin.live_ops() if hides(old) and counterpart(old)[0] == kind)
        alike = (old for old in alike if self._before.settings(old) == settings)
        free = [old for old in alike if self._before.keys(old)[0] not in self._after.values]
        wrong: list[RegionResult] = []
        for old in sorted(free, key=lambda old: old.node.output[:1] != op.node.output[:1])[:_OPENINGS]:
            read = self._read_by(old, op)
            if read and all(result.outcome is Outcome.EQUAL for result, _ in read):
                for result, region in read:
                    self._record(result)
                    self._close(region)
                return self._before.keys(old)
            wrong += [result for result, _ in read if result.outcome is Outcome.DIFFERENT]
        if wrong:
            self._unlike[op] = wrong[0]
        return []

    def _read_by(self, old: Op, op: Op) -> list[tuple[RegionResult, Region]]:
        """What two operators read is compared; nothing if some of it is no number that data makes."""
        numbers = self._before.numbers, self._after.numbers
        reads = op.inputs if counterpart(old)[1] == counterpart(op)[1] else op.inputs[::-1]
        both = list(zip_longest(old.inputs, reads))
        pairs = [(a, b) for a, b in both if a and b and numbers[0][a] != numbers[1][b]]
        fixed = (a in self._before.constants or b in self._after.constants for a, b in pairs)
        is_lone = any((a is None) != (b is None) for a, b in both)
        if is_lone or any(fixed) or not all(self._judge.may_cut(a) for a, _ in pairs):
            return []
        doubted, in_vain = set(self._found.doubted), self._in_vain
        try:
            return [self._compared(decisive(old, a), decisive(op, b), old.outputs) for a, b in pairs]
        except _Unmatched:
            return []
        finally:
            self._found.doubted, self._in_vain = doubted, in_vain  # nothing is claimed yet

    def _claimed(self, value: Value, twin: Scope | None) -> int | None:
        """The number of the value of the same name, if the two may be taken for equal from here on."""
        left = None if twin is None else twin.values.get(value.name)
        if left is None or left.producer is None or left in self._before.constants or value in self._after.constants:
            return None
        if not self._needed.issuperset((left, value)):
            return None  # nothing can rest on it
        if self._is_carried_on(left, value):
            self._tainted.add(left)
            return None
        if self._is_renamed(left, value):
            return None
        result, region = self._compared(left, value)
        if twin is not self._before.graph.main:
            if result.outcome is not Outcome.EQUAL:
                return None  # the operator that has this body is compared as a whole
        elif self._suspects and result.outcome is Outcome.DIFFERENT and not left.is_output:
            self._tainted.add(left)
            self._open[left] = result
            if len(self._open) > _PATIENCE:
                raise _Unmatched
            return None
        elif result.outcome is Outcome.EQUAL:
            self._close(region)
        self._record(result)
        return self._before.numbers[left]

    def _close(self, region: Region) -> None:
        """Takes the redefined values in a region that is equal for explained."""
        for value in [value for op in region.ops for value in op.outputs if value in self._open]:
            assert value is not None
            self._found.regions.append(replace(self._open.pop(value), outcome=Outcome.REDEFINED))

    def _is_carried_on(self, left: Value, right: Value) -> bool:
        """Whether the same operator makes both, and reads something that was redefined, which nothing made up for."""
        old, new = left.producer, right.producer
        if old is None or new is None or left.is_output or len(old.inputs) != len(new.inputs):
            return False
        if self._before.signature(old) != self._after.signature(new) or old.bodies or new.bodies:
            return False
        return all(
            a in self._tainted and a.name == b.name
            if a is not None and b is not None and self._before.numbers[a] != self._after.numbers[b]
            else (a is None) == (b is None)
            for a, b in zip(old.inputs, new.inputs, strict=True)
        )

    def _is_renamed(self, left: Value, right: Value) -> bool:
        """Whether it is another value that has got the name: some tools give them anew."""
        old, new = left.producer, right.producer
        if left.is_output or old is None or new is None or old.type == new.type:
            return False
        return _are_unlike(self._before.graph.shape(left), self._after.graph.shape(right))

    def _compared(self, left: Value, right: Value, claims: Sequence[Value | None] = ()) -> tuple[RegionResult, Region]:
        """Compares two values; where they differ, also from further up.

        Values at a border are made up freely. If one of them is made of another, the two sides may differ only for
        values that never occur together, and if it comes from a Sigmoid, say, for values that never occur at all; so
        such a value is opened, the latest first. What is made up further up reaches less, so more of it is tried.
        What is claimed if they are equal is that they are, or else of the values of ``claims``.
        """
        opened: set[Number] = set()
        first: tuple[RegionResult, Region] | None = None
        while True:
            regions = balanced(self._before, self._after, left, right, self._judge.may_cut, frozenset(opened))
            self._refuse_masks(claims or [left], regions)
            result = self._judge(*regions, self._before, self._after, tries=_TRIES if opened else 1)
            if self._judge.is_late:
                return result, regions[0]
            first = first or (result, regions[0])
            if result.outcome is Outcome.EQUAL:
                return self._unless_hidden(result, regions[1]), regions[0]
            if result.outcome is not Outcome.DIFFERENT:
                return first
            self._found.doubted.add(left.name)
            unfit = dependent_border(self._before, *regions)
            if unfit is None and self._in_vain < _PATIENCE:
                unfit = confined_border(regions[0])
            if unfit is None or len(opened) >= _OPENINGS:
                self._in_vain += bool(opened)
                return first
            opened.add(unfit)

    def _unless_hidden(self, result: RegionResult, region: Region) -> RegionResult:
        """A region that is equal, unless that says little: an operator in it is known to read something else."""
        if (op := next((op for op in region.ops if op in self._unlike), None)) is None:
            return result
        apart = f"{self._unlike[op].difference:.2g} of max |y| apart"
        detail = f"what {named(op)} reads is {apart}, and nothing that was tried shows it"
        return replace(result, outcome=Outcome.NOT_EXERCISED, detail=detail)

    def _refuse_masks(self, claims: Sequence[Value | None], regions: tuple[Region, Region]) -> None:
        """Refuses a region that was equal at first and is longer now."""
        if self._judge.knows(*regions) or any(value and value.name in self._suspects for value in claims):
            return
        if any(value in self._tainted for op in regions[0].ops for value in self._before.read_for_data(op)):
            raise _Unmatched

    def _record(self, result: RegionResult) -> None:
        if result not in self._found.regions:
            self._found.regions.append(result)


def _are_unlike(left: Shape | None, right: Shape | None) -> bool:
    """Whether two shapes are known to be different."""
    if left is None or right is None:
        return False
    sizes = [(a, b) for a, b in zip(left, right, strict=False) if isinstance(a, int) and isinstance(b, int)]
    return len(left) != len(right) or any(a != b for a, b in sizes)


def _number_all(numbering: Numbering, scope: Scope) -> None:
    for op in scope.live_ops():
        numbering.enter_bodies(op)
        for body in op.bodies:
            _number_all(numbering, body)
        numbering.note_constant(op)
        for value, number in zip(op.outputs, numbering.keys(op), strict=True):
            if value is not None:
                numbering.assign(value, number)


def _twin(op: Op, scope: Scope) -> Op | None:
    """The op of another graph that makes the value of the same name."""
    value = next((scope.values.get(output.name) for output in op.outputs if output is not None), None)
    producer = None if value is None else value.producer
    return producer if producer is not None and producer.type == op.type else None


def _free_inputs(graph: Graph) -> frozenset[str]:
    """Inputs that a caller may give; before IR version 4, those with an initializer are constants."""
    legacy = graph.model.proto.ir_version < 4
    return frozenset(
        entry.name for entry in graph.model.proto.graph.input if not legacy or graph.main.own(entry.name).tensor is None
    )
