"""What sampling alone makes of a sum of squares: how large it is on average, and how large it gets.

Groups of samples g add a_g to what was measured, so that its squared error is the sum over g and h of K_gh = <a_g, a_h>
with signs that chance decides: on average trace K. Where channels and layers are correlated few directions count,
nu = (trace K)^2 / trace K^2 (Satterthwaite 1946), and K itself is known from G groups only:

    error^2 / trace K  ~  F(nu, G - 1)

Its quantile is Paulson's (1942), a few per cent too large where G is under ten.

What was not drawn is in no error: a channel that few samples excite hardly varies where none of them is there. Without
what a share p of samples adds, its mean is off by d standard deviations and its variance a part v of what it should be:

    p = d^2 / (d^2 + 1 - v)        (1 - p)^n  is how likely it is that none of them is there
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import NormalDist

import numpy as np

from bnfold.affine import FloatArray
from bnfold.calibration.statistics.moments import Statistics

OFTEN = 0.995
"""How often sampling stays under what it is said to explain."""
_RAREST = 0.01  # of samples that excite a channel; what is rarer is not thought of
_FEW = 4  # a quarter of a layer's channels at the most are such


def kernel(met: Statistics, var: FloatArray) -> FloatArray:
    """K of a layer, `[G, G]`, from mean(d^2 / var + dvar^2 / 2 var^2) over channels: its trace is the mean floor.

    Args:
        met: what was measured.
        var: what errors are told in, `[C]`.
    """
    groups = len(met.weights)
    if groups < 2:
        return np.full((1, 1), np.nan)
    share = met.weights * math.sqrt(groups / (groups - 1))
    means, variances = share * (met.groups - met.mean) / np.sqrt(var), share * (met.group_vars - met.var) / var
    return np.asarray((means @ means.T + variances @ variances.T / 2) / var.size)


def unseen(divergence: FloatArray, shift: FloatArray, ratio: FloatArray, samples: int) -> float:
    """What channels may add to the mean divergence of a layer since the samples that excite them were not drawn.

    Args:
        divergence: of each channel.
        shift: of its mean, in standard deviations that are held.
        ratio: of the variance that was met to the one that is held.
        samples: how many were drawn.
    """
    share = np.divide(shift**2, shift**2 + 1 - ratio, out=np.ones_like(ratio), where=ratio < 1)
    missed = (1 - np.maximum(share, _RAREST)) ** samples > 1 - OFTEN
    few = np.argsort(-divergence, kind="stable")[: len(divergence) // _FEW]
    return float(np.where(missed, divergence, 0)[few].sum() / len(divergence))


def explained(kernels: Sequence[FloatArray]) -> float:
    """What sampling seldom exceeds in the mean of some layers; infinity where that is not known."""
    groups = {len(kernel) for kernel in kernels}
    floor = float(np.mean([np.trace(kernel) for kernel in kernels]))
    if not math.isfinite(floor):
        return math.inf
    if len(groups) > 1:  # of other samples: as if all were correlated
        return floor * quantile(1.0, min(groups) - 1)
    together = np.mean(kernels, axis=0)
    squared = float((together**2).sum())
    return floor * quantile(floor**2 / squared, groups.pop() - 1) if squared else 0.0


def quantile(above: float, below: float) -> float:
    """The value that F(above, below) stays under so often; infinity where that cannot be told."""
    if below < 1:
        return math.inf
    z, a, b = NormalDist().inv_cdf(OFTEN), 2 / (9 * above), 2 / (9 * below)
    rest = (1 - b) ** 2 - z**2 * b
    if rest <= 0:
        return math.inf
    return float((((1 - a) * (1 - b) + z * math.sqrt((1 - a) ** 2 * b + (1 - b) ** 2 * a - z**2 * a * b)) / rest) ** 3)
