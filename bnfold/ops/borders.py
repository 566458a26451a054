"""What is put around a value: a Pad, and what is written over the border that it makes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import prod

import numpy as np

from bnfold.affine import FloatArray
from bnfold.graph import Op
from bnfold.ops.kernels import Kernel, Pads, Window, shape_in_a_row
from bnfold.ops.linear import CHANNELS
from bnfold.ops.resampling import is_constant_mode, pads_of, value_of
from bnfold.reasons import Reason, Refused
from bnfold.rounding import FORMATS

BORDERS = frozenset({"Pad", "Transpose", "ScatterND"})
"""What a border may be made with."""
_INDICES, _UPDATES = 1, 2
_ROUNDINGS = 4  # of what the Conv makes: an exporter has computed the border in the type itself


@dataclass(frozen=True, eq=False)
class Border:
    """A border of so many positions, which holds one number for each channel.

    Attributes:
        pads: How wide it is before and after, on each spatial axis.
        values: What it holds: for each channel, or one number for all.
    """

    pads: Pads
    values: FloatArray


def border_of(ops: Sequence[Op]) -> Border:
    """What a Pad and the operators behind it put around a value.

    PyTorch writes over a border by turning one axis to the front, and back: Transpose, ScatterND, Transpose.

    Raises:
        Refused: they do something else.
    """
    pad, *others = ops
    rank = len(pad.shape()) if pad.type == "Pad" else 0
    pads = pads_of(pad, rank) if rank else {}
    if not pads or not is_constant_mode(pad) or min(pads) <= CHANNELS or min(map(min, pads.values())) < 0:
        raise Refused(Reason.UNSUPPORTED, op_type=pad.type, detail="it puts no border of numbers around a plane")
    by_axis = tuple(pads.get(axis, (0, 0)) for axis in range(CHANNELS + 1, rank))
    written = _written(others, list(range(rank)))
    if not written:
        return Border(by_axis, np.full(1, value_of(pad)))
    sides = {axis: _sides(pad, axis, around) for axis, around in pads.items()}
    values = [values for _, values in written.values()]
    if {axis: places for axis, (places, _) in written.items()} != sides or any(
        not np.array_equal(each, values[0]) for each in values
    ):
        raise Refused(Reason.UNSUPPORTED, op_type="ScatterND", detail="what it writes over is not the border")
    return Border(by_axis, values[0])


def _sides(pad: Op, axis: int, around: tuple[int, int]) -> set[int]:
    size = pad.graph.known_shape(pad.output)[axis]
    if not isinstance(size, int):
        raise Refused(Reason.SHAPE_UNKNOWN, value=pad.output.name)
    return {*range(around[0]), *range(size - around[1], size)}


def _written(ops: Sequence[Op], order: list[int]) -> dict[int, tuple[set[int], FloatArray]]:
    """For each axis, where operators write over it, and what, for each channel; ``order`` is that of the axes."""
    written: dict[int, tuple[set[int], FloatArray]] = {}
    for op in ops:
        match op.type:
            case "Transpose":
                order = [order[axis] for axis in op.attribute("perm") or range(len(order))[::-1]]
            case "ScatterND":
                places, values = _slabs(op, order)
                before, known = written.get(order[0], (set(), values))
                if not np.array_equal(known, values):
                    raise Refused(Reason.UNSUPPORTED, op_type=op.type, detail="it writes several values")
                written[order[0]] = (before | places, values)
            case _:
                raise Refused(Reason.UNSUPPORTED, op_type=op.type, detail="it is no border")
    if order != sorted(order):
        raise Refused(Reason.UNSUPPORTED, op_type="Transpose", detail="axes stay in another order")
    return written


def _slabs(scatter: Op, order: Sequence[int]) -> tuple[set[int], FloatArray]:
    """Where a ScatterND writes along the first axis, and the number that each channel gets."""
    indices, updates = scatter.constant(_INDICES).array(), scatter.constant(_UPDATES).float64()
    size = scatter.shape()[0]
    if indices.ndim != 2 or indices.shape[1] != 1 or scatter.attribute("reduction", b"none") != b"none":
        raise Refused(Reason.UNSUPPORTED, op_type=scatter.type, detail="it does not write whole slices")
    if not isinstance(size, int) or CHANNELS not in order[1:]:
        raise Refused(Reason.UNSUPPORTED, op_type=scatter.type, detail="it does not write a border")
    by_channel = np.moveaxis(updates, order.index(CHANNELS), 0).reshape(updates.shape[order.index(CHANNELS)], -1)
    if not by_channel.size or (by_channel != by_channel[:, :1]).any():
        raise Refused(Reason.UNSUPPORTED, op_type=scatter.type, detail="it writes several values for a channel")
    return {int(index) % size for index in indices.reshape(-1)}, by_channel[:, 0]


def bordered(kernel: Kernel, border: Border, outer: Kernel) -> Kernel:
    """pad(W*x + b, b)  =  W*pad(x, 0) + b, where W reads single positions

    Raises:
        Refused: it reads more, or the border holds something else than b, as far as ``outer`` can tell, which reads it.
    """
    if not kernel.is_point or not kernel.window.steps_by_one:
        raise Refused(Reason.UNSUPPORTED, op_type="Pad", detail="a window before it")
    form = FORMATS.get(kernel.dtype.name)
    shape_in_a_row(kernel, outer)  # or there are no weights for the channels
    off = np.abs(border.values - kernel.bias)
    # an exporter computes beta - mean * scale, which may cancel; the mean is of what W makes of data, of about 1
    size = np.abs(kernel.bias) + np.abs(kernel.weights()).reshape(len(kernel.bias), -1).sum(axis=1)
    if form is None or (off.any() and not _is_lost(off, _ROUNDINGS * form.unit * size, outer)):
        raise Refused(Reason.UNSUPPORTED, op_type="Pad", detail="its border is not what is made of zeros")
    return padded_by(kernel, border)


def _is_lost(off: FloatArray, rounding: FloatArray, outer: Kernel) -> bool:
    """Whether a kernel makes no more of what channels are off by than of their rounding."""
    reach = np.abs(outer.weights()).reshape(outer.groups, -1, outer.shape[1], prod(outer.taps)).sum(axis=-1)
    made, lost = (reach @ channels.reshape(outer.groups, -1, 1) for channels in (off, rounding))
    return bool((made <= lost).all())


def inside_zeros(border: Border, kernel: Kernel) -> Kernel:
    """W*pad(x, 0)  =  W'*x, of which the padding is as much wider

    Raises:
        Refused: the border holds something else.
    """
    if border.values.any():
        raise Refused(Reason.UNSUPPORTED, op_type="Pad", detail="its border is not zero")
    return padded_by(kernel, border)


def padded_by(kernel: Kernel, border: Border) -> Kernel:
    """The same weights with as much more padding."""
    if len(border.pads) != len(kernel.taps):
        raise Refused(Reason.UNSUPPORTED, op_type="Pad", detail="another rank")
    old = kernel.window
    pads = tuple((a + c, b + d) for (a, b), (c, d) in zip(old.pads, border.pads, strict=True))
    return replace(kernel, window=Window(old.strides, old.dilations, pads))
