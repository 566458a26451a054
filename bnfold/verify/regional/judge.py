"""Are two regions the same function? Tried on small inputs of several sizes, in float64."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import onnx

from bnfold.graph import Graph, Value, is_float
from bnfold.limits import Deadline
from bnfold.reasons import Refused
from bnfold.verify.evidence import Evidence
from bnfold.verify.float64.evaluate import CannotEvaluate, Evaluator, OutOfTime, is_stored
from bnfold.verify.float64.kernel import Array, as_real
from bnfold.verify.ports import required_inputs
from bnfold.verify.regional.blame import changed_operators, culprit
from bnfold.verify.regional.border import Hints, made_up
from bnfold.verify.regional.exercise import Rival, rivals
from bnfold.verify.regional.explain import Finding, compared, is_mostly_finite
from bnfold.verify.regional.extract import evidence
from bnfold.verify.regional.hints import grids, hints, is_uniform
from bnfold.verify.regional.numbering import Numbering
from bnfold.verify.regional.regions import Region, named
from bnfold.verify.regional.scenes import Scene, stretched
from bnfold.verify.regional.side import Given, Side, changed_weights, lone_reads, retuned_operators
from bnfold.verify.regional.untried import force_others, has_untaken, untried
from bnfold.verify.result import Outcome, RegionResult

_TRIES = 16  # to get into both branches of an If


class Judge:
    """Compares pairs of regions of two models.

    Args:
        before: A model.
        after: The model made from it.
        scenes: The shapes to try, small ones first; the last are the declared ones, for what fits no others.
        seed: Of the values at the borders.
        deadline: Of all comparisons together; what is left then is not evaluated.

    Attributes:
        is_late: Whether something was not evaluated for want of time.
    """

    def __init__(self, before: Graph, after: Graph, scenes: Sequence[Scene], seed: int, deadline: Deadline) -> None:
        self._before, self._after = Evaluator(before.model, deadline), Evaluator(after.model, deadline)
        self.is_late = False
        self._graph = before
        self._after_graph = after
        self._scenes = scenes
        self._seed = seed
        self._has_fixed_shapes = all(
            port.shape is not None and all(isinstance(dim, int) for dim in port.shape)
            for port in required_inputs(before.model)
        )
        self._known: dict[object, RegionResult] = {}
        self._differing: dict[RegionResult, tuple[Region, Region, Numbering, Numbering, int]] = {}
        self._telling: Given | None = None  # what told the last regions apart
        self._idle: list[Rival] = []  # constants of the regions at work that no trial has told apart yet

    def may_cut(self, value: Value) -> bool:
        """Whether a value of BEFORE can be made up: numbers and truths of known shape; never sizes or positions."""
        if value.producer is None:
            return False
        dtype = self._scenes[-1].dtype(value)
        is_fit = dtype is not None and (as_real(dtype) == np.float64 or dtype == np.bool_)
        small = [scene for scene in self._scenes if scene.is_small]  # the others are for what fits none of these
        return is_fit and all(scene.shape(value) is not None for scene in small or self._scenes)

    def __call__(
        self, left: Region, right: Region, before: Numbering, after: Numbering, *, tries: int = 1
    ) -> RegionResult:
        """What the comparison comes to; values are made up so many times."""
        key = (left.target, right.target, left.ops, right.ops, tries)
        if key not in self._known:
            result = self._result(*self._sides(left, right, before, after, tries))
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
        left, right = self._sides(*self._differing[result])
        self._result(left, right)
        if self._telling is None:
            raise CannotEvaluate("it is not by values that they are told apart")
        found = evidence((self._graph, self._after_graph), left, right, self._telling, result)
        self._forget()
        return found

    def _sides(self, left: Region, right: Region, before: Numbering, after: Numbering, tries: int) -> tuple[Side, Side]:
        self._tries = tries
        # Rounding turns the last bit of what goes in into a whole step, here and there, and that would hide what is
        # off by a few steps everywhere. On the same grids, where what goes in is equal, so is what comes out.
        self._before.rounds = self._after.rounds = grids(left, before) != grids(right, after)
        return (
            self._side(self._before, left, before, right, after),
            self._side(self._after, right, after, left, before),
        )

    def _forget(self) -> None:
        self._before.forget()
        self._after.forget()

    def _side(
        self, evaluator: Evaluator, region: Region, numbering: Numbering, other: Region, others: Numbering
    ) -> Side:
        # where the declared shapes are fixed, a condition that reads nothing but shapes is one, too
        fixed = numbering.constants if self._has_fixed_shapes else set[Value]()
        decided = (op for op in region.ops if op.type == "If" and (op.data(0) in fixed or is_stored(op.data(0))))
        return Side(
            evaluator,
            region,
            changed_weights(region, numbering, other, others),
            lone_reads(region, numbering, other, others),
            retuned_operators(region, other),
            frozenset(decided),
            {op: numbering.numbers.get(op.data(0)) for op in region.ops if op.type == "If"},
        )

    def _result(self, left: Side, right: Side) -> RegionResult:
        changed = changed_operators(left, right)
        result = RegionResult(
            value=left.region.target.name,
            operators=tuple(named(op) for op in left.region.ops),
            replaced_by=tuple(named(op) for op in right.region.ops),
            suspect=named(changed[-1]) if changed else repr(left.region.target.name),
            outcome=Outcome.NOT_EVALUATED,
        )
        try:
            return self._judged(left, right, result)
        except (CannotEvaluate, Refused) as error:  # a node that does not fit its inputs
            self.is_late |= isinstance(error, OutOfTime)
            return replace(result, detail=str(error))

    def _judged(self, left: Side, right: Side, result: RegionResult) -> RegionResult:
        types = _float_types(self._graph, left.region), _float_types(self._after_graph, right.region)
        if narrow := _narrowed(*types):
            detail = f"AFTER rounds to {', '.join(sorted(dtype.name for dtype in narrow))}, BEFORE does not"
            return replace(result, outcome=Outcome.DIFFERENT, detail=detail)
        self._idle = rivals(left, right)
        result = self._tried(left, right, result)
        if result.outcome is Outcome.EQUAL and has_untaken(left, right):
            self._tries = _TRIES
            result = self._tried(left, right, result)
        if result.outcome is Outcome.EQUAL and force_others(left, right):
            result = self._tried(left, right, result)
        if result.outcome is Outcome.EQUAL and (longer := self._longer()):
            result = self._tried(left, right, result, longer)
        if result.outcome is Outcome.EQUAL and (why := self._unmet(left, right, result)):
            return replace(result, outcome=Outcome.NOT_EXERCISED, detail=why)
        return result

    def _longer(self) -> list[Scene]:
        """The declared shapes, but as long as the tables of which rows were not read."""
        length = max((len(rival.other) for rival in self._idle if rival.other.ndim), default=0)
        scene = stretched(self._graph.model, self._scenes[-1], length) if length else None
        return [] if scene is None else [scene]

    def _unmet(self, left: Side, right: Side, result: RegionResult) -> str:
        """Why two sides that were equal in all trials need not be equal; empty if they do."""
        if self._idle:
            names = ", ".join(sorted(set(map(str, self._idle))))
            return f"{names} differs, and nothing that was tried tells"
        return untried(left, right, is_exact=not result.difference)

    def _tried(self, left: Side, right: Side, result: RegionResult, scenes: Sequence[Scene] = ()) -> RegionResult:
        """What the scenes say, the worst of them; as many as it takes to see all of the region."""
        problem, saw_all = "", False
        one_is_enough, tips = is_uniform(left.region, right.region), hints(left, right)
        for scene in scenes or self._scenes:
            if saw_all and (one_is_enough or not scene.is_small):
                break
            for side in (left, right):
                side.evaluator.blind = False
            try:
                found, given = self._found(left, right, scene, tips)
            except OutOfTime:
                raise
            except CannotEvaluate as error:
                problem = problem or str(error)
                continue
            except MemoryError:
                problem = problem or "it takes more memory than there is"
                continue
            if found.ratio > 1 and not (scene.is_allowed or one_is_enough):
                continue  # AFTER may know the declared sizes by heart
            saw_all |= not (left.evaluator.blind or right.evaluator.blind)
            if result.outcome is Outcome.NOT_EVALUATED or found.ratio > result.error:
                result = _with(result, found)
            if result.outcome is Outcome.DIFFERENT:
                self._telling = given
                op = culprit(left, right, given)
                return result if op is None else replace(result, suspect=named(op))
        return replace(result, detail=problem) if result.outcome is Outcome.NOT_EVALUATED else result

    def _found(self, left: Side, right: Side, scene: Scene, tips: Hints) -> tuple[Finding, Given]:
        """The first trial in which the sides differ, else the worst of them; with the values at the border for it."""
        border = {number: value for side in (right, left) for value, number in side.region.border.items()}
        worst: tuple[Finding, Given] | None = None
        for trial in made_up(self._graph, scene, border, tips, self._seed, self._tries):
            old = None
            left.evaluator.counts = right.evaluator.counts = not trial.is_zero
            try:
                given, old = _suited(left, trial.given)
                found = compared(left, right, given, old, np.random.default_rng(self._seed))
            except CannotEvaluate as error:
                if not trial.is_daring or isinstance(error, OutOfTime):
                    raise
                left.evaluator.blind = True  # which another scene may not be
                right.evaluator.refused = right.evaluator.refused or ("" if old is None else str(error))
                continue
            if worst is None or found.ratio > worst[0].ratio:
                worst = found, given
            if found.ratio > 1:
                break
            self._idle = [rival for rival in self._idle if not rival.matters(given)]
        assert worst is not None
        return worst


def _suited(left: Side, given: Given) -> tuple[Given, Array]:
    """Values that suit the operators, as negative ones do not suit a root, and what comes of them."""
    old = left.value(given)
    if is_mostly_finite(old):
        return given, old
    # as few of them as will do: others may have to be negative to tell anything
    numbers = [{number} for number, x in given.items() if x.dtype == np.float64]
    for chosen in [*numbers, set().union(*numbers)]:
        suited = {number: np.abs(x) + 0.1 if number in chosen else x for number, x in given.items()}
        old = left.value(suited)
        if is_mostly_finite(old):
            break
    return suited, old


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


def _narrowed(before: set[np.dtype[Any]], after: set[np.dtype[Any]]) -> set[np.dtype[Any]]:
    """Floating-point types of AFTER that hold less than those of BEFORE: both are evaluated without them."""
    least = min((dtype.itemsize for dtype in before), default=0)
    half = {dtype for dtype in after - before if dtype.itemsize < 4}  # float16 and bfloat16 lack different things
    return half | {dtype for dtype in after if dtype.itemsize < least}


def _float_types(graph: Graph, region: Region) -> set[np.dtype[Any]]:
    """The floating-point types that a region computes or stores in."""
    values = [region.target, *region.border, *(value for op in region.ops for value in op.inputs if value is not None)]
    dtypes = [graph.dtype(value) for value in values]
    casts = [op.attribute("to") for op in region.ops if op.type == "Cast"]
    dtypes += [np.dtype(onnx.helper.tensor_dtype_to_np_dtype(to)) for to in casts]
    return {dtype for dtype in dtypes if dtype is not None and is_float(dtype)}
