"""Whether folded weights that lie below the normal numbers of their type do harm.

There (below 6.1e-5 in float16) a number has fewer digits the smaller it is, and some devices flush it to zero. With u
the largest error of rounding a normal number (relative; 2^-11 in float16), W' = s W the new weights of one channel,
and v how far the data moves that channel behind the affine, a fold may not cost more than one rounding that the model
makes anyway:

- *digits*: what rounding changes below the normal numbers is at most u of W', or number by number at most u of the
  largest; or it moves the channel by at most u |beta|, for v + beta is stored in that type, whatever reads it;
- *flushing*: what a device would lose of W' moves the channel by at most u |beta|; or all such losses of the operator
  are at most u of its weights.

Parts of weights are ratios of Euclidean norms. Both conditions but the last hold each channel against itself, so a
reader may amplify it; the last one holds it against its neighbours, which read the same data. Behind a scale of what
an operator reads, which may be large where the scale is small, weights count there as they were before it.

What was below the normal numbers before the fold is not lost by it: a device flushed it as well, and it had been
rounded by up to half a step, which is |s| half steps of W'.

v is known behind a BatchNormalization alone: |s| (deviation + |mean| + |bias|) of what it reads.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from bnfold.affine import WIDE, FloatArray
from bnfold.batchnorm import BatchNorm, is_batchnorm, read
from bnfold.folding.record import Ability
from bnfold.folding.walk import Way
from bnfold.graph import Constant, Op, Stored
from bnfold.ops.weights import Exact, Scaled
from bnfold.reasons import Reason, Refused
from bnfold.rounding import FORMATS, Format

_HARMLESS = 2.0**-20  # all types but float16 survive a factor from here on
_BIAS = 2
_SAME_VALUES = frozenset({"Identity", "Dropout", "Reshape", "Flatten", "Transpose", "Squeeze", "Unsqueeze"})


@dataclass(frozen=True, eq=False)
class Scaling:
    """What is known of the operators that take a scale in.

    Attributes:
        outputs: Those whose output it scales; the others take it in with what they read.
        batchnorm: The BatchNormalization that it comes from, if it reads what one of these makes, value by value.
    """

    outputs: frozenset[Op] = frozenset()
    batchnorm: Op | None = None

    @classmethod
    def of(cls, op: Op, way: Way) -> Scaling:
        """That of an affine node ``op`` and the way it goes."""
        outputs = frozenset(taker for taker, (ability, *_) in way.answers if ability is Ability.TOOK_OUTPUT)
        is_direct = is_batchnorm(op) and all(passed.type in _SAME_VALUES for passed in way.through)
        return cls(outputs, op if is_direct else None)


NOTHING_KNOWN = Scaling()


def refuse_underflow(op: Op, constant: Scaled, scaling: Scaling) -> None:
    """Refuses a weight of ``op`` that would suffer; it is read where its factors may make it so small."""
    form = FORMATS.get(constant.dtype.name)
    size = np.abs(constant.latest[constant.latest != 0])
    if form is None or (constant.dtype != np.float16 and size.min(initial=1) >= _HARMLESS):
        return
    is_output = op in scaling.outputs
    sums = _sums(constant, form, by_new=is_output)
    varying = [axis for axis, size in enumerate(constant.latest.shape) if size > 1]
    axes: list[int | None] = [*varying] or [None]
    for axis in axes:
        others = tuple(other for other in range(constant.factor.ndim) if other != axis)
        norms = np.sqrt(sums.sum(tuple(other + 1 for other in others))).reshape(len(sums), -1)
        largest = constant.peaks().max(others).reshape(-1)
        norms[1, largest >= form.normal] = 0  # each number changes by no more than a rounding of the largest
        own = np.abs(constant.latest).reshape(-1)  # one for each channel, unless it varies along another axis too
        beside = _Beside(op, own, scaling.batchnorm if is_output and len(axes) == 1 else None)
        found = _lost_digits(form, norms[:2], beside)
        if found is None and axis == axes[-1]:  # along whichever axis, all of it is the same
            found = _flushed(form, norms[2:], beside)
        if found is not None:
            channel, effect = found
            raise _refused(op, form, channel, float(largest[channel]), effect)


def refuse_small_factors(op: Op, constant: Exact, scaling: Scaling) -> None:
    """Refuses a vector that data is multiplied by where that channel would suffer, as what is added before it would."""
    form = FORMATS.get(constant.dtype.name)
    values = np.abs(constant.float64()).reshape(-1)
    small = np.flatnonzero((values > 0) & (values < form.normal)).tolist() if form is not None else []
    if form is None or not small:
        return
    beside = _Beside(op, values, scaling.batchnorm if op in scaling.outputs else None)
    for channel in small:
        if not beside.is_within_beta(channel, 1.0, form.unit):
            raise _refused(op, form, channel, float(values[channel]), "a scale has to be a normal number")


def refuse_small_product(op: Op, constant: Exact) -> None:
    """Refuses the product of two weights if a channel of it has no normal number, and rounding changes it too much."""
    form = FORMATS.get(constant.dtype.name)
    if form is None:
        return
    channels = constant.float64() if _is_by_row(op) else constant.float64().T
    channels = channels.reshape(len(channels), -1)
    largest = np.abs(channels).max(axis=1, initial=0)
    for channel in np.flatnonzero((largest > 0) & (largest < form.normal)).tolist():
        share = _norm(_rounding(channels[channel], form)) / _norm(channels[channel])
        if share > form.unit:
            effect = f"rounding would change it by {share:.1g} of itself"
            raise _refused(op, form, channel, float(largest[channel]), effect)


def _is_by_row(op: Op) -> bool:
    """Whether the output channels of an operator's weight are its first axis."""
    return op.type == "Conv" or bool(op.type == "Gemm" and op.attribute("transB", 0))


