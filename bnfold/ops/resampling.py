"""Operators that make a larger or smaller grid of the values: Resize, Upsample, GridSample, Pad.

Every value that interpolation makes is a weighted sum with weights that sum to 1, so an affine commutes with it,
unless it varies along an axis that is resized. Padding with a constant commutes where the constant can follow.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from bnfold.affine import Affine, FloatArray
from bnfold.graph import Op
from bnfold.ops.rule import Assign, Edit, OpRule, SetAttribute, Step, passes, refuse_along, refuse_shift
from bnfold.ops.weights import Exact
from bnfold.reasons import Reason, Refused

_SPATIAL_FROM = 2


# --- Resize, Upsample ----------------------------------------------------------------------------------------


def interpolated(op: Op, affine: Affine) -> Affine:
    """Σ w (s x + t) = s Σ w x + t, as Σ w = 1"""
    if op.attribute("coordinate_transformation_mode") == b"tf_crop_and_resize":
        raise Refused(Reason.UNSUPPORTED, op_type=op.type, detail="it reads outside its input")
    refuse_along(op, affine, [axis for axis in affine.axes if _is_resized(op, axis, affine.rank)])
    return affine


def _is_resized(op: Op, axis: int, rank: int) -> bool:
    """Whether positions along an axis are mixed or moved. An axis of scale exactly 1 stays as it is."""
    if op.type == "Upsample" and op.opset < 7:  # height_scale, width_scale
        return axis >= _SPATIAL_FROM
    axes = [given % rank for given in op.attribute("axes", range(rank))]
    if axis not in axes:
        return False
    if _moves_at_scale_1(op):
        return True
    scales = _scales(op)
    if scales is not None:
        return bool(scales[axes.index(axis)] != 1)
    if op.attribute("keep_aspect_ratio_policy", b"stretch") != b"stretch":  # all axes get one common scale
        return True
    before, after = op.shape(0)[axis], op.graph.known_shape(op.output)[axis]
    if not isinstance(before, int) or not isinstance(after, int):
        raise Refused(Reason.SHAPE_UNKNOWN, value=op.output.name)
    return before != after


def _moves_at_scale_1(op: Op) -> bool:
    """One coordinate mode of opset 11 reads at i + 0.5 where i is meant, which only rounding down brings back."""
    if op.attribute("coordinate_transformation_mode") != b"tf_half_pixel_for_nn":
        return False
    rounding = op.attribute("nearest_mode", b"round_prefer_floor")
    return op.attribute("mode", b"nearest") != b"nearest" or rounding not in (b"round_prefer_floor", b"floor")


def _scales(op: Op) -> FloatArray | None:
    """The scales of the axes; None where sizes are given instead."""
    if op.type == "Upsample" and op.opset < 9:
        return np.asarray(op.attribute("scales"), np.float64)
    constant = op.optional_constant(1 if op.opset < 11 else 2)
    return None if constant is None or 0 in constant.shape else constant.float64()


# --- GridSample ----------------------------------------------------------------------------------------------


def sampled(op: Op, affine: Affine) -> Affine:
    """As Resize; zeros outside the input receive no shift."""
    refuse_along(op, affine, range(_SPATIAL_FROM, affine.rank))
    if op.attribute("padding_mode", b"zeros") == b"zeros":
        refuse_shift(op, affine)
    return affine


# --- Pad -----------------------------------------------------------------------------------------------------

_PADS, _VALUE, _AXES = 1, 2, 3
_PADS_ARE_AN_INPUT_FROM = 11
Pads = Mapping[int, tuple[int, int]]  # how much is added before and after, by axis; negative: cut off


def pad_lifts(op: Op, output: int, affine: Affine) -> Sequence[Step]:
    """A(pad(x, v)) = pad(A'(x), A(v)), where A' is A without what lies over the padding"""
    pads = _pads(op, affine)
    if not is_constant_mode(op):
        refuse_along(op, affine, pads)
        return [Step({0: affine})]
    inner = _padded(affine, {axis: (-before, -after) for axis, (before, after) in pads.items()})
    with np.errstate(invalid="ignore"):  # a scale of 0 and a padding of infinity
        values = affine(value_of(op))
    return [Step({0: inner}, _with_value(op, affine, pads, values))]


def pad_sinks(op: Op, index: int, affine: Affine) -> Sequence[Step]:
    """pad(A(x), v) = A'(pad(x, A'⁻¹(v))), where A' is A with the identity over padding along axes that A varies on"""
    pads = _pads(op, affine)
    if not is_constant_mode(op):
        refuse_along(op, affine, pads)
        return [Step({0: affine})]
    outer = _padded(affine, pads)
    with np.errstate(divide="ignore", invalid="ignore"):
        values = (value_of(op) - outer.shift) / outer.scale
    return [Step({0: outer}, _with_value(op, outer, pads, values))]


