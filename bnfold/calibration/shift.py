"""How far data is from the statistics that a model holds: one pass, layer by layer.

With stored N(m0, s0^2) and met N(m1, s1^2), where s^2 = var + epsilon as the BatchNormalization uses it:

    mean shift     |m1 - m0| / s0
    log variance   |ln(s1^2 / s0^2)|
    divergence     (s0^2 + d^2) / 2 s1^2 + (s1^2 + d^2) / 2 s0^2 - 1,  d = m1 - m0       (KL(0|1) + KL(1|0))
    distance       sqrt(d^2 + (s1 - s0)^2) / s0                                          (Wasserstein-2)

The score of a model is the mean divergence of its layers. What sampling alone adds to a divergence is about
se(mean)^2 / s^2 + se(var)^2 / 2 s^4: the floor. On data that a model was made from, the score is 0.5 to 2 floors in the
median, and is over 2 + 60 / samples floors by 0.01 in 3 of 200 draws at the most (six trained networks, 8 samples and
more); what is above that is the excess. These measure that inputs are different, not that information is lost: inverted
images of digits score like slightly blurred ones.
"""

from __future__ import annotations

import math
import os
import time
from concurrent.futures import Executor
from dataclasses import dataclass
from enum import Enum
from functools import cached_property

import numpy as np

from bnfold import batchnorm
from bnfold.affine import FloatArray
from bnfold.calibration.error import CalibrationError
from bnfold.calibration.measuring.batches import Data
from bnfold.calibration.measuring.faults import suspected
from bnfold.calibration.measuring.measure import Report, Running
from bnfold.calibration.measuring.targets import Skipped, Target
from bnfold.calibration.place import Choice, Place, measuring, named
from bnfold.calibration.ready import ready
from bnfold.calibration.statistics.moments import Statistics
from bnfold.limits import Limits
from bnfold.model_io import Model, ModelLike, load

LEAST_SAMPLES = 8
"""Under this, the floor itself is not known."""
BANDS = (0.01, 0.1)
"""Scores from which on one should look, and recalibrate. Provisional: they come from small networks."""


class Verdict(Enum):
    """What a score means."""

    FINE = "fine"
    LOOK = "look"
    RECALIBRATE = "recalibrate"
    UNKNOWN = "unknown"


@dataclass(frozen=True, eq=False)
class LayerDrift:
    """One BatchNormalization: vectors of C float64 values, one for each channel.

    Attributes:
        name: of the node.
        mean_shift: of means, in stored standard deviations.
        log_variance: |ln| of the ratio of variances.
        divergence: symmetric KL divergence of the Gaussians.
        distance: Wasserstein-2 distance of the Gaussians, in stored standard deviations.
        floor: what sampling alone adds to the divergence.
        variance_ratio: of what was met to what is stored.
    """

    name: str
    mean_shift: FloatArray
    log_variance: FloatArray
    divergence: FloatArray
    distance: FloatArray
    floor: FloatArray
    variance_ratio: FloatArray

    @cached_property
    def score(self) -> float:
        """The mean divergence of the channels."""
        return float(self.divergence.mean())

    def ranked(self) -> list[int]:
        """Channels, the farthest first."""
        return [int(channel) for channel in np.argsort(-self.divergence, kind="stable")]


@dataclass(frozen=True, eq=False)
class Drift:
    """How far the data is from what the model holds.

    Attributes:
        source: the name of the model.
        samples: how many were measured.
        layers: the BatchNormalizations that something reached, in graph order.
        skipped: those that were not measured.
        fault: what may be wrong with the input, if something that was tried mends the first layer; else "".
        warnings: what the user should know, a line each.
        seconds: of wall time.
    """

    source: str
    samples: int
    layers: tuple[LayerDrift, ...]
    skipped: tuple[Skipped, ...] = ()
    fault: str = ""
    warnings: tuple[str, ...] = ()
    seconds: float = 0.0

    @property
    def score(self) -> float:
        """The mean score of the layers."""
        return float(np.mean([layer.score for layer in self.layers]))

    @property
    def floor(self) -> float:
        """What of the score sampling alone explains."""
        return float(np.mean([layer.floor.mean() for layer in self.layers]))

    @property
    def excess(self) -> float:
        """What of the score sampling does not explain; 0 where the floor is not known."""
        return excess(self.score, self.floor, self.samples)

    @property
    def samples_needed(self) -> int:
        """About how many samples can tell whether the data is fine."""
        if not math.isfinite(self.floor):
            return 4 * LEAST_SAMPLES
        return max(LEAST_SAMPLES, math.ceil(self.samples * self.floor / (BANDS[0] / 4)))

    @property
    def worst(self) -> LayerDrift:
        """The layer of the highest score."""
        return max(self.layers, key=lambda layer: layer.score)

    @property
    def first(self) -> LayerDrift:
        """The first layer, which shows mistakes of preprocessing undiluted."""
        return self.layers[0]

    @property
    def verdict(self) -> Verdict:
        """By the score without its floor, where that can be told from sampling."""
        look, recalibrate = BANDS
        if self.samples < LEAST_SAMPLES or not math.isfinite(self.floor):
            return Verdict.UNKNOWN
        if self.score < look and (self.score + self.floor < look or self.floor < look / 4):
            return Verdict.FINE
        if self.excess < look:
            return Verdict.UNKNOWN
        return Verdict.LOOK if self.score - self.floor < recalibrate else Verdict.RECALIBRATE

    @property
    def ok(self) -> bool:
        """Whether the data looks like what the statistics were made from, as far as that is known."""
        return self.verdict is Verdict.FINE

    def __bool__(self) -> bool:
        return self.ok

    def __str__(self) -> str:
        from bnfold.report.calibration import drift_report  # noqa: PLC0415 -- it imports this module

        return drift_report(self).text()

    def _repr_html_(self) -> str:
        from bnfold.report.calibration import drift_report  # noqa: PLC0415

        return drift_report(self, verbose=True).html()


