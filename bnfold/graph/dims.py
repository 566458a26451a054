"""Shapes that a model computes: Shape, Gather, Slice, Concat, … down to the target of a Reshape.

ONNX's shape inference follows these only from opset 13 on, and not through every operator; exports of older opsets
are full of them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from bnfold.graph.evaluate import EVALUATORS, NotEvaluated
from bnfold.graph.op import Op, Value
from bnfold.reasons import Refused

if TYPE_CHECKING:
    from bnfold.graph.index import Graph
    from bnfold.graph.shapes import Dim

Objects = npt.NDArray[np.object_]
_MAX_DEPTH = 32
_MOVES = frozenset({"Gather", "Slice", "Concat", "Unsqueeze", "Squeeze", "Identity", "Cast", "Reshape"})


def reshape_target(graph: Graph, reshape: Op) -> list[int] | None:
    """The target of a Reshape: 0 for a size it copies, -1 for the one it leaves open; None if more are unknown."""
    try:
        if reshape.attribute("allowzero", 0):
            return None
        dims = _dims_of(graph, reshape.data(1), 0)
        source = graph.shape(reshape.data(0)) or ()
    except Refused:  # on the way there is a node that lacks something
        return None
    if dims is None or dims.ndim != 1:
        return None
    target = [
        size if isinstance(size, int) else 0 if size is not None and size in source[axis : axis + 1] else -1
        for axis, size in enumerate(dims.tolist())
    ]
    return target if target.count(-1) <= 1 else None


def _dims_of(graph: Graph, value: Value, depth: int) -> Objects | None:
    """The elements of an integer value, as an array of ints, names of symbolic sizes, and None."""
    constant = graph.constant(value)
    if constant is not None:
        return constant.array().astype(object) if constant.dtype.kind == "i" else None
    op = value.producer
    if op is None or depth > _MAX_DEPTH:
        return None
    if op.type == "Shape":
        shape = graph.shape(op.data(0))
        return None if shape is None else _objects(shape[op.attribute("start", 0) : op.attribute("end", len(shape))])
    return _moved(graph, op, depth) if op.type in _MOVES else None


def _moved(graph: Graph, op: Op, depth: int) -> Objects | None:
    """Operators that only move elements move names of sizes as well."""
    inputs = []
    for value in op.inputs:
        dims = None if value is None else _dims_of(graph, value, depth + 1)
        if dims is None:
            return None
        inputs.append(dims)
    settings = [dims if op.type == "Concat" else dims.astype(np.int64) for dims in inputs[1:]]
    if op.type == "Cast":
        return inputs[0]
    try:
        return EVALUATORS[op.type](op, [inputs[0], *settings])
    except (NotEvaluated, ArithmeticError, LookupError, TypeError, ValueError):
        return None


def _objects(shape: tuple[Dim, ...]) -> Objects:
    array = np.empty(len(shape), object)
    array[:] = shape
    return array