def is_constant_mode(op: Op) -> bool:
    """Whether a Pad puts one number around its input."""
    return bool(op.attribute("mode", b"constant") == b"constant")


def _pads(op: Op, affine: Affine) -> Pads:
    """The padded axes. Where the amounts are computed, every axis that they can be for counts as padded by one."""
    if op.opset >= _PADS_ARE_AN_INPUT_FROM and op.graph.constant(op.data(_PADS)) is None:
        axes = _axes(op, affine.rank)
        if not affine.axes & set(axes):
            return dict.fromkeys(axes, (1, 1))
    return pads_of(op, affine.rank)


def _axes(op: Op, rank: int) -> list[int]:
    """The axes that amounts are given for."""
    constant = op.optional_constant(_AXES) if op.opset >= _PADS_ARE_AN_INPUT_FROM else None
    return list(range(rank)) if constant is None else [int(axis) % rank for axis in constant.array()]


def pads_of(op: Op, rank: int) -> Pads:
    """How much a Pad adds before and after each axis that it changes."""
    axes = _axes(op, rank)
    if op.opset < _PADS_ARE_AN_INPUT_FROM:
        amounts = op.attribute("pads" if op.opset > 1 else "paddings")
    else:
        amounts = op.constant(_PADS).array().tolist()
    if len(amounts) != 2 * len(axes):
        raise Refused(Reason.MALFORMED, op_type=op.type, detail=f"{len(amounts)} pads for {len(axes)} axes")
    pairs = zip(amounts[: len(axes)], amounts[len(axes) :], strict=True)
    return {axis: pair for axis, pair in zip(axes, pairs, strict=True) if any(pair)}


def _padded(affine: Affine, pads: Pads) -> Affine:
    """The affine with the identity added on padded axes that it varies on, or cut off where the pads are negative."""
    varied = [pads.get(axis, (0, 0)) if axis in affine.axes else (0, 0) for axis in range(affine.rank)]
    added = [(max(before, 0), max(after, 0)) for before, after in varied]
    kept = tuple(slice(max(-before, 0), after if after < 0 else None) for before, after in varied)

    def pad(array: FloatArray, value: float) -> FloatArray:
        return np.pad(np.broadcast_to(array, affine.shape)[kept], added, constant_values=value)

    return Affine(pad(affine.scale, 1.0), pad(affine.shift, 0.0))


def value_of(op: Op) -> float:
    """The number that a Pad puts around its input."""
    if op.opset < _PADS_ARE_AN_INPUT_FROM:
        return float(op.attribute("value", 0.0))
    constant = op.optional_constant(_VALUE)
    return 0.0 if constant is None or 0 in constant.shape else float(constant.float64().reshape(-1)[0])


def _with_value(op: Op, outer: Affine, pads: Pads, values: FloatArray) -> list[Edit]:
    """The op padding with the one number of ``values`` wherever ``outer``, an affine of the output, meets padding."""
    meets = np.zeros(outer.shape, bool)
    for axis, (before, after) in pads.items():
        layers = np.moveaxis(meets, axis, 0)
        if len(layers) == 1:
            layers |= before > 0 or after > 0
        else:
            layers[: max(before, 0)] = layers[len(layers) - max(after, 0) :] = True
    met = np.broadcast_to(values, outer.shape)[meets]
    if not met.size or (met == value_of(op)).all():
        return []
    if (met != met[0]).any():
        raise Refused(Reason.NOT_UNIFORM, op_type=op.type)
    return [_new_value(op, float(met[0]))]


def _new_value(op: Op, value: float) -> Edit:
    if not abs(value) <= np.finfo(np.float32).max:
        raise Refused(Reason.NOT_FINITE, value=f"the padding of {op.label}")
    dtype = op.graph.dtype(op.data(0))
    if dtype is None:
        raise Refused(Reason.SHAPE_UNKNOWN, value=op.data(0).name)
    if op.opset >= _PADS_ARE_AN_INPUT_FROM:
        return Assign(op, _VALUE, Exact(np.asarray(value), dtype))
    if dtype == np.float64 and float(np.float32(value)) != value:
        raise Refused(Reason.UNSUPPORTED, op_type=op.type, detail="its padding is a float32")
    return SetAttribute(op, "value", value)


RULES: dict[str, OpRule] = {
    "Resize": passes(interpolated),
    "Upsample": passes(interpolated),
    "GridSample": passes(sampled),
    "Pad": OpRule(lift=pad_lifts, sink=pad_sinks, data_inputs=(0,)),
}
