"""What has to hold for every model, folded or not; a fault is a sentence."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import onnx
import onnxruntime
from helpers import all_nodes, assert_nothing_dead, is_accepted, is_there, label
from onnx import ModelProto, numpy_helper
from onnxruntime.capi.onnxruntime_pybind11_state import (
    Fail,
    InvalidArgument,
    InvalidGraph,
    NotImplemented,
    RuntimeException,
)

from bnfold.folding import FoldOptions, Outcome, Plan, plan
from bnfold.graph import Graph
from bnfold.model_io import ModelError, load, to_proto
from random_graphs.builder import Array
from random_graphs.evaluate import copied, float_tensors, run
from random_graphs.generate import Case

EXACT = 1e-9  # of the largest value, in float64 models: orders of magnitude above the noise
_QUANTISED = 0.03  # a level of int8 more or less
_QUANTISED_BIAS = 1e-4  # half a step of a bias of int32
_RESAMPLED = 1e-6  # the reference implementation has its weights in float32
_UNIT = {"float64": 2.0**-53, "float32": 2.0**-24, "float16": 2.0**-11}
_CANNOT_RUN = (Fail, InvalidArgument, InvalidGraph, NotImplemented, RuntimeException)


class Discarded(Exception):
    """The model is of no use: invalid, or the reference implementation cannot run it."""


@dataclass(frozen=True, eq=False)
class Checked:
    """A model that was folded, and what is wrong with the result."""

    plan: Plan | None
    faults: tuple[str, ...]


def usable(case: Case) -> list[list[Array]]:
    """The results of a case's model for each of its feeds.

    Raises:
        Discarded: it is invalid, cannot be run, or gives NaN or infinity.
    """
    try:
        onnx.checker.check_model(case.model, full_check=not case.has_wrong_notes)
        results = [run(case.model, feed) for feed in case.feeds]
    except Exception as error:  # the reference implementation raises whatever numpy raises
        raise Discarded(str(error)) from error
    if not all(
        np.isfinite(value).all() and np.abs(value).max(initial=0) < 1e12 for values in results for value in values
    ):
        raise Discarded("not finite")
    return results


def check(case: Case, expected: list[list[Array]], keep: Sequence[str] = ()) -> Checked:
    """Folds a model and looks at everything that has to hold."""
    before = case.model.SerializeToString()
    options = FoldOptions(keep=keep, fold_norms=case.folds_norms)
    try:
        made = plan(load(case.model), options)
        folded = to_proto(made.model)
    except ModelError as error:
        return Checked(None, (f"refused as a whole: {error}",))
    except Exception as error:  # anything at all is a fault
        return Checked(None, (f"{type(error).__name__}: {error}",))
    faults = [
        *_form(case, folded),
        *differences(case, folded, expected),
        *_stability(case.model, made, folded, options),
    ]
    faults += [*_kept(case, folded, keep), *_report(case, made, folded)]
    if case.model.SerializeToString() != before:
        faults.append("the model that was given has changed")
    return Checked(made, tuple(faults))


def _form(case: Case, folded: ModelProto) -> Iterator[str]:
    try:  # what the checker accepted, it accepts
        onnx.checker.check_model(folded, full_check=is_accepted(case.model))
    except Exception as error:
        yield f"not valid any more: {error}"
    initializers = {tensor.name for tensor in case.model.graph.initializer}
    inputs = [[info for info in model.graph.input if info.name not in initializers] for model in (case.model, folded)]
    if case.model.ir_version < 4:
        ours = {tensor.name for tensor in folded.graph.initializer}
        inputs[1] = [info for info in inputs[1] if info.name not in ours]
    if inputs[0] != inputs[1]:
        yield "the graph's inputs have changed"
    if list(case.model.graph.output) != list(folded.graph.output):
        yield "the graph's outputs have changed"


def differences(case: Case, folded: ModelProto, expected: list[list[Array]]) -> Iterator[str]:
    """Where a model computes something else than was expected of the case's own."""
    allowed = _allowed(case, expected)
    for feed, wanted, tolerances in zip(case.feeds, expected, allowed, strict=True):
        try:
            found = run(folded, feed)
        except Exception as error:
            yield f"cannot be run any more: {error}"
            return
        faults = list(_differences("in float64", wanted, found, tolerances))
        if faults and case.dtype == "float64":  # a nearly constant LayerNormalization may enlarge any rounding
            faults = list(_differences("in float64", wanted, found, _noise(case, [wanted], [tolerances])[0]))
        yield from faults
    if case.dtype == "float32" and not case.has_wrong_notes:
        yield from _in_runtime(case, folded, allowed)


