"""How far the weights of a layer range from one output channel to another, before and after its fold.

A tensor that is quantised as a whole has one step for all channels: what its largest channel needs. Where the largest
magnitudes of channels are far apart, the smallest channels fall between two steps.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from math import inf, prod
from typing import Any

import ml_dtypes
import numpy as np
import numpy.typing as npt

from bnfold.affine import FloatArray
from bnfold.folding import Plan
from bnfold.graph import Constant, Op, Stored, is_float
from bnfold.model_io import ModelError
from bnfold.ops.weights import Scaled
from bnfold.report.bounds import MOST_WEIGHTS, Bounded, bounded
from bnfold.report.figures import Scale, sampled
from bnfold.report.twins import Twins

WIDENED = 4.0
"""Times as wide a spread as before is worth a warning."""
_LINEAR = ("Conv", "ConvTranspose", "Gemm", "MatMul")


@dataclass(frozen=True)
class Spread:
    """The largest magnitudes of the output channels of a weight.

    Attributes:
        largest: Of all channels.
        smallest: Of those that are not all zero.
        dead: Channels that are all zero.
        subnormal: Weights that are not zero, and smaller than any normal number of their type.
        curve: The largest magnitude of each channel, sorted, zeros left out; of many channels some.
    """

    largest: float
    smallest: float
    dead: int
    subnormal: int
    curve: tuple[float, ...]

    @property
    def ratio(self) -> float:
        return self.largest / self.smallest if self.smallest else 1.0


@dataclass(frozen=True)
class LayerSpread:
    """A layer that took an affine in.

    Attributes:
        name: Of the node.
        type: Its operator.
        channels: How many outputs it has.
        before: Its weight as it was.
        after: The same with what it took in.
    """

    name: str
    type: str
    channels: int
    before: Spread
    after: Spread

    @property
    def factor(self) -> float:
        return self.after.ratio / self.before.ratio

    @property
    def is_widened(self) -> bool:
        return self.factor > WIDENED


@dataclass(frozen=True)
class Spreads:
    """Those of a model.

    Attributes:
        layers: Those that widened most first.
        widened: How many are worth a warning.
        scale: For magnitudes.
        unread: How many layers' weights were not read, since they are too large together, or could not be.
    """

    layers: Bounded[LayerSpread]
    widened: int
    scale: Scale
    unread: int


def spreads(plan: Plan, twins: Twins) -> Spreads:
    """Measures the layers that took an affine in."""
    types = {answer.node: answer.op_type for entry in plan.entries for answer in entry.answers}
    names = dict.fromkeys(node for entry in plan.entries for node in entry.into)
    pairs = [
        (before, after)
        for name in names
        if types.get(name) in _LINEAR
        and (before := twins.before(name, types[name])) is not None
        and (after := twins.after(name, types[name])) is not None
    ]
    found, unread, left = [], 0, MOST_WEIGHTS
    for before, after in sorted(pairs, key=lambda pair: pair[0].place):
        weights = _weight(before), _weight(after)
        if weights[0] is None or weights[1] is None:
            continue
        left -= prod(weights[0][0].shape)
        try:
            layer = None if left < 0 else _layer(before, after, weights[0], weights[1])
        except ModelError:  # the file that it was in is gone
            layer = None
        if layer is None:
            unread += 1
        else:
            found.append(layer)
    found.sort(key=lambda layer: -layer.factor)
    widened = sum(layer.is_widened for layer in found)
    scale = Scale.of(size for layer in found for spread in (layer.before, layer.after) for size in spread.curve)
    return Spreads(bounded(found), widened, scale, unread)


_Weight = tuple[Constant, int]  # and its axis of output channels


def _layer(before: Op, after: Op, old: _Weight, new: _Weight) -> LayerSpread | None:
    peaks, small = _peaks(before, *old)
    new_peaks, new_small = _peaks(after, *new)
    if peaks.shape != new_peaks.shape:
        return None
    return LayerSpread(before.label, before.type, peaks.size, _spread(peaks, small), _spread(new_peaks, new_small))


def _weight(op: Op) -> _Weight | None:
    """The constant that a layer multiplies its data by."""
    for index in (1, 0):
        value = op.input(index)
        constant = op.graph.constant(value) if value is not None else None
        if constant is not None and is_float(constant.dtype) and len(constant.shape) > 1 and all(constant.shape):
            return constant, _axis(op, index, len(constant.shape))
    return None


def _axis(op: Op, index: int, rank: int) -> int:
    if op.type in ("Conv", "ConvTranspose"):
        return 0 if op.type == "Conv" else 1
    axis = rank - 1 if index else rank - 2
    if op.type == "Gemm" and op.attribute("transB" if index else "transA", 0):
        return 1 - axis
    return axis


def _peaks(op: Op, weight: Constant, axis: int) -> tuple[FloatArray, int]:
    """The largest magnitude of each output channel, and how many weights are subnormal."""
    smallest = float(ml_dtypes.finfo(weight.dtype).smallest_normal)  # type: ignore[no-untyped-call]
    groups = op.attribute("group", 1) if op.type == "ConvTranspose" else 1
    found: list[FloatArray] = []
    subnormal = 0
    for block in _blocks(weight, whole=groups > 1):
        sizes = np.abs(block.astype(np.float32 if block.dtype.itemsize < 4 else block.dtype, copy=False))
        sizes[~np.isfinite(sizes)] = 0
        subnormal += int(np.count_nonzero((sizes > 0) & (sizes < smallest)))
        if groups > 1:
            sizes = sizes.reshape(groups, sizes.shape[0] // groups, sizes.shape[1], -1)
            found.append(sizes.max((1, 3)).reshape(-1).astype(np.float64))
        else:
            others = tuple(other for other in range(sizes.ndim) if other != axis)
            found.append(sizes.max(others).astype(np.float64))
    return np.concatenate(found) if axis == 0 else np.max(found, axis=0), subnormal


def _blocks(weight: Constant, *, whole: bool) -> Iterator[npt.NDArray[Any]]:
    if whole or not isinstance(weight, Stored | Scaled):
        yield weight.array()
    elif isinstance(weight, Stored):
        yield from (block for _, block in weight.blocks())
    else:
        yield from weight.blocks()


def _spread(peaks: FloatArray, subnormal: int) -> Spread:
    alive = np.sort(peaks[peaks > 0])
    return Spread(
        float(alive.max(initial=0)),
        float(alive.min(initial=inf)) if alive.size else 0.0,
        int(peaks.size - alive.size),
        subnormal,
        sampled(alive),
    )
