"""Are two regions the same function? Tried on small inputs of several sizes, in float64."""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cached_property, partial

import numpy as np

from bnfold.graph import Graph, Value
from bnfold.graph.ports import required_inputs
from bnfold.limits import Deadline
from bnfold.reasons import Refused
from bnfold.verification.evidence import Evidence
from bnfold.verification.float64.evaluate import CannotEvaluate, Evaluator, OutOfTime
from bnfold.verification.float64.how import Coverage, How
from bnfold.verification.float64.kept import Kept
from bnfold.verification.float64.kernel import Array, as_real
from bnfold.verification.regions.blame import changed_operators, culprit
from bnfold.verification.regions.border import Frame, frame, made_up, says_nothing_new
from bnfold.verification.regions.exercise import exchanged, rivals
from bnfold.verification.regions.explain import Finding, NotTaken, compared, compared_domains, is_mostly_finite
from bnfold.verification.regions.extract import evidence
from bnfold.verification.regions.hints import grids, is_uniform
from bnfold.verification.regions.numbering import Number, Numbering
from bnfold.verification.regions.obligations import Obligation, Wanted, kinds, lengths, unmet, wanted
from bnfold.verification.regions.positions import fewer
from bnfold.verification.regions.precision import narrowed
from bnfold.verification.regions.regions import Region, named
from bnfold.verification.regions.scenes import Scene, longer, stretched
from bnfold.verification.regions.side import (
    Given,
    Side,
    active_operators,
    changed_weights,
    compared_sizes,
    counting_operators,
    is_settled,
    lone_reads,
    retuned_operators,
)
from bnfold.verification.regions.steps import period, telling
from bnfold.verification.regions.untried import Seen, forced, untaken
from bnfold.verification.result import Outcome, RegionResult

_TRIES = 16  # to get into both branches of an If
_STEPS = 32  # sizes in a row, so that each rest is met behind five strides of two


