"""Whether a channel survives where all of its folded weights lie below the normal numbers of their type.

There (below 6.1e-5 in float16) numbers have fewer digits the smaller they are, and some devices flush them to zero.
With u one rounding (half the spacing of normal numbers, relative: 2^-11 in float16), v how far the data moves the
channel behind the affine, and W' = s W its new weights, such a channel is folded if neither costs more than one
rounding that the model makes anyway:

- *digits*: the rounding of W' changes the channel by at most u of what the data makes of it, or by at most u |beta|,
  as v + beta is stored in that type whatever reads it;
- *flushing*: what a device would lose of W' is at most u |beta|, or all such losses of the operator together at most
  u of its weights (Euclidean norms: all its output channels read the same data).

Both say nothing about what reads the channel, so it may be amplified; only the last one compares channels with each
other. What the original had below the normal numbers as well it has lost in the same way: a device flushed it, and it
was rounded by up to half a step, which is |s| half steps in W'.

v is known behind a BatchNormalization alone: |s| (deviation + |mean| + |bias|) of what it reads.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from bnfold.affine import FloatArray
from bnfold.batchnorm import BatchNorm, is_batchnorm, read
from bnfold.fold.record import Ability
from bnfold.fold.walk import Way
from bnfold.graph import Op
from bnfold.ops.weights import Scaled
from bnfold.reasons import Reason, Refused
from bnfold.rounding import FORMATS, Format, rounded

_HARMLESS = 2.0**-20  # all but float16 survive a factor from here on
_BIAS = 2
IndexArray = npt.NDArray[np.intp]
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
    """Refuses a weight of ``op`` with a channel that would suffer; it is read if its factors may make it so small."""
    form = FORMATS.get(constant.dtype.name)
    factor = np.abs(constant.factor[constant.factor != 0])
    if form is None or (constant.dtype != np.float16 and factor.min(initial=1) >= _HARMLESS):
        return
    peaks = constant.peaks()
    axes = [axis for axis, size in enumerate(peaks.shape) if size > 1]
    for axis in axes or [0]:
        top = _channels(peaks, axis if axes else None).max(axis=1, initial=0)
        small = np.flatnonzero((top > 0) & (top < form.normal))
        if small.size:
            weight = _Weight(op, constant, axis if axes else None, form)
            scales_output = op in scaling.outputs and len(axes) < 2
            batchnorm = read(scaling.batchnorm) if scaling.batchnorm is not None and op in scaling.outputs else None
            weight.refuse_unless_harmless(small, batchnorm, scales_output=scales_output)


class _Weight:
    """A weight with channels that would be small, one to a row."""

    def __init__(self, op: Op, constant: Scaled, axis: int | None, form: Format) -> None:
        self._op = op
        self._form = form
        self._dtype = constant.dtype
        self._old = np.abs(_channels(constant.base.float64(), axis))
        factor = np.broadcast_to(np.abs(constant.factor), constant.shape)
        self._factor = _channels(factor, axis)
        self._new = self._old * self._factor

    def refuse_unless_harmless(self, small: IndexArray, batchnorm: BatchNorm | None, *, scales_output: bool) -> None:
        """Looks at the channels ``small``; each is measured against its own norm."""
        unit, size = self._form.unit, _norms(self._new[small])
        blur, lost = _norms(self._blur(small)) / size, _norms(self._flushed(small)) / size
        moved, beta = self._moved(small, batchnorm)
        bad = (blur > unit) & ~(blur * moved <= unit * beta)
        if bad.any():
            self._refuse(small[bad][0], f"rounding would change it by {blur[bad][0]:.1g} of itself")
        bad = (lost > 0) & ~(lost * moved <= unit * beta)
        total = _norms(self._flushed(small[bad]).reshape(1, -1)) / _norms(self._new.reshape(1, -1))
        if bad.any() and not (scales_output and total[0] <= unit):
            self._refuse(small[bad][0], f"flushed to zero, it would lose {lost[bad][0]:.1g} of itself")

    def _blur(self, small: IndexArray) -> FloatArray:
        """By how much rounding changes the new weights, beyond what the original's were rounded by."""
        new, old, factor = self._new[small], self._old[small], self._factor[small]
        error = np.abs(rounded(new, self._dtype).astype(np.float64) - new)
        excused = np.where(old < self._form.normal, factor * self._form.step / 2, 0)
        return np.asarray(np.maximum(error - excused, 0))

    def _flushed(self, small: IndexArray) -> FloatArray:
        """The new weights that a device may take for zero, and the original's not."""
        return np.where(self._old[small] >= self._form.normal, self._new[small], 0)

    def _moved(self, small: IndexArray, batchnorm: BatchNorm | None) -> tuple[FloatArray, FloatArray]:
        """How far the data moves the channels, and beta: the worst of all channels that have the same scale."""
        moved, beta = np.full(small.size, np.inf), np.zeros(small.size)
        bias = self._bias()
        if batchnorm is None or bias is None:
            return moved, beta
        scale = np.abs(batchnorm.scale.astype(np.float64))
        for index, channel in enumerate(small):
            same = scale == np.float64(self._factor[channel, 0])
            if same.any():
                reach = np.sqrt(np.maximum(batchnorm.var[same], 0)) + np.abs(batchnorm.mean[same]) + bias[channel]
                moved[index], beta[index] = (scale[same] * reach).max(), np.abs(batchnorm.beta[same]).min()
        return moved, beta

    def _bias(self) -> FloatArray | None:
        """What the op adds to its channels, if that is known."""
        channels = len(self._new)
        if self._op.input(_BIAS) is None:
            return np.zeros(channels)
        constant = self._op.graph.constant(self._op.data(_BIAS))
        return np.abs(constant.float64()) if constant is not None and constant.shape == (channels,) else None

    def _refuse(self, channel: int, effect: str) -> None:
        raise Refused(
            Reason.UNDERFLOW,
            op_type=self._op.type,
            channel=int(channel),
            largest=f"{self._new[channel].max():.2g}",
            limit=f"{self._form.normal:.2g}",
            effect=effect,
        )


def _channels(array: FloatArray, axis: int | None) -> FloatArray:
    """An array with a row for each index along an axis, or one row."""
    return array.reshape(1, -1) if axis is None else np.moveaxis(array, axis, 0).reshape(array.shape[axis], -1)


def _norms(rows: FloatArray) -> FloatArray:
    """The Euclidean norm of each row; its squares neither overflow nor vanish."""
    largest = rows.max(axis=1, initial=0)
    largest[largest == 0] = 1
    return np.asarray(largest * np.sqrt(((rows / largest[:, None]) ** 2).sum(axis=1)))
