"""What may be wrong with an input: mistakes that people make, each undone in turn, and the first layer measured again.

One that brings the score of that layer down to a tenth, and to nearly nothing, is named. No other is guessed; then a
scale and a shift are fitted, and named if they do as much.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from bnfold import batchnorm
from bnfold.calibration.error import CalibrationError
from bnfold.calibration.measuring.build import Builder
from bnfold.calibration.measuring.fitting import Fit, fits
from bnfold.calibration.measuring.measure import Subject
from bnfold.calibration.measuring.segments import START, is_fed
from bnfold.calibration.measuring.targets import Target
from bnfold.calibration.running.program import Batch
from bnfold.calibration.statistics.moments import Moments, Statistics
from bnfold.graph import Value

_SAMPLES = 128  # that are measured again
_MENDED = 0.1  # a score under this, and under this share of what it was
_RGB = 3
_MEAN, _STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # of ImageNet, as most networks for images take them
_HALF = (0.5,)

Mend = Callable[[Builder, str, tuple[int, ...], np.dtype[Any]], str]
"""Adds nodes that undo a mistake, given the name, the shape and the type of an input; the name of what they make."""


class Scored(Protocol):
    """What a layer holds against what it meets."""

    @property
    def score(self) -> float:
        """How far."""


@dataclass(frozen=True)
class Fault:
    """A mistake.

    Attributes:
        what: it is.
        mend: what undoes it.
        rank: of an input that it can be made on; 0 for any.
        channels: that it has to have; 0 for any number.
    """

    what: str
    mend: Mend
    rank: int = 0
    channels: int = 0


def _times(scale: tuple[float, ...], shift: tuple[float, ...] = (0.0,)) -> Mend:
    """Computes x * scale + shift, with numbers or vectors of channels."""

    def mend(builder: Builder, x: str, shape: tuple[int, ...], dtype: np.dtype[Any]) -> str:
        def constant(values: tuple[float, ...]) -> str:
            return builder.constant(np.array(values, dtype).reshape(-1, *[1] * (len(shape) - 2)))

        return builder.node("Add", [builder.node("Mul", [x, constant(scale)]), constant(shift)])

    return mend


def _normalised(mean: tuple[float, ...], std: tuple[float, ...], unit: float = 1.0) -> Mend:
    """Computes (x / unit - mean) / std."""
    scale, shift = 1 / (unit * np.array(std)), -np.array(mean) / std
    return _times(tuple(scale.tolist()), tuple(shift.tolist()))


def _raw(mean: tuple[float, ...], std: tuple[float, ...]) -> Mend:
    """Computes std * x + mean."""
    return _times(std, mean)


def _reversed(builder: Builder, x: str, shape: tuple[int, ...], dtype: np.dtype[Any]) -> str:
    return builder.node("Gather", [x, builder.constant(np.arange(shape[1])[::-1].copy())], axis=1)


def _reversed_below(builder: Builder, x: str, shape: tuple[int, ...], dtype: np.dtype[Any]) -> str:
    """Of pixels that have been normalised since: (std' * x' + mean' - mean) / std, where ' is the other order."""
    mean, std = np.array(_MEAN), np.array(_STD)
    again = _times(tuple((std[::-1] / std).tolist()), tuple(((mean[::-1] - mean) / std).tolist()))
    return again(builder, _reversed(builder, x, shape, dtype), shape, dtype)


def _upright(builder: Builder, x: str, shape: tuple[int, ...], dtype: np.dtype[Any]) -> str:
    return builder.node("Transpose", [x], perm=[0, 1, 3, 2])


def _channels_first(builder: Builder, x: str, shape: tuple[int, ...], dtype: np.dtype[Any]) -> str:
    _, channels, height, width = shape
    rows = builder.node("Reshape", [x, builder.constant(np.array([-1, height, width, channels]))])
    return builder.node("Transpose", [rows], perm=[0, 3, 1, 2])


FAULTS = (
    Fault("values are 255 times as large as the network takes them: divide by 255", _times((1 / 255,))),
    Fault("values are a 255th of what the network takes: multiply by 255", _times((255.0,))),
    Fault("channels are in the other order: RGB for BGR, or the reverse", _reversed, rank=4, channels=_RGB),
    Fault("channels are in the other order, under mean and standard deviation of ImageNet", _reversed_below, 4, _RGB),
    Fault("images in NHWC were reshaped to NCHW: transpose them", _channels_first, rank=4),
    Fault("height and width are exchanged", _upright, rank=4),
    Fault("values from 0 to 1 where the network takes -1 to 1", _normalised(_HALF, _HALF)),
    Fault("values from -1 to 1 where the network takes 0 to 1", _raw(_HALF, _HALF)),
    Fault("values from 0 to 255 where the network takes -1 to 1", _normalised(_HALF, _HALF, 255)),
    Fault("mean and standard deviation of ImageNet are not applied", _normalised(_MEAN, _STD), 4, _RGB),
    Fault("mean and standard deviation of ImageNet are applied, and should not be", _raw(_MEAN, _STD), 4, _RGB),
    Fault(
        "pixels from 0 to 255 without mean and standard deviation of ImageNet", _normalised(_MEAN, _STD, 255), 4, _RGB
    ),
    Fault("the standard deviation of ImageNet is not applied", _times(tuple((1 / np.array(_STD)).tolist())), 4, _RGB),
)


def suspected(subject: Subject, number: int, against: Callable[[Target, Statistics], Scored]) -> str:
    """What would mend the input, judged by a target that nothing but the input decides; "" if nothing is known.

    Args:
        subject: the model on its data.
        number: of the first target.
        against: compares what a target holds and what it meets.
    """
    target = subject.targets[number]
    ops = subject.segments.between(START, [target.x])
    fed = {value for op in ops for value in op.reads() if is_fed(value)} | ({target.x} if is_fed(target.x) else set())
    if len(fed) != 1 or any(op.bodies for op in ops):
        return ""
    (x,) = fed
    array = np.load(subject.samples.few.files[x.name], mmap_mode="r", allow_pickle=False)
    if array.dtype.kind != "f":
        return ""
    shape = array.shape

    def met(mend: Mend | None) -> Statistics:
        return _met(subject, number, x, shape, array.dtype, mend)

    def score(mend: Mend | None) -> float:
        try:
            return against(target, met(mend)).score
        except CalibrationError:  # nothing that the model takes
            return math.inf

    before = score(None)
    limit = min(_MENDED, _MENDED * before)
    possible = [f for f in FAULTS if f.rank in (0, len(shape)) and (len(shape) < 2 or f.channels in (0, shape[1]))]
    what, after = min(((fault.what, score(fault.mend)) for fault in possible), key=lambda entry: entry[1])
    if not after < limit:
        what, after = _fitted(met, score, target, shape, limit)
    return f"{what} (its score would fall from {before:.2g} to {after:.2g})" if after < limit else ""


def _fitted(
    met: Callable[[Mend], Statistics],
    score: Callable[[Mend], float],
    target: Target,
    shape: tuple[int, ...],
    limit: float,
) -> tuple[str, float]:
    """The simplest scale or shift that brings the score under a limit, and the score; infinity if none does."""
    var = target.var + batchnorm.epsilon(target.op)
    try:
        for fit in fits(lambda fit: met(_mending(fit)), target.mean, var, shape):
            if (after := score(_mending(fit))) < limit:
                return str(fit), after
    except CalibrationError:  # the model does not take it
        pass
    return "", math.inf


def _mending(fit: Fit) -> Mend:
    return _times((1 / fit.scale,), fit.shift)


def _met(
    subject: Subject, number: int, x: Value, shape: tuple[int, ...], dtype: np.dtype[Any], mend: Mend | None
) -> Statistics:
    """What a target meets on some of the samples, with the input mended."""
    target = subject.targets[number]
    builder = subject.builder()
    renamed = {} if mend is None else {x.name: mend(builder, x.name, shape, dtype)}
    ops = subject.segments.between(START, [target.x])
    for op in ops:
        builder.copy(op, renamed)
    reading = builder.measure(number, target, subject.forms[number], renamed.get(target.x.name, ""))
    program = subject.program(builder, ops, [target.x], [reading])
    moments = Moments(target.channels)
    for outcome in subject.engine.run(program, _some(subject)):
        for part in outcome.measured:
            moments.add(part.count, part.mean, part.var, samples=outcome.rows)
    return moments.statistics()


def _some(subject: Subject) -> list[Batch]:
    """Batches of at least so many samples, evenly spread over all."""
    batches = subject.samples.batches
    step = max(1, subject.samples.count // _SAMPLES)
    return list(batches[::step])