def drift(
    model: ModelLike | Model,
    data: Data,
    *,
    batch_size: int | None = None,
    max_samples: int | None = None,
    seed: int | None = None,
    workers: int = 1,
    threads: int | None = None,
    executor: Executor | None = None,
    dask: str | None = None,
    work_dir: str | os.PathLike[str] | None = None,
    provider: str = "CPUExecutionProvider",
    arithmetic: bool = False,
    timeout: float = 3600.0,
    memory: int | None = None,
    progress: Report | None = None,
) -> Drift:
    """Measures what the BatchNormalizations of a model meet, and compares it with what they hold.

    Args:
        model: a path or a model in memory; its BatchNormalizations are taken in inference mode.
        data: as for `calibrate`; the other arguments too.
        batch_size: samples in a batch.
        max_samples: measure no more, spread evenly.
        seed: draw them at random instead.
        workers: child processes.
        threads: batches at a time.
        executor: runs tasks instead of child processes.
        dask: the address of a Dask scheduler.
        work_dir: for files.
        provider: an execution provider of ONNX Runtime.
        arithmetic: measure without training-mode nodes.
        timeout: seconds for all of it.
        memory: bytes for each process.
        progress: called as work goes on.

    Raises:
        ModelError: the model or the data cannot be read or do not fit each other (`CalibrationError`, `DataError`).
        TimeoutError: it would take longer.
        MemoryError: it would need more.
    """
    started = time.monotonic()
    loaded, _ = ready(load(model))
    running, limits = Running(provider, arithmetic, progress), Limits(timeout, memory)
    place = Place(workers, threads, executor, dask, work_dir, running, limits)
    with measuring(loaded, data, Choice(batch_size, max_samples, seed), place) as (subject, _):
        for target in subject.targets:
            target.refuse_senseless()
        stored = [target.mean for target in subject.targets], [target.var for target in subject.targets]
        met = subject.in_inference_mode(*stored, "measuring")
        reached = [number for number, found in enumerate(met) if found.count]
        if not reached:
            raise CalibrationError("nothing reached a BatchNormalization, so there is nothing to compare")
        layers = tuple(against(subject.targets[number], met[number]) for number in reached)
        first, samples = layers[0], subject.samples.count
        differs = excess(first.score, float(first.floor.mean()), samples) > BANDS[0]
        fault = suspected(subject, reached[0], against) if differs else ""
    found = subject.survey
    return Drift(named(model), samples, layers, found.skipped, fault, found.notes, time.monotonic() - started)


def excess(score: float, floor: float, samples: int) -> float:
    """What of a score sampling does not explain; 0 where its floor is not known."""
    explained = (2 + 60 / samples) * floor
    return max(0.0, score - explained) if math.isfinite(explained) else 0.0


def against(target: Target, met: Statistics) -> LayerDrift:
    """What a target holds against what it meets."""
    return compare(target.name, target.mean, target.var, met, batchnorm.epsilon(target.op))


def compare(name: str, mean: FloatArray, var: FloatArray, met: Statistics, epsilon: float) -> LayerDrift:
    """What a layer holds against what it meets."""
    held, found = var + epsilon, met.var + epsilon
    apart = met.mean - mean
    with np.errstate(divide="ignore", invalid="ignore"):
        return LayerDrift(
            name,
            mean_shift=np.abs(apart) / np.sqrt(held),
            log_variance=np.abs(np.log(found / held)),
            divergence=(held + apart**2) / (2 * found) + (found + apart**2) / (2 * held) - 1,
            distance=np.sqrt(apart**2 + (np.sqrt(found) - np.sqrt(held)) ** 2) / np.sqrt(held),
            floor=met.mean_error**2 / found + met.var_error**2 / (2 * found**2),
            variance_ratio=found / held,
        )