def _differences(where: str, wanted: list[Array], found: list[Array], tolerances: list[float]) -> Iterator[str]:
    for index, (left, right, tolerance) in enumerate(zip(wanted, found, tolerances, strict=True)):
        if left.shape != right.shape:
            yield f"output {index} has shape {right.shape}, not {left.shape}, {where}"
        elif not (error := np.abs(left.astype(np.float64) - right).max(initial=0)) <= tolerance:
            of = np.abs(left).max()
            yield f"output {index} is off by {error:.2g} of {of:.2g} {where}; {tolerance:.2g} is allowed"


def _allowed(case: Case, expected: list[list[Array]]) -> list[list[float]]:
    """Per output: exact for float64; else what a few roundings of the model's own constants do."""
    share = EXACT
    if case.dtype != "float64":
        share = 16 * _UNIT[case.dtype]
    if any(node.op_type == "QuantizeLinear" for node in case.model.graph.node):
        share = _QUANTISED
    elif case.op_types["DequantizeLinear"]:
        share = _QUANTISED_BIAS
    elif case.op_types["Resize"] or case.op_types["GridSample"]:
        share = max(share, _RESAMPLED)
    base = [[share * np.abs(value).max(initial=0) + share / 100 for value in values] for values in expected]
    return base if case.dtype == "float64" else _noise(case, expected, base)


def _noise(case: Case, expected: list[list[Array]], base: list[list[float]]) -> list[list[float]]:
    """The tolerances, enlarged by what the tiniest change of the constants does."""
    noisy = [run(_jittered(case, seed), feed) for seed in range(3) for feed in case.feeds]
    return [
        [
            least + 32 * max(_distance(value, run_[index]) for run_ in noisy[number :: len(case.feeds)])
            for index, (value, least) in enumerate(zip(values, leasts, strict=True))
        ]
        for number, (values, leasts) in enumerate(zip(expected, base, strict=True))
    ]


def _distance(left: Array, right: Array) -> float:
    """The largest difference; where noise makes NaN, anything goes."""
    return float(np.nan_to_num(np.abs(left - right), nan=np.inf).max(initial=0))


def _jittered(case: Case, seed: int) -> ModelProto:
    """The model with each constant moved by half a step of its type."""
    rng = np.random.default_rng(seed)
    model = copied(case.model)
    for tensor in float_tensors(model):
        array = numpy_helper.to_array(tensor).astype(np.float64)
        moved = array * (1 + _UNIT[case.dtype] * rng.choice([-1, 1], array.shape))
        tensor.CopyFrom(numpy_helper.from_array(moved, tensor.name))
    return model


def _in_runtime(case: Case, folded: ModelProto, allowed: list[list[float]]) -> Iterator[str]:
    """ONNX Runtime on both; its own error on the original counts as noise."""
    for feed, tolerances in zip(case.feeds, allowed, strict=True):
        try:
            before = _run_in_runtime(case.model, feed)
        except _CANNOT_RUN:
            return
        try:
            after = _run_in_runtime(folded, feed)
        except _CANNOT_RUN as error:
            yield f"ONNX Runtime cannot run it any more: {error}"
            return
        exact = run(case.model, feed)
        if any(
            left.shape != right.shape or not np.isfinite(left).all() for left, right in zip(before, exact, strict=True)
        ):
            return  # the two disagree about the operator itself, or float32 is too small for it
        own = [
            0 if case.shadows else np.abs(left.astype(np.float64) - right).max(initial=0)
            for left, right in zip(before, exact, strict=True)
        ]
        yield from _differences(
            "in ONNX Runtime", before, after, [4 * (a + b) for a, b in zip(own, tolerances, strict=True)]
        )


def _run_in_runtime(model: ModelProto, feed: dict[str, Array]) -> list[Array]:
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.intra_op_num_threads = 1
    options.log_severity_level = 4
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return [np.asarray(value) for value in session.run(None, feed)]