class Judge:
    """Compares pairs of regions of two models.

    Args:
        before: A model.
        after: The model made from it.
        scenes: The shapes to try, small ones first; the last are the declared ones, for what fits no others.
        seed: Of the values at the borders.
        deadline: Of all comparisons together; what is left then is not evaluated.
        kept: Where regions overlap, an operator is evaluated for the first of them alone.

    Attributes:
        is_late: Whether something was not evaluated for want of time.
    """

    def __init__(
        self, before: Graph, after: Graph, scenes: Sequence[Scene], seed: int, deadline: Deadline, kept: Kept
    ) -> None:
        self._kept = kept
        self._before, self._after = (Evaluator(graph.model, deadline, self._kept) for graph in (before, after))
        self.is_late = False
        self._graph = before
        self._after_graph = after
        self._scenes = scenes
        self._seed = seed
        self._has_fixed_shapes = all(
            port.shape is not None and all(isinstance(dim, int) for dim in port.shape)
            for port in required_inputs(before.model)
        )
        self._stretched: dict[tuple[int, bool], Sequence[Scene]] = {}
        self._known: dict[object, RegionResult] = {}
        self._differing: dict[RegionResult, tuple[Region, Region, Numbering, Numbering, int]] = {}
        self._telling: tuple[Side, Side, Given] | None = None  # what told the last regions apart

    def may_cut(self, value: Value) -> bool:
        """Whether a value of BEFORE can be made up: numbers and truths of known shape; never sizes or positions."""
        if value.producer is None:
            return False
        dtype = self._scenes[-1].dtype(value)
        is_fit = dtype is not None and (as_real(dtype) == np.float64 or dtype == np.bool_)
        small = [scene for scene in self._scenes if scene.is_small]  # the others are for what fits none of these
        return is_fit and all(scene.shape(value) is not None for scene in small or self._scenes)

    def knows(self, left: Region, right: Region) -> bool:
        """Whether these regions were compared before."""
        return _key(left, right, 1) in self._known

    def __call__(
        self, left: Region, right: Region, before: Numbering, after: Numbering, *, tries: int = 1
    ) -> RegionResult:
        """What the comparison comes to; values are made up so many times."""
        key = _key(left, right, tries)
        if key not in self._known:
            result = self._result(*self._sides(left, right, before, after), tries)
            self._known[key] = result
            if result.outcome is Outcome.DIFFERENT:
                self._differing[result] = left, right, before, after, tries
            self._forget()
        return self._known[key]

    def evidence(self, result: RegionResult) -> Evidence:
        """What shows the difference that was found in a region, which is compared once more for it.

        Raises:
            CannotEvaluate: There is none, or no time for it.
            ModelError: A weight cannot be read, or there are too many.
        """
        self._telling = None
        left, right, before, after, tries = self._differing[result]
        self._result(*self._sides(left, right, before, after), tries)
        if self._telling is None:
            raise CannotEvaluate("it is not by values that they are told apart")
        found = evidence((self._graph, self._after_graph), *self._telling, result)
        self._forget()
        return found

    def _sides(self, left: Region, right: Region, before: Numbering, after: Numbering) -> tuple[Side, Side]:
        # Rounding turns the last bit of what goes in into a whole step, here and there, and that would hide what is
        # off by a few steps everywhere. On the same grids, where what goes in is equal, so is what comes out.
        how = How(rounds=grids(left, before) != grids(right, after))
        return (
            self._side(self._before, left, before, right, after, how),
            self._side(self._after, right, after, left, before, how),
        )

    def _forget(self) -> None:
        self._before.forget()
        self._after.forget()

    def _side(
        self, evaluator: Evaluator, region: Region, numbering: Numbering, other: Region, others: Numbering, how: How
    ) -> Side:
        # where the declared shapes are fixed, a condition that reads nothing but shapes is one, too
        fixed = numbering.constants if self._has_fixed_shapes else set[Value]()
        ifs = [op for op in region.all_ops if op.type == "If"]
        known = ((op, op.data(0)) for op in ifs)
        decided = (op for op, c in known if c in fixed or op.graph.constant(c) is not None or is_settled(c.producer))
        return Side(
            evaluator,
            region,
            active_operators(region),
            changed_weights(region, numbering, other, others),
            lone_reads(region, numbering, other, others),
            lone_reads(region, numbering, other, others, sizes=True),
            retuned_operators(region, other),
            frozenset(decided),
            compared_sizes(region, numbering),
            counting_operators(region, numbering),
            {op: numbering.numbers.get(op.data(0)) for op in ifs},
            how,
        )

    def _result(self, left: Side, right: Side, tries: int) -> RegionResult:
        changed = changed_operators(left, right)
        result = RegionResult(
            value=left.region.target.name,
            operators=tuple(named(op) for op in left.region.ops),
            replaced_by=tuple(named(op) for op in right.region.ops),
            suspect=named(changed[-1]) if changed else repr(left.region.target.name),
            outcome=Outcome.NOT_EVALUATED,
        )
        try:
            result = self._judged(left, right, result, tries)
        except OutOfTime as error:
            self.is_late = True
            return replace(result, detail=str(error))
        except (CannotEvaluate, Refused) as error:  # a node that does not fit its inputs
            result = replace(result, detail=str(error))
        if result.outcome is Outcome.NOT_EVALUATED and (why := self._unseen(left, right)):
            return replace(result, outcome=Outcome.NOT_EXERCISED, detail=f"{why} ({result.detail})")
        return result

    def _unseen(self, left: Side, right: Side) -> str:
        """What a few runs say nothing of, where nothing but runs can tell two regions apart."""
        defaults = (value for value in left.region.border if value.tensor is not None)
        if unsized := [repr(value.name) for value in defaults if self._scenes[-1].shape(value) is None]:
            return f"{unsized[0]} may be given in any size"
        return f"{what} differs" if (what := exchanged(left, right)) else ""

    def _judged(self, left: Side, right: Side, result: RegionResult, tries: int) -> RegionResult:
        if narrow := narrowed(left, right):
            detail = f"AFTER rounds to {', '.join(sorted(dtype.name for dtype in narrow))}, BEFORE does not"
            return replace(result, outcome=Outcome.DIFFERENT, detail=detail)
        result, seen = self._tried(left, right, result, Seen(idle=tuple(rivals(left, right))), tries)
        if result.outcome is Outcome.EQUAL and untaken(left, right, seen):
            result, seen = self._tried(left, right, result, seen, _TRIES)
        result, seen = self._tried_longer(left, right, result, seen, tries)
        if result.outcome is Outcome.EQUAL and (stepped := self._stepped(left, right)):
            result, seen = self._tried(left, right, result, seen, tries, stepped)
        if result.outcome is Outcome.EQUAL and (sides := forced(left, right, seen)):
            left, right = sides
            result, seen = self._tried(left, right, result, seen, _TRIES)
            result, seen = self._tried_longer(left, right, result, seen, tries)
        if result.outcome is Outcome.EQUAL and not left.how.rounds:
            result = self._rounded(left, right, result, tries)
        if result.outcome is not Outcome.EQUAL:
            return result
        if why := unmet(left, right, replace(seen, is_exact=not result.difference)):
            return replace(result, outcome=Outcome.NOT_EXERCISED, detail=why)
        if seen.shows and not seen.tells:
            detail = f"rounding explains {result.bound:.2g} of max |y|, and so nearly everything"
            return replace(result, outcome=Outcome.NOT_EVALUATED, detail=detail)
        if names := ", ".join(sorted(seen.left.estimated | seen.right.estimated)):
            result = replace(result, detail=f"{result.detail}, " * bool(result.detail) + f"error of {names} estimated")
        return result

    def _rounded(self, left: Side, right: Side, result: RegionResult, tries: int) -> RegionResult:
        """The result, unless steps of the same grids tell: what goes in may be something else."""
        if not any(op.type == "QuantizeLinear" for op in left.region.all_ops):
            return result
        left, right = (replace(side, how=replace(side.how, rounds=True)) for side in (left, right))
        found, _ = self._tried(left, right, replace(result, outcome=Outcome.NOT_EVALUATED), Seen(), tries)
        return found if found.outcome is Outcome.DIFFERENT else result

    def _tried_longer(
        self, left: Side, right: Side, result: RegionResult, seen: Seen, tries: int
    ) -> tuple[RegionResult, Seen]:
        """The same where inputs are as long as obligations ask for."""
        asked = lengths(left, right, seen) if result.outcome is Outcome.EQUAL else []
        longer = {length: self._longer(*length) for length in asked}
        seen = replace(seen, beyond=frozenset(length for length, made in longer.items() if not made))
        scenes = list(dict.fromkeys(itertools.chain(*longer.values())))
        return self._tried(left, right, result, seen, tries, scenes) if scenes else (result, seen)

    def _stepped(self, left: Side, right: Side) -> list[Scene]:
        """Scenes with sizes at the border that leave another rest, where that matters."""
        if (by := period(left, right)) < 2:
            return []
        tried = [scene for scene in self._scenes if scene.is_small] or self._scenes[:1]
        return list(telling(self._in_steps, tried, partial(_frame, left, right), by))

    @cached_property
    def _in_steps(self) -> list[Scene]:
        made = (longer(self._graph, self._scenes[0], more) for more in range(1, _STEPS + 1))
        return [scene for scene in made if scene.inputs != self._scenes[0].inputs and not scene.is_refused]

    def _longer(self, length: int, samples: bool) -> Sequence[Scene]:
        """The declared shapes; the smallest ones, but as long as obligations ask for, or with as many samples."""
        if (length, samples) not in self._stretched:
            small = self._scenes[0] if samples else self._scenes[0].stated
            base = small if length else self._scenes[-1]
            self._stretched[length, samples] = stretched(self._graph, base, length, samples=samples)
        return self._stretched[length, samples]

    def _tried(
        self, left: Side, right: Side, result: RegionResult, seen: Seen, tries: int, scenes: Sequence[Scene] = ()
    ) -> tuple[RegionResult, Seen]:
        """What the scenes say, the worst of them; as many as it takes to see all of the region."""
        problem, refused, saw_all = "", "", False
        one_is_enough, owed = is_uniform(left, right), wanted(left, right)
        rest, asked, is_open = deque(scenes or self._scenes), set[Scene](), False
        told = list[Frame]()
        while rest:
            scene = rest.popleft()
            if not scenes and saw_all and (one_is_enough or not scene.is_small) and scene not in asked:
                break
            try:
                made = _frame(left, right, scene)
                if not scenes and saw_all and seen.tells and not seen.idle and says_nothing_new(made, told):
                    continue
                found, given, now = self._found(left, right, scene, made, owed, seen, tries)
            except OutOfTime:
                raise
            except CannotEvaluate as error:
                problem, is_open = problem or str(error), is_open or scene in asked
                refused = refused or (str(error) if scene.is_allowed and isinstance(error, NotTaken) else "")
                continue
            except MemoryError:
                problem, is_open = problem or "it takes more memory than there is", is_open or scene in asked
                continue
            if found.ratio > 1 and not (scene.is_allowed or one_is_enough):
                stated = self._stated(scene)  # AFTER may know the sizes that are stated by heart: those decide
                if stated not in asked:
                    rest = deque([stated, *(other for other in rest if other is not stated)])
                asked.add(stated)
                continue
            told.append(made)
            saw_all |= not (now.left.blind or now.right.blind)
            seen = replace(now, left=replace(now.left, blind=False), right=replace(now.right, blind=False))
            if result.outcome is Outcome.NOT_EVALUATED or found.ratio > result.error:
                result = _with(result, found)
            result = replace(result, tried=seen.tried)
            if result.outcome is Outcome.DIFFERENT:
                self._telling = left, right, given
                op = culprit(left, right, given)
                return (result if op is None else replace(result, suspect=named(op))), seen
        if is_open or result.outcome is Outcome.NOT_EVALUATED:
            result = replace(result, outcome=Outcome.NOT_EVALUATED, detail=problem)
        return result, replace(seen, refused=seen.refused or refused)

    def _stated(self, scene: Scene) -> Scene:
        """The scene with the sizes that are stated, one for each choice of shapes."""
        return next((other for other in self._scenes if other.inputs == scene.stated.inputs), scene.stated)

    def _found(
        self,
        left: Side,
        right: Side,
        scene: Scene,
        made: Frame,
        owed: Mapping[Obligation, Wanted],
        seen: Seen,
        tries: int,
    ) -> tuple[Finding, Given, Seen]:
        """The first trial in which the sides differ, else the worst of them; with the values at the border for it."""
        border = _border(left, right)
        worst: tuple[Finding, Given] | None = None
        filled = frozenset(number for number, shape in zip(border, made.shapes, strict=True) if 0 not in shape)
        is_blind = seen.left.blind or len(filled) < len(border)
        seen = replace(seen, filled=seen.filled | filled, left=replace(seen.left, blind=is_blind))
        for trial in made_up(self._graph, scene, border, made, kinds(owed, made), self._seed, tries, self._kept):
            try:
                given, old, met = _suited(left, trial.given)
                found, also_met = compared(left, right, given, old)
                is_suited = given is not trial.given and found.ratio <= 1
                if is_suited and (apart := compared_domains(left, right, trial.given)):
                    found, given = apart, trial.given
            except CannotEvaluate as error:
                if not trial.kind.is_daring or isinstance(error, OutOfTime):
                    raise
                blind = replace(seen.left, blind=True)  # which another scene may not be
                refused = seen.refused or (str(error) if isinstance(error, NotTaken) else "")
                seen = replace(seen, left=blind, refused=refused)
                continue
            if worst is None or found.ratio > worst[0].ratio:
                worst = found, given
            if not trial.kind.size:  # for which most branches come to the same
                met, also_met = replace(met, taken=frozenset()), replace(also_met, taken=frozenset())
            if not found.is_plain:  # which may have hidden what is made of equal numbers
                met, also_met = replace(met, tied=frozenset()), replace(also_met, tied=frozenset())
            seen = replace(
                seen,
                left=seen.left | met,
                right=seen.right | also_met,
                tells=seen.tells
                or (found.tells and not trial.kind.is_daring),  # beside huge numbers a huge bound is small
                shows=seen.shows or found.shows,
                tried=tuple(dict.fromkeys((*seen.tried, trial.kind.aim))),
            )
            if found.ratio > 1:
                break
            seen = replace(seen, idle=tuple(rival for rival in seen.idle if not rival.matters(given)))
        assert worst is not None
        return *worst, seen


