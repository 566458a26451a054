"""One operator by itself, in float64: what a rule answers is carried out, and must compute what was promised."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Literal, TypeVar

import numpy as np
import onnx
import onnx.parser
from helpers import Array, assert_close, own_ops
from onnx import ModelProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator
from onnx.reference.op_run import OpRun

from bnfold.affine import Affine
from bnfold.folding.apply import Writer
from bnfold.folding.walk import Way
from bnfold.graph import Graph, Op
from bnfold.model_io import load, to_proto
from bnfold.ops import RULES, Edits, OpRule, Step
from bnfold.ops.rule import Detach, Moved

Dims = Sequence[int | str | None] | None
_RELATIVE = 1e-9
_Mode = Literal["constant", "edge", "reflect", "wrap"]
_Ability = TypeVar("_Ability")


def one_op(node: str, inputs: Mapping[str, Dims], opset: int = 21, **constants: Any) -> ModelProto:
    """A model of one node: inputs by name with their shapes (None: not even the rank is known), all else constants.

    Constants that are floating-point numbers are float64, as the inputs are.
    """
    proto = onnx.parser.parse_node(node.replace("<>", ""))
    graph = helper.make_graph(
        [proto],
        "one_op",
        [helper.make_tensor_value_info(name, onnx.TensorProto.DOUBLE, shape) for name, shape in inputs.items()],
        [onnx.ValueInfoProto(name=name) for name in proto.output if name],
        [numpy_helper.from_array(np.asarray(values), name) for name, values in constants.items()],
    )
    return helper.make_model(graph, ir_version=10, opset_imports=[helper.make_opsetid("", opset)])


def an_affine(*shape: int, shift: bool = True, positive: bool = False) -> Affine:
    """Random numbers; scales from 0.5 to 2, of either sign unless `positive`."""
    random = np.random.default_rng(sum(shape) + len(shape))
    scale = random.uniform(0.5, 2, shape)
    if not positive:
        scale *= random.choice([-1, 1], shape)
    return Affine(scale, random.normal(size=shape) * shift)


def uniform(rank: int, scale: float = 1.5, shift: float = 0.0) -> Affine:
    """The same number everywhere."""
    return Affine(np.full((1,) * rank, scale), np.full((1,) * rank, shift))


class Pad(OpRun):
    """ONNX's own does not cut off where a pad is negative."""

    op_domain = ""

    def _run(
        self, x: Array, pads: Array, value: Array | None = None, axes: Array | None = None, mode: _Mode = "constant"
    ) -> tuple[Array]:
        axes = np.arange(x.ndim) if axes is None else axes % x.ndim
        given = dict(zip(axes.tolist(), pads.reshape(2, -1).T.tolist(), strict=True))
        pairs = [given.get(axis, (0, 0)) for axis in range(x.ndim)]
        added = [(max(before, 0), max(after, 0)) for before, after in pairs]
        constant = 0 if value is None else value.item()
        padded = np.pad(x, added, constant_values=constant) if mode == "constant" else np.pad(x, added, mode)
        return (padded[tuple(slice(max(-before, 0), min(after, 0) or None) for before, after in pairs)],)


def run(model: ModelProto, feeds: Mapping[str, Array]) -> dict[str, Array]:
    """Every value, by ONNX's reference implementation."""
    with np.errstate(all="ignore"):
        evaluator = ReferenceEvaluator(model, new_ops=[*own_ops(model), Pad])
        results = evaluator.run(None, dict(feeds), intermediate=True)
    assert isinstance(results, dict)
    return results


def only_op(model: ModelProto) -> Op:
    return next(Graph(load(model)).ops())


# --- what a rule answers -------------------------------------------------------------------------------------


def lift(model: ModelProto, affine: Affine, output: int = 0) -> Sequence[Step]:
    op = only_op(model)
    return _there(RULES[op.type].lift)(op, output, affine)


def sink(model: ModelProto, affine: Affine, index: int = 0) -> Sequence[Step]:
    op = only_op(model)
    return _there(rule_at(op, index).sink)(op, index, affine)


def meet(model: ModelProto, affines: Mapping[int, Affine]) -> Sequence[Step]:
    op = only_op(model)
    return _there(RULES[op.type].meet)(op, affines)


def absorb_output(model: ModelProto, affine: Affine) -> Edits:
    op = only_op(model)
    return _there(RULES[op.type].absorb_output)(op, affine)


def absorb_input(model: ModelProto, affine: Affine, index: int = 0) -> Edits:
    op = only_op(model)
    return _there(rule_at(op, index).absorb_input)(op, index, affine)


def _there(ability: _Ability | None) -> _Ability:
    assert ability is not None, "the operator has no such rule"
    return ability


def rule_at(op: Op, index: int) -> OpRule:
    """The operator's rule, which is asked only of inputs that data comes in through."""
    rule = RULES[op.type]
    rule.refuse_unless_data(op, index)
    return rule


