"""Are two regions the same function? Tried on small inputs of several sizes, in float64."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import onnx

from bnfold.graph import Graph, Op, Value
from bnfold.verify.blame import changed_operators, culprit
from bnfold.verify.border import made_up
from bnfold.verify.evaluate import CannotEvaluate, Evaluator
from bnfold.verify.explain import (
    Finding,
    Given,
    Side,
    changed_weights,
    compared,
    evaluated,
    is_mostly_finite,
    retuned_operators,
)
from bnfold.verify.kernel import as_real
from bnfold.verify.numbering import Numbering
from bnfold.verify.regions import Region
from bnfold.verify.result import Outcome, RegionResult
from bnfold.verify.scenes import Scene

_MOVING = frozenset({"Conv", "ConvTranspose", "com.microsoft::FusedConv", "AveragePool", "MaxPool"})
# What these do at one size, and at one place, they do at every other.
_UNIFORM = _MOVING | {
    *("BatchNormalization", "Add", "Sub", "Mul", "Div", "Neg", "Identity", "Constant", "DequantizeLinear"),
    *("Relu", "LeakyRelu", "PRelu", "Clip", "Sigmoid", "HardSigmoid", "HardSwish", "Tanh", "Gemm", "MatMul"),
}


class Judge:
    """Compares pairs of regions of two models.

    Args:
        before: A model.
        after: The model made from it.
        scenes: The shapes to try, small ones first; the last are the declared ones, for what fits no others.
        seed: Of the values at the borders.
    """

    def __init__(self, before: Graph, after: Graph, scenes: Sequence[Scene], seed: int) -> None:
        self._before, self._after = Evaluator(before.model), Evaluator(after.model)
        self._graph = before
        self._after_graph = after
        self._scenes = scenes
        self._seed = seed
        self._known: dict[object, RegionResult] = {}

    def may_cut(self, value: Value) -> bool:
        """Whether a value of BEFORE can be made up: numbers and truths of known shape; never sizes or positions."""
        if value.producer is None:
            return False
        dtype = self._scenes[-1].dtype(value)
        is_fit = dtype is not None and (as_real(dtype) == np.float64 or dtype == np.bool_)
        return is_fit and all(scene.shape(value) is not None for scene in self._scenes)

    def __call__(self, left: Region, right: Region, before: Numbering, after: Numbering) -> RegionResult:
        """What the comparison comes to."""
        key = (left.target, right.target, left.ops, right.ops)
        if key not in self._known:
            sides = (
                Side(self._before, left, changed_weights(left, before, right, after), retuned_operators(left, right)),
                Side(self._after, right, changed_weights(right, after, left, before), retuned_operators(right, left)),
            )
            self._known[key] = self._result(*sides)
            self._before.forget()
            self._after.forget()
        return self._known[key]

    def _result(self, left: Side, right: Side) -> RegionResult:
        changed = changed_operators(left, right)
        result = RegionResult(
            value=left.region.target.name,
            operators=tuple(_named(op) for op in left.region.ops),
            replaced_by=tuple(_named(op) for op in right.region.ops),
            suspect=_named(changed[-1]) if changed else repr(left.region.target.name),
            outcome=Outcome.NOT_EVALUATED,
        )
        if narrow := _narrow_types(self._after_graph, right.region) - _narrow_types(self._graph, left.region):
            detail = f"AFTER rounds to {', '.join(sorted(narrow))}, BEFORE does not"
            return replace(result, outcome=Outcome.DIFFERENT, detail=detail)
        problem, was_evaluated, saw_all = "", False, False
        one_is_enough = _is_uniform(left.region, right.region)
        for scene in self._scenes:
            if saw_all and (one_is_enough or not scene.is_small):
                break
            self._before.blind = self._after.blind = False
            try:
                found, given = self._found(left, right, scene)
            except CannotEvaluate as error:
                problem = problem or str(error)
                continue
            was_evaluated = True
            saw_all |= not (self._before.blind or self._after.blind)
            if result.outcome is Outcome.NOT_EVALUATED or found.ratio > result.error:
                result = _with(result, found)
            if result.outcome is Outcome.DIFFERENT:
                op = culprit(left, right, given)
                return result if op is None else replace(result, suspect=_named(op))
        return result if was_evaluated else replace(result, detail=problem)

    def _found(self, left: Side, right: Side, scene: Scene) -> tuple[Finding, Given]:
        """The worst of all trials, with the values at the border for it."""
        border = {number: value for side in (right, left) for value, number in side.region.border.items()}
        worst: tuple[Finding, Given] | None = None
        for given in made_up(self._graph, scene, border, self._seed):
            suited: Given = given
            old = evaluated(left, given)
            if not is_mostly_finite(old):
                suited = {n: np.abs(x) + 0.1 if x.dtype == np.float64 else x for n, x in given.items()}
                old = evaluated(left, suited)
            found = compared(left, right, suited, old, np.random.default_rng(self._seed))
            if worst is None or found.ratio > worst[0].ratio:
                worst = found, suited
        assert worst is not None
        return worst


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


def _is_uniform(left: Region, right: Region) -> bool:
    """Whether one size tells as much as two: both sides move over their inputs alike, and nothing asks for a size."""
    are_uniform = all(op.type in _UNIFORM for region in (left, right) for op in region.ops)
    return are_uniform and _windows(left) == _windows(right)


def _windows(region: Region) -> Counter[bytes]:
    """How operators move over their inputs."""
    windows: Counter[bytes] = Counter()
    for op in region.ops:
        if op.type in _MOVING:
            node = onnx.NodeProto(op_type=op.type)
            node.attribute.extend(attribute for attribute in op.node.attribute if attribute.name != "kernel_shape")
            windows[node.SerializeToString(deterministic=True)] += 1
    return windows


def _narrow_types(graph: Graph, region: Region) -> set[str]:
    """The floating-point types under 32 bits that a region computes or stores in: it is evaluated without them."""
    values = [region.target, *region.border, *(value for op in region.ops for value in op.inputs if value is not None)]
    dtypes = [graph.dtype(value) for value in values]
    casts = [op.attribute("to") for op in region.ops if op.type == "Cast"]
    dtypes += [np.dtype(onnx.helper.tensor_dtype_to_np_dtype(to)) for to in casts]
    return {dtype.name for dtype in dtypes if dtype is not None and dtype.itemsize < 4 and as_real(dtype) == np.float64}


def _named(op: Op) -> str:
    return f"{op.type} {op.label!r}"