def _border(left: Side, right: Side) -> dict[Number, Value]:
    return {number: value for side in (right, left) for value, number in side.region.border.items()}


def _frame(left: Side, right: Side, scene: Scene) -> Frame:
    border = _border(left, right)
    made = frame(scene, border.values())
    shapes = fewer(left.region, right.region, dict(zip(border, made.shapes, strict=True)))
    return made._replace(shapes=tuple(shapes.values()))


def _key(left: Region, right: Region, tries: int) -> object:
    return left.target, right.target, left.ops, right.ops, tries


def _suited(left: Side, given: Given) -> tuple[Given, Array, Coverage]:
    """Values that suit the operators, as negative ones do not suit a root, and what comes of them."""
    old, coverage = left.evaluate(given)
    if is_mostly_finite(old.value):
        return given, old.value, coverage
    # as few of them as will do: others may have to be negative to tell anything
    numbers = [{number} for number, x in given.items() if x.dtype == np.float64]
    for chosen in [*numbers, set().union(*numbers)]:
        suited = {number: np.abs(x) + 0.1 if number in chosen else x for number, x in given.items()}
        old, coverage = left.evaluate(suited)
        if is_mostly_finite(old.value):
            break
    return suited, old.value, coverage


def _with(result: RegionResult, found: Finding) -> RegionResult:
    return replace(
        result,
        outcome=Outcome.EQUAL if found.ratio <= 1 else Outcome.DIFFERENT,
        error=found.ratio,
        difference=found.difference,
        bound=found.bound,
        axis=found.axis,
        channel=found.channel,
        detail=found.detail,
    )
