"""Weights and biases behind DequantizeLinear: an affine changes the steps of their grid, not their integers.

    s · (q - z) · step  =  (q - z) · (s step)

A rule asks for a new weight here as it does anywhere; ``requantized`` turns that into edits of the DequantizeLinear.
Where s is negative, q is mirrored at the zero point, and where s is zero, q becomes the zero point, so that steps
stay positive. Behind a QuantizeLinear (training with quantization in mind) the float weight is scaled together with
its grid, and the integers come out the same. A bias is rounded to a new step, which stays the product of the steps of
data and weight where it was that: runtimes take it for granted.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np

from bnfold.affine import Affine, FloatArray
from bnfold.graph import Op, Quantized, is_dequantize, is_quantize
from bnfold.graph.quantization import SCALE, X
from bnfold.ops.grids import OnGrid, narrowed, on_grid, refuse_if_shared, refused, varying, with_steps
from bnfold.ops.rule import Assign, Edit, OpRule, Step
from bnfold.ops.weights import Exact, Given, Mirrored, Nudged, Scaled

_WEIGHT, _BIAS = 1, 2
_CHANNELS = {"Conv": 0, "ConvTranspose": 1, "Gemm": 1, "MatMul": -1}  # the weight's axis of output channels
_ROUNDING = 1e-6  # relative; a bias's step is a product of two float32 numbers
_INT32_MAX = np.iinfo(np.int32).max


def requantized(edits: Iterable[Edit]) -> list[Edit]:
    """The same edits, those of weights and biases behind a DequantizeLinear carried out on their grids.

    Raises:
        Refused: its integers would have to change, or a grid cannot express the new values.
    """
    edits = list(edits)
    assigned = [edit for edit in edits if isinstance(edit, Assign)]
    grids = {edit: target for edit in assigned if (target := on_grid(edit.op, edit.index)) is not None}
    factors = {edit.op: _factor(edit, grids[edit]) for edit in grids if not _is_bias(edit)}
    result: list[Edit] = []
    for edit in edits:
        target = grids.get(edit) if isinstance(edit, Assign) else None
        if target is None or not isinstance(edit, Assign):
            result.append(edit)
        elif _is_bias(edit):
            result += _new_bias(edit, target, factors.get(edit.op))
        else:
            result += _new_weight(edit.op, target, factors[edit.op])
    return result


def _is_bias(edit: Assign) -> bool:
    return edit.index == _BIAS and edit.op.type in _CHANNELS


def _factor(edit: Assign, weight: OnGrid) -> FloatArray:
    """What a weight is to be multiplied by, with the axes that it has behind its DequantizeLinear."""
    if not isinstance(edit.constant, Scaled) or edit.op.type not in _CHANNELS:
        raise refused(edit.op, "its integers would have to change")
    return weight.own(edit.constant.factor)


# --- weights -------------------------------------------------------------------------------------------------


def _new_weight(op: Op, weight: OnGrid, factor: FloatArray) -> list[Edit]:
    grid, stored = weight.grid, weight.constant.stored
    steps = _scaled_steps(weight, factor)
    usual = {weight.perm[_channel_axis(op)]} | varying(narrowed(grid.scales))
    if varying(steps) - usual and _quantizes_data(op):
        raise refused(op, "where runtimes expect one step for each output channel")
    edits = with_steps(grid, steps)
    if isinstance(stored, Quantized):
        return edits + _new_float_weight(stored, weight, factor, steps)
    if (factor > 0).all():
        return edits
    mirrored = Mirrored(stored, factor, grid.zero_points)
    if not mirrored.is_exact():
        raise refused(op, "with a smallest integer that has no opposite")
    return [*edits, Assign(grid.op, X, mirrored)]


def _new_float_weight(stored: Quantized, weight: OnGrid, factor: FloatArray, steps: FloatArray) -> list[Edit]:
    """W' = s W, on the grid of its QuantizeLinear with steps scaled by the magnitude of s."""
    grid = stored.grid
    refuse_if_shared(grid.op.output)
    if not _are_equal(grid.scales, weight.grid.scales) or not _are_equal(grid.zero_points, weight.grid.zero_points):
        raise refused(grid.op, "on another grid than DequantizeLinear reads it from")
    nudged = Nudged(stored, factor, steps)
    if not nudged.is_exact():
        raise refused(grid.op, "and its integers would change")
    return [*with_steps(grid, steps), Assign(grid.op, X, nudged)]