def _refused(op: Op, form: Format, channel: int, largest: float, effect: str) -> Refused:
    facts = {"channel": channel, "largest": f"{largest:.2g}", "limit": f"{form.normal:.2g}", "effect": effect}
    return Refused(Reason.UNDERFLOW, op_type=op.type, **facts)


def _lost_digits(form: Format, norms: FloatArray, beside: _Beside) -> tuple[int, str] | None:
    """The first channel that rounding changes too much, and how much."""
    size, blur = norms
    for channel in np.flatnonzero(blur > form.unit * size).tolist():
        share = float(blur[channel] / size[channel])
        if not beside.is_within_beta(channel, share, form.unit):
            return channel, f"rounding would change it by {share:.1g} of itself"
    return None


def _flushed(form: Format, norms: FloatArray, beside: _Beside) -> tuple[int, str] | None:
    """Where a device that flushes does too much harm: the channel that loses most, and how much."""
    size, lost = norms
    most = form.unit * _norm(size)
    if _norm(lost) <= most:
        return None
    channels = np.flatnonzero(lost).tolist()
    left = [at for at in channels if not beside.is_within_beta(at, float(lost[at] / size[at]), form.unit)]
    if _norm(lost[left]) <= most:
        return None
    worst = max(left, key=lambda at: float(lost[at]))
    return worst, f"a device that flushes those to zero would lose {float(lost[worst] / size[worst]):.1g} of it"


def _norm(vector: FloatArray) -> float:
    return float(np.sqrt(np.square(vector).sum()))


# --- what is lost --------------------------------------------------------------------------------------------


def _sums(constant: Scaled, form: Format, *, by_new: bool) -> FloatArray:
    """Sums of squares under each entry of the factor.

    Of the new weights, and of what rounding changes in those that are not normal; then of the weights that count, the
    new or the old ones, and of those among them that a device would flush.
    """
    wide = WIDE if constant.dtype == np.float64 else np.float64  # squares need twice the range
    sums = np.zeros((4, *constant.factor.shape), wide)
    others = tuple(axis for axis, size in enumerate(constant.factor.shape) if size == 1)
    for rows, block in _blocks(constant.base):
        before, latest = (np.abs(_of_rows(part, rows)) for part in (constant.before, constant.latest))
        old = np.abs(block.astype(wide)) * before
        old[~np.isfinite(old)] = 0
        new = old * latest
        small, was_normal = new < form.normal, old >= form.normal
        excused = np.where(was_normal, 0, latest * form.step / 2)
        blur = np.where(small, np.maximum(_rounding(new, form) - excused, 0), 0)
        counted = new if by_new else old
        flushed = np.where(small & was_normal & (latest > 0), counted, 0)
        for total, values in zip(sums, (new, blur, counted, flushed), strict=True):
            part = _of_rows(total, rows)
            part += np.square(values).sum(others, keepdims=True)
    return np.asarray(sums)


def _of_rows(array: FloatArray, rows: slice) -> FloatArray:
    return array[rows] if array.ndim and len(array) > 1 else array


def _rounding(values: FloatArray, form: Format) -> FloatArray:
    """By how much rounding changes numbers below the normal ones."""
    return np.asarray(np.abs(np.rint(values / form.step) * form.step - values))


def _blocks(weight: Constant) -> Iterable[tuple[slice, npt.NDArray[Any]]]:
    return weight.blocks() if isinstance(weight, Stored) else [(slice(None), weight.float64())]


# --- what it is beside ---------------------------------------------------------------------------------------


class _Beside:
    """How far data moves the channels that have these scales, beside beta; not known without a BatchNormalization."""

    def __init__(self, op: Op, scale: FloatArray, batchnorm: Op | None) -> None:
        self._op = op
        self._scale = scale
        self._batchnorm = batchnorm

    def is_within_beta(self, channel: int, share: float, unit: float) -> bool:
        """Whether a share of what the data makes of a channel is less than a rounding of beta.

        Channels of the operator and of the BatchNormalization are matched by their scale, whatever moved them; of
        several with the same scale the worst counts.
        """
        if self._batchnorm is None:
            return False
        statistics, bias = self._known
        same = np.abs(statistics.scale).astype(np.float64) == np.float64(self._scale[channel])
        if bias is None or not same.any():
            return False
        reach = np.sqrt(np.maximum(statistics.var[same], 0)) + np.abs(statistics.mean[same]) + bias[channel]
        moved = share * self._scale[channel] * reach.max()
        return bool(moved <= unit * np.abs(statistics.beta[same]).min())

    @cached_property
    def _known(self) -> tuple[BatchNorm, FloatArray | None]:
        """The statistics, and what the op adds to its channels, if that is known."""
        assert self._batchnorm is not None
        bias: FloatArray | None = np.zeros(self._scale.shape)
        if self._op.input(_BIAS) is not None:
            constant = self._op.graph.constant(self._op.data(_BIAS))
            is_known = constant is not None and constant.shape == self._scale.shape
            bias = np.abs(constant.float64()) if constant is not None and is_known else None
        return read(self._batchnorm), bias