def _kept(case: Case, folded: ModelProto, keep: Sequence[str]) -> Iterator[str]:
    """Faults of nodes that were to stay: each is what it was, and what it reads and makes in the main graph as well."""
    nodes = [node for node in all_nodes(case.model) if label(node) in keep]
    if not nodes:
        return
    for node in nodes:
        if not is_there(node, folded):
            yield f"{node.op_type} {label(node)!r} is gone or has changed"
    try:
        assert_nothing_dead(case.model, folded)
    except AssertionError as error:
        yield f"something is idle: {error}"
    names = {name for node in nodes if node in case.model.graph.node for name in (*node.input, *node.output)} - {""}
    values = run(_with_outputs(case.model, names), case.feeds[0])[len(case.model.graph.output) :]
    real = [name for name, value in zip(_further(case.model, names), values, strict=True) if value.dtype.kind == "f"]
    if real:
        wide = replace(case, model=_with_outputs(case.model, real))
        yield from differences(wide, _with_outputs(folded, real), [run(wide.model, feed) for feed in wide.feeds])


def _with_outputs(model: ModelProto, names: Iterable[str]) -> ModelProto:
    """The model with these values among its outputs."""
    result = copied(model)
    result.graph.output.extend(onnx.ValueInfoProto(name=name) for name in _further(model, names))
    return result


def _further(model: ModelProto, names: Iterable[str]) -> list[str]:
    return sorted(set(names) - {info.name for info in model.graph.output})


def _report(case: Case, made: Plan, folded: ModelProto) -> Iterator[str]:
    """Operators are called what they were before the fold; what is left is there, and there is a reason for it."""
    types = {(label(node), node.op_type) for node in all_nodes(case.model)}
    labels = {name for name, _ in types}
    there = {(label(node), node.op_type) for node in all_nodes(folded)}
    for entry in made.entries:
        for answer in entry.answers:
            is_new = answer.op_type in ("Mul", "Add", "Gemm")  # a fold before may have made that of it
            if answer.node in labels and (answer.node, answer.op_type) not in types and not is_new:
                yield f"{answer.node!r} is called {answer.op_type}"
        may_leave = entry.outcome is Outcome.CLEARED  # an Add behind a MatMul that had no bias
        if (entry.outcome is Outcome.REDUCED) != bool(entry.left) and not may_leave:
            yield f"{entry.node!r} is {entry.outcome.value}, and what is left is {entry.left}"
        if bool(entry.refusals) != (entry.outcome in (Outcome.REDUCED, Outcome.KEPT)):
            yield f"{entry.node!r} is {entry.outcome.value} for the reasons {entry.refusals}"
        yield from (f"{left} is not there" for left in entry.left if (left.node, left.op_type) not in there)


def check_numbers(model: ModelProto) -> Iterator[str]:
    """What has to hold of a model whatever its numbers are: a fault of the plan shows while it is written."""
    try:
        made = plan(load(model))
        folded = to_proto(made.model)
    except Exception as error:  # anything at all is a fault
        yield f"{type(error).__name__}: {error}"
        return
    yield from _stability(model, made, folded, FoldOptions())
    if is_finite(model) and not is_finite(folded):
        yield "constants were finite, and are not any more"


def is_finite(model: ModelProto) -> bool:
    """Whether all its floating-point constants are, those that are computed from others too."""
    graph = Graph(load(model))
    constants = [graph.constant(value) for scope in graph.scopes for value in scope.values.values()]
    with np.errstate(all="ignore"):
        return all(np.isfinite(each.array()).all() for each in constants if each is not None and each.dtype.kind == "f")


def _stability(model: ModelProto, made: Plan, folded: ModelProto, options: FoldOptions) -> Iterator[str]:
    data = folded.SerializeToString()
    if to_proto(plan(load(model), options).model).SerializeToString() != data:
        yield "folded twice from the start, it comes out differently"
    try:
        again = plan(load(folded), options)
        if to_proto(again.model).SerializeToString() != data:
            changed = [entry.node for entry in again.entries if entry.outcome.value != "kept"]
            yield f"folding the result changes it again: {changed}"
    except Exception as error:
        yield f"folding the result fails: {type(error).__name__}: {error}"
    if not made.changes and data != model.SerializeToString():
        yield "nothing folds, and yet the model is another"