def _scaled_steps(weight: OnGrid, factor: FloatArray) -> FloatArray:
    return narrowed(weight.grid.scales * np.where(factor == 0, 1.0, np.abs(factor)))


def _are_equal(left: FloatArray, right: FloatArray) -> bool:
    return np.array_equal(narrowed(left), narrowed(right))


# --- biases --------------------------------------------------------------------------------------------------


def _new_bias(edit: Assign, bias: OnGrid, factor: FloatArray | None) -> list[Edit]:
    """The nearest multiples of the new step."""
    grid, stored = bias.grid, bias.constant.stored
    if stored.dtype != np.int32 or len(grid.shape) != 1 or edit.constant.shape != grid.shape or grid.zero_points.any():
        raise refused(edit.op, "as a bias of another form than int32 and one for each channel")
    steps = narrowed(_bias_steps(edit.op, bias, factor))
    edits = with_steps(grid, steps)
    written = Exact(steps, grid.scale.dtype).array().astype(np.float64)
    integers = np.rint(edit.constant.float64() / written)
    if not (np.abs(integers) <= _INT32_MAX).all():
        raise refused(edit.op, "and its new bias is too large for int32")
    return [*edits, Assign(grid.op, X, Given(integers.astype(np.int32)))]


def _bias_steps(op: Op, bias: OnGrid, factor: FloatArray | None) -> FloatArray:
    """The new step for each output channel: that of the data times that of the weight, if it was that."""
    weight = on_grid(op, _WEIGHT)
    if weight is None:
        raise refused(op, "as a bias beside a weight that is not")
    before = _per_channel(op, weight, narrowed(weight.grid.scales))
    after = before if factor is None else _per_channel(op, weight, _scaled_steps(weight, factor))
    data = _step_of_data(op)
    if data is not None and np.allclose(bias.grid.scales, data * before, rtol=_ROUNDING, atol=0):
        return data * after
    if _quantizes_data(op):
        raise refused(op, "as a bias on another grid than runtimes expect")
    return np.asarray(bias.grid.scales * after / before)


def _per_channel(op: Op, weight: OnGrid, steps: FloatArray) -> FloatArray:
    """Steps of a weight, one for each output channel, or one for all."""
    in_groups = op.type == "ConvTranspose" and op.attribute("group", 1) > 1
    if in_groups or varying(steps) - {weight.perm[_channel_axis(op)]}:
        raise refused(op, "as a bias beside steps that are not one for each output channel")
    return steps.reshape(-1)


def _channel_axis(op: Op) -> int:
    return 0 if op.type == "Gemm" and op.attribute("transB", 0) else _CHANNELS[op.type]


def _step_of_data(op: Op) -> float | None:
    """The step of quantized data that an op reads, if it is one for all."""
    producer = op.data(0).producer
    if producer is None or not is_dequantize(producer):
        return None
    scale = producer.graph.constant(producer.data(SCALE))
    return float(scale.float64().reshape(())) if scale is not None and np.prod(scale.shape) == 1 else None


def _quantizes_data(op: Op) -> bool:
    """Whether data is quantized in this model, so that a runtime may join what stands between two roundings."""
    graph = op.graph
    return any(is_quantize(other) and graph.constant(other.data(X)) is None for other in graph.ops())


# --- quantized data ------------------------------------------------------------------------------------------


def stays_on_its_grid(op: Op, _index: int, _affine: Affine) -> Sequence[Step]:
    """Data that was rounded to one grid would be rounded to another."""
    raise refused(op, "and the affine would move its values off their grid")


_PASSES_NOTHING = OpRule(lift=stays_on_its_grid, sink=stays_on_its_grid)
RULES: dict[str, OpRule] = {
    f"{domain}{op_type}": _PASSES_NOTHING
    for domain in ("", "com.microsoft::")
    for op_type in (
        "QuantizeLinear",
        "DequantizeLinear",
        "DynamicQuantizeLinear",
        "QLinearConv",
        "QLinearMatMul",
        "QLinearAdd",
        "QGemm",
        "ConvInteger",
        "MatMulInteger",
    )
}
