"""A model made ready to be measured: what hides a BatchNormalization, or only looks like one, is out of the way.

Functions that hold one are written out where they are called. In training mode the stored statistics do not touch the
output, so those that are computed count as missing. And a BatchNormalization in training mode over a batch of one is

    InstanceNormalization[n, c] = gamma[c] (x[n, c] - mean x[n, c]) / sqrt(var x[n, c] + epsilon) + beta[c]

with n = 1. Where a Reshape has put the samples into the channels, that is on purpose, and population statistics would
make another model of it.
"""

from __future__ import annotations

from onnx import FunctionProto

from bnfold import batchnorm
from bnfold.calibration.error import CalibrationError
from bnfold.calibration.measuring.batches import fixed_batch, inputs_of
from bnfold.calibration.measuring.targets import ALL, Selection, is_training
from bnfold.calibration.rewrite import finish, to_inference
from bnfold.graph import Graph, Op, Scope, inlined
from bnfold.model_io import Model
from bnfold.reasons import Refusal, Refused

_LEAST_RANK = 3  # of InstanceNormalization
_TYPES = frozenset({"float16", "float32", "float64"})  # that it takes at every opset


def ready(model: Model, selection: Selection = ALL) -> tuple[Model, tuple[str, ...]]:
    """The model, or a copy of it that can be measured, and what the user should know of it.

    Raises:
        CalibrationError: no BatchNormalization in it has a use for statistics.
    """
    written_out, notes = _written_out(model)
    result = written_out.copy()
    graph = Graph(result, assume_constant=True)
    training = [op for op in graph.main.ops if batchnorm.is_batchnorm(op) and is_training(op)]
    training = [op for op in training if not selection.leaves_out(op)]
    by_sample = [op for op in training if _is_by_sample(graph, op)]
    calibrated = [op for op in training if op not in by_sample]
    if by_sample:
        notes.append(_about(graph, by_sample))
    if calibrated and fixed_batch(inputs_of(graph)) == 1:
        notes.append(
            "the model takes one sample at a time, and normalised each by itself until now; if that was on purpose, as "
            "in an InstanceNormalization, name its BatchNormalizations with --keep, and they stay"
        )
    for op in by_sample:
        _to_instance_normalization(graph, op)
    forgotten = [op for op in calibrated if _forget_computed(graph, op)]
    if not (forgotten or by_sample):
        return written_out, tuple(notes)
    finish(graph)
    return result, tuple(notes)


def _forget_computed(graph: Graph, op: Op) -> bool:
    """Omits the statistics that a training-mode node is given if they are computed: they are not used."""
    given = [value for value in map(op.input, (batchnorm.MEAN, batchnorm.VAR)) if value is not None]
    if all(graph.constant(value) is not None for value in given):
        return False
    for index in (batchnorm.MEAN, batchnorm.VAR):
        graph.set_input(op, index, None)
    return True


# --- functions -----------------------------------------------------------------------------------------------


def _written_out(model: Model) -> tuple[Model, list[str]]:
    """The model without the functions that hold a BatchNormalization, themselves or in what they call."""
    graph = Graph(model) if model.proto.functions else None
    holding = _holding(graph) if graph else set()
    if not graph or not holding:
        return model, []
    others = [(f.domain, f.name) for f in model.proto.functions if (f.domain, f.name) not in holding]
    names = ", ".join(sorted(name for _, name in holding))
    if any(op.shadowed for op in graph.ops()):
        return model, [f"functions are not written out ({names}): a name in a body might mean another value there"]
    try:
        return inlined(model, but=others), [f"functions with BatchNormalizations are written out: {names}"]
    except Refused as refused:
        return model, [str(Refusal(refused.reason, refused.facts))]


def _holding(graph: Graph) -> set[tuple[str, str]]:
    """Domain and name of the functions that hold a BatchNormalization; callers of one hold it too."""
    found: set[tuple[str, str]] = set()
    before = -1
    while before < len(found):
        before = len(found)
        for op in graph.ops():
            function = _root(op).proto
            holds = batchnorm.is_batchnorm(op) or (op.node.domain, op.node.op_type) in found
            if holds and isinstance(function, FunctionProto):
                found.add((function.domain, function.name))
    return found


def _root(op: Op) -> Scope:
    scope = op.scope
    while scope.parent is not None:
        scope = scope.parent
    return scope


# --- normalisation of each sample by itself ------------------------------------------------------------------


def _is_by_sample(graph: Graph, op: Op) -> bool:
    """Whether a training-mode node stands behind a Reshape that makes a batch of one of several samples."""
    x = op.input(0)
    reshape, shape = (x.producer, graph.shape(x)) if x is not None else (None, None)
    if reshape is None or reshape.type != "Reshape" or not shape or len(shape) < _LEAST_RANK or shape[0] != 1:
        return False
    if any(value is not None and value.readers for value in op.outputs[1:]) or not _has_one_type(graph, op):
        return False
    given = graph.shape(reshape.data(0))
    samples = fixed_batch(inputs_of(graph))
    if given and isinstance(given[0], int) and given[0] > 1 and samples in (None, given[0]):
        return isinstance(shape[1], int) and shape[1] % given[0] == 0
    readers = [use.op for use in op.output.readers]
    return bool(given and readers) and all(
        reader.type == "Reshape" and graph.shape(reader.output) == given for reader in readers
    )


def _has_one_type(graph: Graph, op: Op) -> bool:
    """As an InstanceNormalization wants it: float16, float32 or float64."""
    kinds = {graph.dtype(op.data(index)) for index in (0, batchnorm.GAMMA, batchnorm.BETA)} - {None}
    return len(kinds) <= 1 and all(kind is not None and kind.name in _TYPES for kind in kinds)


def _about(graph: Graph, by_sample: list[Op]) -> str:
    """Says what they are.

    Raises:
        CalibrationError: there is nothing else.
    """
    names = ", ".join(op.label for op in by_sample)
    each = "normalises" if len(by_sample) == 1 else "normalise"
    what = f"{names} {each} each sample by itself, a Reshape having put the samples into the channels"
    if len(by_sample) == sum(map(batchnorm.is_batchnorm, graph.ops())):
        raise CalibrationError(
            f"nothing to calibrate: {what}; that is InstanceNormalization, which has no statistics. Leave the model as "
            "it is, or export it with InstanceNormalization"
        )
    return f"{what}: now as InstanceNormalization, which computes the same and has no statistics"


def _to_instance_normalization(graph: Graph, op: Op) -> None:
    to_inference(graph, op)
    for index in (batchnorm.MEAN, batchnorm.VAR):
        graph.set_input(op, index, None)
    op.node.op_type = "InstanceNormalization"
    del op.node.input[3:]
    op.inputs = op.inputs[:3]
    keep = [attribute for attribute in op.node.attribute if attribute.name == "epsilon"]
    del op.node.attribute[:]
    op.node.attribute.extend(keep)
