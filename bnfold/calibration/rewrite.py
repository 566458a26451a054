"""The calibrated model: new statistics, and nothing of training mode left."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from onnx import helper, numpy_helper

from bnfold import batchnorm
from bnfold.affine import FloatArray
from bnfold.calibration.measuring.targets import ALL, Selection, Target, drops, stop_dropping, survey
from bnfold.graph import Graph, Op, Value
from bnfold.graph.cleanup import drop_stale_notes, remove_dead
from bnfold.graph.mentions import follow_rename
from bnfold.model_io import Model
from bnfold.model_io.tensors import copy_notes

_INITIALIZERS_ARE_INPUTS_BELOW_IR = 4


def with_statistics(
    model: Model, mean: Sequence[FloatArray], var: Sequence[FloatArray], selection: Selection = ALL
) -> Model:
    """A copy of the model with these statistics, in inference mode.

    Args:
        model: the model that was measured.
        mean: of each target, in the order of `survey`, as `Target.stored` gives it.
        var: likewise.
        selection: which were measured.
    """
    result = model.copy()
    graph = Graph(result, assume_constant=True)
    for target, *statistics in zip(survey(graph, selection).targets, mean, var, strict=True):
        for index, values in zip((batchnorm.MEAN, batchnorm.VAR), statistics, strict=True):
            _store(graph, target, index, values, target.type_of(*statistics))
        to_inference(graph, target.op)
    end_dropping(graph)
    finish(graph)
    return result


def end_dropping(graph: Graph) -> None:
    """Puts every Dropout in inference mode."""
    for op in graph.ops():
        if drops(op):
            for index in range(len(stop_dropping(op)), len(op.inputs)):
                graph.set_input(op, index, None)
            del op.node.input[len(stop_dropping(op)) :]


def _store(graph: Graph, target: Target, index: int, values: FloatArray, dtype: np.dtype[Any]) -> None:
    put(graph, target.op, index, values.astype(dtype), f"{target.name}_{'mean' if index == batchnorm.MEAN else 'var'}")


def put(graph: Graph, op: Op, index: int, array: npt.NDArray[Any], hint: str) -> None:
    """Makes an array the constant at an input: by its old name, if nobody else reads it and type and shape stay."""
    old = op.input(index)
    tensor = None if old is None or len(old.readers) > 1 or old.is_output else old.tensor
    kind = helper.np_dtype_to_tensor_dtype(array.dtype), array.shape
    if tensor is not None and (tensor.data_type, tuple(tensor.dims)) == kind:
        stored = numpy_helper.from_array(array, tensor.name)
        copy_notes(stored, tensor)
        tensor.CopyFrom(stored)
        return
    graph.set_input(op, index, constant(graph, op, hint, array))


def constant(graph: Graph, op: Op, hint: str, array: npt.NDArray[Any]) -> Value:
    """A new initializer of the graph of an op."""
    value = op.scope.own(graph.fresh_name(hint))
    op.scope.proto.initializer.append(numpy_helper.from_array(array, value.name))
    value.tensor = op.scope.proto.initializer[-1]
    if graph.model.proto.ir_version < _INITIALIZERS_ARE_INPUTS_BELOW_IR:
        kind = helper.np_dtype_to_tensor_dtype(array.dtype)
        op.scope.proto.input.append(helper.make_tensor_value_info(value.name, kind, array.shape))
        value.is_input = True
    return value


def to_inference(graph: Graph, op: Op) -> None:
    """One output, no training attribute; the statistics that were outputs of the graph are none any more."""
    if not batchnorm.is_training(op):
        return
    gone = {value.name for value in op.outputs[1:] if value is not None}
    outputs = graph.main.proto.output
    for index in reversed([i for i, entry in enumerate(outputs) if entry.name in gone]):
        del outputs[index]
    for name in gone:
        follow_rename(op.node, name, "")
    op.outputs, op.scope.is_edited = op.outputs[:1], True
    del op.node.output[1:]
    keep = [attribute for attribute in op.node.attribute if attribute.name not in ("training_mode", "is_test")]
    del op.node.attribute[:]
    op.node.attribute.extend(keep)
    if op.opset < 7:  # there, inference mode is what has to be said
        op.node.attribute.add(name="is_test", i=1, type=2)
    op.forget_attributes()


def finish(graph: Graph) -> None:
    """Removes what edits left behind, and writes the model."""
    remove_dead(graph, keeps_inputs=True)
    drop_stale_notes(graph)
    graph.commit()
