"""Shapes that a model computes: Shape, Gather, Slice, Concat, … down to the target of a Reshape.

ONNX's shape inference follows these only from opset 13 on, and not through every operator; exports of older opsets
are full of them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from math import prod

import numpy as np
import numpy.typing as npt

from bnfold.graph.evaluate import EVALUATORS, NotEvaluated
from bnfold.graph.facts import FEW_SIZES, Dim, Shape
from bnfold.graph.op import Index, Op, Value
from bnfold.reasons import Refused

Objects = npt.NDArray[np.object_]
_MAX_DEPTH = 32
_MOVES = frozenset({"Gather", "Slice", "Concat", "Unsqueeze", "Squeeze", "Identity", "Cast", "Reshape"})


def shape_after(index: Index, reshape: Op) -> Shape | None:
    """The shape that a Reshape makes, as far as those that it is computed from are known; None without a rank.

    The number of elements stays, so the one size that is unknown is what the others leave: of ``[batch, 196, 256]``
    made into ``[batch, 196, 4, ?]`` the last one is 64.
    """
    try:
        source = index.shape(reshape.data(0))
        copies = not reshape.attribute("allowzero", 0)
        target = _dims_of(index, reshape.data(1), 0)
    except Refused:  # a node on the way lacks something
        return None
    if target is None or target.ndim != 1:
        return None
    sizes: list[Dim] = []
    for axis, size in enumerate(target.tolist()):
        if size == 0 and copies:
            sizes.append(source[axis] if source is not None and axis < len(source) else None)
        else:
            sizes.append(size if size != -1 else None)
    if source is not None and sizes.count(None) == 1:
        sizes[sizes.index(None)] = _left_by(source, sizes)
    return tuple(sizes)


def _left_by(source: Shape, sizes: Sequence[Dim]) -> Dim:
    """What a shape's number of elements leaves for the one size that is None."""
    if None in source or 0 in (*source, *sizes):
        return None
    names = Counter(size for size in source if isinstance(size, str))
    taken = Counter(size for size in sizes if isinstance(size, str))
    elements, others = (prod(size for size in each if isinstance(size, int)) for each in (source, sizes))
    left = [*(names - taken).elements()]
    if taken - names or elements % others:
        return None
    if left:
        return left[0] if len(left) == 1 and elements == others else None
    return elements // others


def _dims_of(index: Index, value: Value, depth: int) -> Objects | None:
    """The elements of an integer value, as an array of ints, names of symbolic sizes, and None."""
    constant = index.constant(value)
    if constant is not None:
        is_list = constant.dtype.kind == "i" and prod(constant.shape) <= FEW_SIZES
        return constant.array().astype(object) if is_list else None
    op = value.producer
    if op is None or depth > _MAX_DEPTH:
        return None
    if op.type == "Shape":
        shape = index.shape(op.data(0))
        return None if shape is None else _objects(shape[op.attribute("start", 0) : op.attribute("end", len(shape))])
    dims = _moved(index, op, depth) if op.type in _MOVES else None
    return _unknown(index.shape(value)) if dims is None else dims


def _unknown(shape: Shape | None) -> Objects | None:
    """So many unknown elements."""
    sizes = [size for size in shape or () if isinstance(size, int)]
    is_known = shape is not None and len(sizes) == len(shape) and prod(sizes) <= FEW_SIZES
    return np.full(sizes, None, object) if is_known else None


def _moved(index: Index, op: Op, depth: int) -> Objects | None:
    """Operators that only move elements move names of sizes as well."""
    inputs = []
    for value in op.inputs:
        dims = None if value is None else _dims_of(index, value, depth + 1)
        if dims is None:
            return None
        inputs.append(dims)
    if op.type == "Cast":
        return inputs[0]
    try:
        settings = [dims if op.type == "Concat" else dims.astype(np.int64) for dims in inputs[1:]]
        # numpy takes a single name out of its array
        return np.asarray(EVALUATORS[op.type](op, [inputs[0], *settings]), object)
    except (NotEvaluated, ArithmeticError, LookupError, TypeError, ValueError):
        return None


def _objects(shape: tuple[Dim, ...]) -> Objects:
    array = np.empty(len(shape), object)
    array[:] = shape
    return array
