"""How far data is from the statistics that a model holds: one pass, layer by layer.

With stored N(m0, s0^2) and met N(m1, s1^2), where s^2 = var + epsilon as the BatchNormalization uses it:

    mean shift     |m1 - m0| / s0
    log variance   |ln(s1^2 / s0^2)|
    divergence     (s0^2 + d^2) / 2 s1^2 + (s1^2 + d^2) / 2 s0^2 - 1,  d = m1 - m0       (KL(0|1) + KL(1|0))
    distance       sqrt(d^2 + (s1 - s0)^2) / s0                                          (Wasserstein-2)

The score of a model is the mean divergence of its layers. What sampling alone adds to a divergence is about
se(mean)^2 / s^2 + se(var)^2 / 2 s^4: the floor. It seldom adds more than `explained` says, and what is above that is
the excess. These measure that inputs are different, not that information is lost: inverted images of digits score like
slightly blurred ones.
"""

from __future__ import annotations

import time
from typing import Unpack

import numpy as np

from bnfold import batchnorm
from bnfold.affine import FloatArray
from bnfold.calibration.drifted import BANDS, Drift, LayerDrift, excess
from bnfold.calibration.error import CalibrationError
from bnfold.calibration.measuring.batches import Data
from bnfold.calibration.measuring.faults import suspected
from bnfold.calibration.measuring.targets import Target
from bnfold.calibration.place import RunArguments, RunOptions, measuring, named
from bnfold.calibration.ready import ready
from bnfold.calibration.statistics.moments import Statistics
from bnfold.calibration.statistics.sampling import kernel, unseen
from bnfold.model_io import Model, ModelLike, load

_LEAST = 1e-100  # of a variance: without an epsilon, a channel that never varies is very far, and not infinitely


def drift(model: ModelLike | Model, data: Data, **options: Unpack[RunArguments]) -> Drift:
    """Measures what the BatchNormalizations of a model meet, and compares it with what they hold.

    Args:
        model: a path or a model in memory; its BatchNormalizations are taken in inference mode.
        data: as for `calibrate`.
        options: likewise, the attributes of `RunOptions`.

    Raises:
        ModelError: the model or the data cannot be read or do not fit each other (`CalibrationError`, `DataError`).
        TimeoutError: it would take longer.
        MemoryError: it would need more.
    """
    started, run = time.monotonic(), RunOptions(**options)
    loaded = load(model)
    run.deadline.heed()
    loaded, _ = ready(loaded)
    with measuring(loaded, data, run) as (subject, _):
        for target in subject.targets:
            target.refuse_senseless()
        stored = [target.mean for target in subject.targets], [target.var for target in subject.targets]
        met = subject.in_inference_mode(*stored, "measuring")
        reached = [number for number, found in enumerate(met) if found.count]
        if not reached:
            raise CalibrationError("nothing reached a BatchNormalization, so there is nothing to compare")
        layers = tuple(against(subject.targets[number], met[number]) for number in reached)
        fault = suspected(subject, reached[0], against) if excess(layers[:1]) > BANDS[0] else ""
    found, samples = subject.survey, subject.samples
    notes = (*found.notes, *samples.notes)
    return Drift(named(model), samples.count, layers, found.skipped, fault, notes, time.monotonic() - started)


def against(target: Target, met: Statistics) -> LayerDrift:
    """What a target holds against what it meets."""
    return compare(target.name, target.mean, target.var, met, batchnorm.epsilon(target.op))


def compare(name: str, mean: FloatArray, var: FloatArray, met: Statistics, epsilon: float) -> LayerDrift:
    """What a layer holds against what it meets."""
    held, found = var + epsilon, np.maximum(met.var + epsilon, _LEAST)
    apart = met.mean - mean
    with np.errstate(divide="ignore", invalid="ignore"):
        shift, divergence = np.abs(apart) / np.sqrt(held), _divergence(held, found, apart)
        return LayerDrift(
            name,
            mean_shift=shift,
            log_variance=np.abs(np.log(found / held)),
            divergence=divergence,
            distance=np.sqrt(apart**2 + (np.sqrt(found) - np.sqrt(held)) ** 2) / np.sqrt(held),
            floor=met.mean_error**2 / found + met.var_error**2 / (2 * found**2),
            variance_ratio=found / held,
            kernel=kernel(met, found),
            unseen=unseen(divergence, shift, found / held, met.parts),
        )


def _divergence(held: FloatArray, found: FloatArray, apart: FloatArray) -> FloatArray:
    return (held + apart**2) / (2 * found) + (found + apart**2) / (2 * held) - 1