# --- and whether it is true ----------------------------------------------------------------------------------


def assert_lifts(model: ModelProto, affine: Affine, output: int = 0, relative: float = _RELATIVE, **dims: int) -> None:
    """Each way computes A(op(x)), and leaves the other outputs as they are."""
    feeds = feeds_of(model, dims)
    expected = run(model, feeds)
    name = model.graph.node[0].output[output]
    expected[name] = np.asarray(affine(expected[name]), np.float64)
    for step in _each(lambda: lift(model, affine, output)):
        after = carried_out(model, step.edits)
        moved = {model.graph.node[0].input[index]: part for index, part in step.to.items()}
        for tensor in after.graph.initializer:
            if tensor.name in moved:
                array = np.asarray(moved[tensor.name](numpy_helper.to_array(tensor)), np.float64)
                tensor.CopyFrom(numpy_helper.from_array(array, tensor.name))
        fed = feeds | {name: np.asarray(moved[name](feeds[name]), np.float64) for name in moved if name in feeds}
        _assert_same_outputs(model, run(after, fed), expected, relative)


def assert_sinks(model: ModelProto, affine: Affine, index: int = 0, relative: float = _RELATIVE, **dims: int) -> None:
    """Each way computes op(A(x)) on every output."""
    _assert_passed(model, {index: affine}, lambda: sink(model, affine, index), relative, dims)


def assert_meets(model: ModelProto, affines: Mapping[int, Affine], relative: float = _RELATIVE, **dims: int) -> None:
    """Each way computes op(A(x), B(y)) on every output."""
    _assert_passed(model, affines, lambda: meet(model, affines), relative, dims)


def _each(answers: Callable[[], Sequence[Step]]) -> Iterator[Step]:
    """Each answer, of a graph of its own: an index is gone once edits were carried out."""
    count = len(answers())
    assert count
    return (answers()[number] for number in range(count))


def _assert_passed(
    model: ModelProto,
    affines: Mapping[int, Affine],
    answers: Callable[[], Sequence[Step]],
    relative: float,
    dims: Mapping[str, int],
) -> None:
    names, feeds = model.graph.node[0].input, feeds_of(model, dims)

    def fed(affines: Mapping[int, Affine]) -> dict[str, Array]:
        return feeds | {names[at]: np.asarray(affine(feeds[names[at]]), np.float64) for at, affine in affines.items()}

    expected = run(model, fed(affines))
    for step in _each(answers):
        results = run(carried_out(model, step.edits), fed(step.beside))
        for output, part in step.to.items():
            result = model.graph.node[0].output[output]
            assert results[result].ndim == part.rank
            assert np.broadcast_shapes(results[result].shape, part.shape) == results[result].shape
            results[result] = np.asarray(part(results[result]), np.float64)
        _assert_same_outputs(model, results, expected, relative)


def assert_absorbs_output(model: ModelProto, affine: Affine, relative: float = _RELATIVE, **dims: int) -> None:
    """The new operator computes A(op(x))."""
    feeds = feeds_of(model, dims)
    expected = run(model, feeds)
    name = model.graph.node[0].output[0]
    expected[name] = np.asarray(affine(expected[name]), np.float64)
    _assert_same_outputs(model, run(carried_out(model, absorb_output(model, affine)), feeds), expected, relative)


def assert_absorbs_input(
    model: ModelProto, affine: Affine, index: int = 0, relative: float = _RELATIVE, **dims: int
) -> None:
    """The new operator computes op(A(x))."""
    feeds = feeds_of(model, dims)
    name = model.graph.node[0].input[index]
    expected = run(model, feeds | {name: np.asarray(affine(feeds[name]), np.float64)})
    _assert_same_outputs(model, run(carried_out(model, absorb_input(model, affine, index)), feeds), expected, relative)


def carried_out(model: ModelProto, edits: Edits) -> ModelProto:
    """The model after the edits."""
    if not edits:
        after = ModelProto()
        after.CopyFrom(model)
        return after
    graph = next(edit.op for edit in edits if not isinstance(edit, Moved | Detach)).graph
    assert isinstance(graph, Graph)
    Writer(graph).merge(Way(list(edits)))
    graph.commit()
    return to_proto(graph.model)


def feeds_of(model: ModelProto, dims: Mapping[str, int]) -> dict[str, Array]:
    """Random values for every input; what a symbolic size stands for is in `dims`, or 2."""
    random = np.random.default_rng(0)
    feeds = {}
    for entry in model.graph.input:
        sizes = entry.type.tensor_type.shape.dim
        shape = [dims.get(size.dim_param, 2) if size.dim_param else size.dim_value for size in sizes]
        feeds[entry.name] = random.normal(size=shape)
    return feeds


def _assert_same_outputs(
    model: ModelProto, actual: Mapping[str, Array], expected: Mapping[str, Array], relative: float
) -> None:
    for entry in model.graph.output:
        assert_close(actual[entry.name], expected[entry.name], relative, what=entry.name)
