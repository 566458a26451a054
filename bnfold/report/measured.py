"""What a calibration found, and how far data is from what a model holds."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from bnfold.calibration.drifted import BANDS, Drift, LayerDrift
from bnfold.calibration.result import Calibration, Layer
from bnfold.report.bounds import Bounded, bounded
from bnfold.report.figures import Scale, sampled


@dataclass(frozen=True)
class MeasuredLayer:
    """A calibrated BatchNormalization.

    Attributes:
        layer: What was found.
        moved: For each channel, how far its mean moved in new standard deviations, sorted; of many channels some.
    """

    layer: Layer
    moved: tuple[float, ...]


@dataclass(frozen=True)
class Measured:
    """A calibration.

    Attributes:
        layers: In graph order.
        scale: For how far means moved.
    """

    layers: Bounded[MeasuredLayer]
    scale: Scale


@dataclass(frozen=True)
class Drifted:
    """How far data is off.

    Attributes:
        layers: In graph order.
        scale: For scores.
        bands: Scores from which on one should look, and recalibrate.
        fault: What may be wrong with the input; empty if nothing is known to be.
    """

    layers: Bounded[LayerDrift]
    scale: Scale
    bands: tuple[float, float]
    fault: str


def measured(result: Calibration) -> Measured:
    """The figures of a calibration."""
    return Measured(
        bounded([MeasuredLayer(layer, _moved(layer)) for layer in result.layers]),
        Scale.of([1.0, *(layer.moved for layer in result.layers)]),
    )


def drifted(result: Drift) -> Drifted:
    """The figures of a drift."""
    return Drifted(
        bounded(result.layers),
        Scale.of([*BANDS, *(max(layer.score, BANDS[0] / 100) for layer in result.layers)]),
        BANDS,
        result.fault,
    )


def _moved(layer: Layer) -> tuple[float, ...]:
    with np.errstate(divide="ignore", invalid="ignore"):
        shares = np.abs(layer.mean - layer.old_mean) / np.sqrt(layer.var + layer.epsilon)
    return sampled(np.sort(shares[np.isfinite(shares)]))
