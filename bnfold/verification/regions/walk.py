"""The shapes of a model's values for given shapes of its inputs, one operator after the other.

Where every size is a number one pass will do: what a model computes of sizes is known when it is reached. Inference of
the whole model computes none of it, so it has to be asked again behind every Reshape.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from math import prod

import numpy as np
from onnx import TensorProto, TypeProto, helper, numpy_helper

from bnfold.graph import Graph, Op, Value
from bnfold.graph.evaluate import EVALUATORS, NotEvaluated
from bnfold.graph.facts import FEW_SIZES, Array, shape_of
from bnfold.graph.notes import types_made
from bnfold.model_io.tensors import STANDARD_DOMAINS, holds_real_numbers
from bnfold.verification.float64.evaluate import CannotEvaluate, Evaluator
from bnfold.verification.float64.kernel import as_real
from bnfold.verification.float64.kernels import RANDOM

Shape = tuple[int, ...]


def walked(graph: Graph, inputs: Mapping[str, Shape], evaluator: Evaluator) -> tuple[dict[Value, Shape], bool]:
    """The shapes of values outside bodies, as far as this can tell them, and whether an operator refused what it got.

    Args:
        graph: The model.
        inputs: The shapes of its inputs.
        evaluator: Evaluates the model's operators.
    """
    walk = _Walk(graph, inputs, evaluator)
    is_refused = False
    for op in graph.main.live_ops():
        try:
            walk.step(op)
        except _Unknown:
            pass
        except Exception:  # of a shape that does not fit inference and numpy have many
            is_refused = True
            break
    return {value: shape for value in walk.types if (shape := walk.shape(value)) is not None}, is_refused


class _Unknown(Exception):
    """Nothing is known of what an operator makes."""


class _Walk:
    """One pass.

    Attributes:
        types: The types of values.
    """

    def __init__(self, graph: Graph, inputs: Mapping[str, Shape], evaluator: Evaluator) -> None:
        self._model, self._evaluator = graph.model, evaluator
        self._numbers: dict[
            Value, Array
        ] = {}  # of short lists of sizes, mostly; in float64 where they are floating-point
        given = {entry.name: entry.type for entry in graph.model.proto.graph.input}
        self.types: dict[Value, TypeProto] = {
            graph.main.own(name): _typed(given[name].tensor_type.elem_type, shape) for name, shape in inputs.items()
        }
        self._open = {graph.main.own(name) for name in given} - self.types.keys()

    def shape(self, value: Value) -> Shape | None:
        sizes = shape_of(self.types[value])
        known = tuple(size for size in sizes or () if isinstance(size, int))
        return known if sizes is not None and len(known) == len(sizes) else None

    def step(self, op: Op) -> None:
        """Finds out what an operator makes.

        Raises:
            _Unknown: That cannot be told.
            Exception: It does not take what it gets.
        """
        if op.bodies or op.type in RANDOM or op.node.domain not in STANDARD_DOMAINS:
            raise _Unknown
        if op.type == "Constant" and (tensor := op.attribute("value")) is not None:
            self._store(op.outputs[0], tensor)
            return
        types = {value.name: self._type(value) for value in op.inputs if value is not None}
        self._infer(op, types)
        for value, array in self._computed(op).items():
            self.types[value] = _typed(self.types[value].tensor_type.elem_type, array.shape)
            self._numbers[value] = array

    def _type(self, value: Value) -> TypeProto:
        if value not in self.types:
            if value.producer is not None or value in self._open:  # one that a caller may give
                raise _Unknown
            self._store(value, value.tensor)
        return self.types[value]

    def _store(self, value: Value | None, tensor: TensorProto | None) -> None:
        """A constant of the file."""
        if value is None or tensor is None:
            raise _Unknown
        self.types[value] = _typed(tensor.data_type, tensor.dims)
        if prod(tensor.dims) <= FEW_SIZES and holds_real_numbers(tensor):
            array = self._model.array(tensor)
            self._numbers[value] = array.astype(as_real(array.dtype), copy=False)

    def _infer(self, op: Op, types: Mapping[str, TypeProto]) -> None:
        data = {
            value.name: numpy_helper.from_array(self._numbers[value].astype(_dtype(self.types[value])))
            for value in op.inputs
            if value in self._numbers
        }
        found = types_made(op.node, op.opset, types, data)
        if not found:
            raise _Unknown
        for value in op.outputs:
            if value is not None and value.name in found:
                self.types[value] = found[value.name]
                if min(self.shape(value) or (), default=0) < 0:  # so inference calls a window that does not fit
                    raise ValueError(f"{op.label} makes a size below zero")

    def _computed(self, op: Op) -> dict[Value, Array]:
        """What an operator makes of a few numbers, or of a shape."""
        value = op.outputs[0]
        if op.type == "Shape" and value is not None and (sizes := self.shape(op.data(0))) is not None:
            return {value: np.array(sizes[op.attribute("start", 0) : op.attribute("end", len(sizes))], np.int64)}
        if not all(read in self._numbers for read in op.inputs if read is not None):
            return {}
        made = [output for output in op.outputs if output is not None]
        if any((shape := self.shape(output)) is None or prod(shape) > FEW_SIZES for output in made):
            return {}
        known = {read: self._numbers[read] for read in op.inputs if read is not None}
        reads = [known[read] for read in op.inputs if read is not None]
        if op.type in EVALUATORS and value is not None and all(array.dtype == np.int64 for array in reads):
            with suppress(NotEvaluated):
                array = np.asarray(EVALUATORS[op.type](op, reads))
                return {value: array.astype(as_real(array.dtype), copy=False)}
        try:
            arrays = self._evaluator.trace([op], known)
        except CannotEvaluate:
            return {}
        return {output: arrays[output] for output in made if isinstance(arrays.get(output), np.ndarray)}


def _typed(elem_type: int, shape: Shape) -> TypeProto:
    return helper.make_tensor_type_proto(elem_type, shape)


def _dtype(kind: TypeProto) -> np.dtype[np.generic]:
    return np.dtype(helper.tensor_dtype_to_np_dtype(kind.tensor_type.elem_type))
