"""What a value holds when it holds the same in every run.

A value is constant when it does not depend on the *values* of any input: an initializer, a Constant node, and
what is computed from those. A dependence on an input's type or static shape is none: torch writes biases as
``Expand(CastLike(0, x), Shape(W))``.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cached_property
from math import prod
from typing import Any

import numpy as np
import onnx

from bnfold.graph.arrays import SMALL, Evaluated, Sparse, Stored, is_float
from bnfold.graph.evaluate import (
    EVALUATORS,
    MAX_ELEMENTS,
    Evaluator,
    NotEvaluated,
    TooLarge,
    cast,
    inputs_read,
    saturates,
)
from bnfold.graph.facts import Array, Constant, Dim
from bnfold.graph.op import Index, Op, Value
from bnfold.graph.quantization import ZERO_POINT, Dequantized, Grid, Quantized, is_dequantize, is_quantize
from bnfold.memo import Memo
from bnfold.model_io.tensors import all_tensors, holds_real_numbers, type_name
from bnfold.reasons import Refused

_NOT_REAL = "cOSU"  # kinds of numpy's types: complex, and text
_MOST_TIMES = 16  # a constant of the largest size is computed on the way to another
_RECENT = 1 << 26  # bytes of large constants that were computed a moment ago: several questions are asked of one
_MAX_DEPTH = 64  # operators between an initializer and its reader


class Constants:
    """The constants of a graph, each resolved once."""

    def __init__(self, index: Index, *, inputs_are_constant: bool) -> None:
        self._index = index
        self._inputs_are_constant = inputs_are_constant
        self._known: dict[Value, Constant | None] = {}
        self._pending: set[Value] = set()
        self._recent = Memo(_RECENT)
        self.too_large: set[Value] = set()
        training = index.model.proto.training_info  # names initializers that a training step assigns to
        bindings = [binding for info in training for binding in (*info.update_binding, *info.initialization_binding)]
        self.trained = {binding.key for binding in bindings}

    def may_be_given(self, *, in_body: bool) -> bool:
        """Whether an initializer that is an input as well is only a default; a Loop gives all inputs of its body."""
        return in_body or not self._inputs_are_constant

    def of(self, value: Value) -> Constant | None:
        """The constant behind a value, None if there is none."""
        if value in self._known:
            return self._known[value]
        # a kernel may be computed from the shape of what it is applied to, which may be known by the kernel alone
        if value in self._pending or len(self._pending) > _MAX_DEPTH:
            return None
        self._pending.add(value)
        try:
            constant = self._resolve(value)
        except TooLarge:
            constant = None
            self.too_large.add(value)
        except (NotEvaluated, Refused, ArithmeticError, LookupError, TypeError, ValueError):  # does not fit its inputs
            constant = None
        finally:
            self._pending.remove(value)
        self._known[value] = constant
        return constant

    def set(self, value: Value, constant: Constant) -> None:
        self._known[value] = constant

    def forget_all(self) -> None:
        """To be called when the graph is given up; constants that were given out stay good."""
        self._known.clear()
        self._recent.clear()

    def ask_again(self) -> None:
        """To be called when more shapes are known: what was not constant may be so now."""
        self._known = {value: constant for value, constant in self._known.items() if constant is not None}

    def forget(self, op: Op) -> None:
        """To be called when an input of an op, or what it holds, has changed."""
        for value in op.outputs:
            if value is not None and self._known.get(value) is not None:
                del self._known[value]
                for use in value.readers:
                    self.forget(use.op)

    def _resolve(self, value: Value) -> Constant | None:
        if value.tensor is not None:
            return self._stored(value.tensor) if self._is_fixed(value) else None
        if value.sparse is not None:
            return self._sparse(value.sparse) if self._is_fixed(value) else None
        if value.is_input or value.producer is None or value.producer.shadowed or value.index:
            return None
        if value.producer.type == "Constant":
            return self._constant_node(value.producer)
        if value.producer.type == "Shape":
            return self._shape_node(value.producer)
        if value.producer.type == "Gather" and (sizes := self._gathered_sizes(value.producer)) is not None:
            return sizes
        if is_dequantize(value.producer) or is_quantize(value.producer):
            return self._on_grid(value.producer)
        evaluator = EVALUATORS.get(value.producer.type)
        return None if evaluator is None else self._evaluate(value.producer, evaluator)

    def _is_fixed(self, initializer: Value) -> bool:
        in_body = initializer.scope.parent is not None
        if initializer.is_input and self.may_be_given(in_body=in_body):
            return False
        return in_body or initializer.name not in self.trained

    def _evaluate(self, op: Op, evaluator: Evaluator) -> Constant | None:
        inputs: list[Callable[[], Array]] = []
        previews: list[Array] = []
        cost = 0
        for index, value in enumerate(inputs_read(op)):
            if value is None:
                return None
            constant = self.of(value)
            if constant is None and op.type == "CastLike" and index == 1:
                constant = self._of_same_type(value)
            if constant is None:
                if value in self.too_large:
                    raise TooLarge
                return None
            cost += _cost(constant)
            inputs.append(_reader(constant))
            # one that may refuse what it reads has to do so now
            previews.append(_preview(constant) if saturates(op) else constant.array())
        with np.errstate(all="ignore"):
            preview = evaluator(op, previews)
        if preview.dtype.kind in _NOT_REAL:
            return None
        # what is large is evaluated again for each reader, and those of its readers again for each of theirs
        cost += preview.size
        if preview.size > self.most or cost > _MOST_TIMES * self.most:
            raise TooLarge
        if op.type == "CastLike":  # its target is read in float64, as every constant is
            return Evaluated(
                preview, lambda: cast(inputs[0](), preview.dtype, saturates=saturates(op)), cost, self._recent
            )
        return Evaluated(preview, lambda: evaluator(op, [read() for read in inputs]), cost, self._recent)

    @cached_property
    def most(self) -> int:
        """Elements of a constant that the model does not store: as many as of all that it stores, and some anyway."""
        stored: int = sum(prod(tensor.dims) for tensor in all_tensors(self._index.model.proto))
        return max(MAX_ELEMENTS, stored)

    def _of_same_type(self, value: Value) -> Constant | None:
        dtype = self._index.dtype(value)
        return None if dtype is None else _given(np.zeros((), dtype))

    def _shape_node(self, op: Op) -> Constant | None:
        sizes = self._sizes(op)
        return None if sizes is None else _if_known(np.array(sizes, object))

    def _gathered_sizes(self, op: Op) -> Constant | None:
        """What a Gather takes out of a Shape, where other sizes need not be known."""
        shape = op.data(0).producer
        indices = self.of(op.data(1))
        if shape is None or shape.type != "Shape" or indices is None or prod(indices.shape) > SMALL:
            return None
        sizes = self._sizes(shape)
        if sizes is None:
            return None
        taken = np.take(np.array(sizes, object), indices.array())
        return _if_known(np.asarray(taken, object))  # one that is taken alone comes as no array

    def _sizes(self, op: Op) -> Sequence[Dim] | None:
        """What a Shape gives."""
        value = op.data(0)
        constant = self.of(value)
        shape = constant.shape if constant else self._index.shape(value)
        return None if shape is None else shape[op.attribute("start", 0) : op.attribute("end", len(shape))]

    def _on_grid(self, op: Op) -> Constant | None:
        known = [self.of(value) if value is not None else None for value in op.inputs]
        base, scale, zero_point = (*known, None)[:3]
        if base is None or scale is None or (zero_point is None and op.input(ZERO_POINT) is not None):
            return None
        grid = Grid(op, base.shape, scale, zero_point)
        return Dequantized(base, grid) if is_dequantize(op) else Quantized(base, grid)

    def _constant_node(self, op: Op) -> Constant | None:
        if len(op.node.attribute) != 1:  # not valid: which of them counts, runtimes decide
            return None
        for name in ("value_float", "value_floats", "value_int", "value_ints"):
            value = op.attribute(name)
            if value is not None:
                return _given(np.asarray(value, np.float32 if "float" in name else np.int64))
        if (sparse := op.attribute("sparse_value")) is not None:
            return self._sparse(sparse)
        tensor = op.attribute("value")
        return None if tensor is None else self._stored(tensor)

    def _stored(self, tensor: onnx.TensorProto) -> Constant | None:
        if not holds_real_numbers(tensor):
            return None
        payload = self._index.model.payload(tensor)
        made: Constant | None = getattr(payload, "constant", None)  # by an earlier fold: exact, until it is written
        return Stored(self._index.model, tensor) if made is None else made

    def _sparse(self, sparse: onnx.SparseTensorProto) -> Constant | None:
        if prod(sparse.dims) > self.most:
            raise TooLarge
        return Sparse(self._index.model, sparse) if holds_real_numbers(sparse.values) else None


def _given(array: Array) -> Evaluated:
    return Evaluated(array, lambda: array)


def _if_known(sizes: Array) -> Evaluated | None:
    """Sizes as a constant, if there is a number for each."""
    known = all(isinstance(size, int) for size in np.ravel(sizes))
    return _given(np.asarray(sizes, np.int64)) if known else None


def _cost(constant: Constant) -> int:
    """Elements to be computed each time that a constant is read."""
    size = prod(constant.shape)
    return constant.cost if isinstance(constant, Evaluated) and size > SMALL else size


def _reader(constant: Constant) -> Callable[[], Array]:
    if isinstance(constant, Evaluated):
        return constant.values
    return constant.float64 if is_float(constant.dtype) else constant.array


def _preview(constant: Constant) -> Array:
    """An array of the constant's type and shape; of its values too where that is cheap."""
    if np.prod([float(size) for size in constant.shape]) <= SMALL:
        return constant.array()
    return np.broadcast_to(np.zeros((), constant.dtype), constant.shape)


def cast_type(op: Op) -> np.dtype[Any] | None:
    """The type that a Cast or a CastLike gives; None for other operators, and where it is not known."""
    if op.type == "CastLike":
        return op.graph.dtype(op.data(1))
    number = op.attribute("to") if op.type == "Cast" else 0
    return np.dtype(onnx.helper.tensor_dtype_to_np_dtype(number)) if number and type_name(number) else None
