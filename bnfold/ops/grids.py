"""Grids of quantized weights and biases: finding them behind an input, and giving them other steps."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from bnfold.affine import FloatArray
from bnfold.graph import Dequantized, Grid, Op, Value, is_dequantize
from bnfold.graph.quantization import SCALE, ZERO_POINT
from bnfold.ops.rule import Assign, Edit, SetAttribute
from bnfold.ops.weights import Exact, Given
from bnfold.reasons import Reason, Refused
from bnfold.rounding import FORMATS

_STEP_PER_INDEX_FROM = 13
_MAX_DEPTH = 64


@dataclass(frozen=True, eq=False)
class OnGrid:
    """A constant that a DequantizeLinear makes, and an input that reads it.

    ``perm[axis]`` is the constant's own axis where the input has ``axis``: a Transpose may stand between them.
    """

    constant: Dequantized
    perm: tuple[int, ...]

    @property
    def grid(self) -> Grid:
        return self.constant.grid

    def own(self, factor: FloatArray) -> FloatArray:
        """A factor of the input, with the axes of the constant."""
        whole = factor.reshape((1,) * (len(self.perm) - factor.ndim) + factor.shape)
        return narrowed(whole.transpose(np.argsort(self.perm)))


def on_grid(reader: Op, index: int) -> OnGrid | None:
    """What makes an input of an op, if that is a DequantizeLinear of a constant.

    Raises:
        Refused: something else reads it too, or an operator stands between that is not a Transpose.
    """
    value = reader.input(index)
    between: list[Op] = []
    for _ in range(_MAX_DEPTH):
        op = None if value is None or value.tensor is not None else value.producer
        if op is None:
            return None
        if is_dequantize(op):
            constant = op.graph.constant(op.output)
            return _seen_through(reader, constant, between) if isinstance(constant, Dequantized) else None
        between.append(op)
        value = op.input(0)
    return None


def _seen_through(reader: Op, constant: Dequantized, between: Sequence[Op]) -> OnGrid:
    perm = tuple(range(len(constant.shape)))
    for op in reversed(between):
        if op.type not in ("Transpose", "Identity"):
            raise refused(reader, f"behind a {op.type}")
        if op.type == "Transpose":
            perm = tuple(perm[axis] for axis in op.attribute("perm") or range(len(perm))[::-1])
    for op in (constant.grid.op, *between):
        refuse_if_shared(op.output)
    if constant.grid.block:
        raise refused(reader, "in blocks")
    return OnGrid(constant, perm)


def with_steps(grid: Grid, steps: FloatArray) -> list[Edit]:
    """The edits that give a QuantizeLinear or DequantizeLinear other steps, which have the rank of its tensor.

    Raises:
        Refused: they would have to vary along two axes, along one before opset 13, or are too small for their type.
    """
    op, points = grid.op, narrowed(grid.zero_points)
    steps = narrowed(steps)
    axes = varying(steps) | varying(points)
    if len(axes) > 1:
        raise refused(op, "with a step of its own for each pair of channels")
    axis = next(iter(axes), None)
    shape = grid.scale.shape if axis is None else (grid.shape[axis],)
    if shape != grid.scale.shape and not op.node.domain and op.opset < _STEP_PER_INDEX_FROM:
        raise refused(op, f"with a step of its own for each channel, at opset {op.opset}")
    scale = Exact(_in_shape(steps, shape), grid.scale.dtype)
    _refuse_imprecise(op, scale)
    edits: list[Edit] = [Assign(op, SCALE, scale)]
    if axis is not None and op.attribute("axis", 1) != axis:
        edits.append(SetAttribute(op, "axis", axis))
    if grid.zero_point is not None and grid.zero_point.shape != shape:
        edits.append(Assign(op, ZERO_POINT, Given(_in_shape(points, shape).astype(grid.zero_point.dtype))))
    return edits


def _refuse_imprecise(op: Op, scale: Exact) -> None:
    form = FORMATS.get(scale.dtype.name)
    if form is None:
        raise refused(op, f"with steps of {scale.dtype.name}")
    written, exact = scale.array().astype(np.float64), scale.float64()
    if not np.isfinite(written).all():
        raise Refused(Reason.OVERFLOW, op_type=op.type)
    bad = np.flatnonzero(np.abs(written - exact) > form.unit * exact)
    if bad.size:
        raise Refused(
            Reason.UNDERFLOW,
            op_type=op.type,
            channel=int(bad[0]),
            largest=f"{exact.flat[bad[0]]:.2g}",
            limit=f"{form.normal:.2g}",
            effect="its step loses digits",
        )


def _in_shape(aligned: FloatArray, shape: tuple[int, ...]) -> FloatArray:
    return np.full(shape, aligned.reshape(())) if aligned.size == 1 else aligned.reshape(shape)


# --- small questions -----------------------------------------------------------------------------------------


def varying(array: FloatArray) -> set[int]:
    """The axes of size above 1."""
    return {axis for axis, size in enumerate(array.shape) if size > 1}


def narrowed(array: FloatArray) -> FloatArray:
    """Size 1 along axes where all values are equal."""
    for axis, size in enumerate(array.shape):
        first = array.take([0], axis) if size else array
        if size > 1 and (array == first).all():
            array = first
    return array


def refuse_if_shared(value: Value) -> None:
    """A constant changes where it stands, so nothing else may read it."""
    if value.is_output:
        raise Refused(Reason.GRAPH_OUTPUT, value=value.name)
    if len(value.readers) != 1:
        raise Refused(Reason.BRANCHES, value=value.name, readers=len(value.readers))


def refused(op: Op, detail: str) -> Refused:
    """The refusal of an op whose operand is quantized in a way that does not fit."""
    return Refused(Reason.QUANTIZED, op_type=op.type, detail=detail)
