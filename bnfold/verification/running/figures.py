"""How far two arrays are apart: every figure that somebody may ask for."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt

from bnfold.verification.result import Figures

Array = npt.NDArray[Any]


def figures(before: Array, after: Array) -> Figures:
    """Compares two outputs; a difference in shape counts as every entry misplaced."""
    if before.shape != after.shape:
        return _incomparable(max(before.size, after.size, 1))
    if before.dtype.kind not in "fiub" and not _is_small_float(before):
        unequal = np.asarray(before != after)
        return _incomparable(int(unequal.sum())) if unequal.any() else _identical(before.size)
    left, right = before.astype(np.float64), after.astype(np.float64)
    comparable = np.isfinite(left) & np.isfinite(right)
    same = comparable | (left == right) | (np.isnan(left) & np.isnan(right))
    misplaced = int((~same).sum())
    left, right = np.where(comparable, left, 0.0), np.where(comparable, right, 0.0)
    scale = float(np.abs(left).max(initial=0.0))
    error = np.abs(left - right)
    worst = np.unravel_index(int(error.argmax()), error.shape) if error.size else ()
    if misplaced:
        worst = np.unravel_index(int((~same).argmax()), error.shape)
    max_abs = float(error.max(initial=0.0))
    noise, signal = _rms(error), _rms(left)
    return Figures(
        scale=scale,
        max_abs=max_abs,
        max_rel=_ratio(max_abs, scale),
        max_elementwise=float(np.divide(error, np.abs(left), out=np.zeros_like(error), where=left != 0).max(initial=0)),
        rms=_ratio(noise, scale),
        snr_db=math.inf if not noise else 20 * math.log10(signal / noise) if signal else -math.inf,
        ulps=_ratio(max_abs, _ulp(scale, before.dtype)),
        cosine=_cosine(left, right),
        argmax_agreement=_agreement(left, right),
        misplaced=misplaced,
        compared=int(comparable.sum()),
        index=tuple(int(position) for position in worst),
    )


def _rms(array: Array) -> float:
    return float(np.linalg.norm(array)) / math.sqrt(max(1, array.size))


def _ratio(error: float, scale: float) -> float:
    return error / scale if scale else math.inf if error else 0.0


def _ulp(scale: float, dtype: np.dtype[Any]) -> float:
    if dtype.kind != "f":
        return 1.0 if dtype.kind in "iub" else scale * 2.0**-7  # bfloat16
    return float(np.spacing(np.asarray(min(scale, float(np.finfo(dtype).max)), dtype)))


def _cosine(left: Array, right: Array) -> float:
    with np.errstate(all="ignore"):
        product = float(np.linalg.norm(left) * np.linalg.norm(right))
    if not product:
        return 1.0 if not left.any() and not right.any() else 0.0
    return float(np.vdot(left, right)) / product


def _agreement(left: Array, right: Array) -> float | None:
    """For an output that looks like scores of classes: how many samples have the same best one."""
    if left.ndim != 2 or left.shape[1] < 2 or not left.shape[0]:
        return None
    return float(np.mean(left.argmax(axis=1) == right.argmax(axis=1)))


def _is_small_float(array: Array) -> bool:
    return array.dtype.kind == "V" and "float" in array.dtype.name


def _incomparable(count: int) -> Figures:
    return Figures(0.0, math.inf, math.inf, math.inf, math.inf, -math.inf, math.inf, 0.0, None, count, 0, ())


def _identical(count: int) -> Figures:
    return Figures(0.0, 0.0, 0.0, 0.0, 0.0, math.inf, 0.0, 1.0, None, 0, count, ())
