"""Which scale and which shift of an input bring a layer back to what it holds, where no known mistake does.

With x' = x / s + t the means of the layer move by R t, which is measured by adding to each channel in turn:

    ln s = median of ln(met var / held var) / 2        t = argmin |R t - (held mean - met mean)| / held std

Behind a convolution that is exact but for the padding; behind more than that, a second round brings it closer.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from bnfold.affine import FloatArray
from bnfold.calibration.statistics.moments import Statistics

_ROUNDS = 2
_MOST_CHANNELS = 4  # that have a shift of their own; more have one together


@dataclass(frozen=True)
class Fit:
    """What would undo a mistake: x / scale + shift, a shift for each channel or for all."""

    scale: float
    shift: tuple[float, ...]

    def __str__(self) -> str:
        off = ", ".join(f"{-value * self.scale:.2g}" for value in self.shift)
        if not any(self.shift):
            return f"values spread {self.scale:.2g} times as far as the network takes them: divide by that"
        if self.scale == 1:
            return f"the mean is not that of training: subtract {off}"
        return f"mean and standard deviation are not those of training: subtract {off}, divide by {self.scale:.2g}"


def fits(met: Callable[[Fit], Statistics], mean: FloatArray, var: FloatArray, shape: tuple[int, ...]) -> Iterator[Fit]:
    """A scale, a shift, and both, the simplest first.

    Args:
        met: what the layer meets on the input so mended.
        mean: what it holds.
        var: likewise, with epsilon.
        shape: of the input.
    """
    count = shape[1] if len(shape) > 2 and shape[1] <= _MOST_CHANNELS else 1
    for scales, shifts in ((True, False), (False, True), (True, True)):
        fit = Fit(1.0, (0.0,) * count)
        for _ in range(_ROUNDS):
            fit = _scaled(fit, met(fit), var) if scales else fit
            fit = _shifted(fit, met, mean, np.sqrt(var)) if shifts else fit
        yield fit


def _scaled(fit: Fit, met: Statistics, var: FloatArray) -> Fit:
    alive = (met.var > 0) & (var > 0)
    if not alive.any():
        return fit
    return Fit(fit.scale * float(np.exp(np.median(np.log(met.var[alive] / var[alive])) / 2)), fit.shift)


def _shifted(fit: Fit, met: Callable[[Fit], Statistics], mean: FloatArray, std: FloatArray) -> Fit:
    shift, before = np.array(fit.shift), met(fit).mean
    moved = [met(Fit(fit.scale, tuple(shift + step))).mean - before for step in np.eye(len(shift))]
    response, wanted = np.stack(moved, 1) / std[:, None], (mean - before) / std
    if not (np.isfinite(response).all() and np.isfinite(wanted).all()):
        return fit
    shift = shift + np.linalg.lstsq(response, wanted, rcond=None)[0]
    return Fit(fit.scale, tuple(shift.tolist()))
