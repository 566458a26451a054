"""What a calibration and a drift measurement give back."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np

from bnfold.affine import FloatArray
from bnfold.calibration.measuring.cuts import Cuts
from bnfold.calibration.measuring.targets import Skipped
from bnfold.calibration.statistics.methods import Method
from bnfold.calibration.statistics.moments import Statistics
from bnfold.model_io import Holder, Model

_DEAD = 0.01


@dataclass(frozen=True, eq=False)
class Layer:
    """A calibrated BatchNormalization.

    Attributes:
        name: of the node.
        mean: what it holds now, float64 `[C]`, as rounded to the model's type.
        var: likewise.
        old_mean: what it held before.
        old_var: likewise.
        measured: what was measured, with standard errors.
        epsilon: of the node.
        residual: the largest relative difference between `measured` and a measurement of the calibrated model: of
            means in standard deviations, of variances in shares. None where that was not checked.
    """

    name: str
    mean: FloatArray
    var: FloatArray
    old_mean: FloatArray
    old_var: FloatArray
    measured: Statistics
    epsilon: float
    residual: float | None = None

    @property
    def channels(self) -> int:
        return self.mean.size

    @cached_property
    def dead(self) -> tuple[int, ...]:
        """Channels that hardly vary: a variance under epsilon / 100, which is scaled up by gamma / sqrt(epsilon)."""
        return tuple(int(channel) for channel in np.flatnonzero(self.measured.var < _DEAD * self.epsilon))

    @cached_property
    def error(self) -> float:
        """The largest standard error of a mean, in standard deviations; NaN for a single sample."""
        return largest(self.measured.mean_error, np.sqrt(self.measured.var + self.epsilon))

    @cached_property
    def var_error(self) -> float:
        """The largest standard error of a variance, as a share of it."""
        return largest(self.measured.var_error, self.measured.var + self.epsilon)

    @cached_property
    def moved(self) -> float:
        """How far the means were from where they are now, in new standard deviations: the largest."""
        return largest(self.mean - self.old_mean, np.sqrt(self.var + self.epsilon))


@dataclass(frozen=True, eq=False)
class Calibration(Holder):
    """A calibrated model and how it came to be.

    Attributes:
        source: the name of the model.
        model: the calibrated model; see also `proto` and `save`.
        method: how statistics were found.
        samples: how many were measured.
        batch_size: samples in a batch.
        layers: the BatchNormalizations, in graph order.
        skipped: those that were left alone.
        warnings: what the user should know, a line each.
        seconds: of wall time.
        cuts: what was kept between segments (sequential only).
        output: where it was written; None if it was not written to a file.
    """

    source: str
    model: Model
    method: Method
    samples: int
    batch_size: int
    layers: tuple[Layer, ...]
    skipped: tuple[Skipped, ...] = ()
    warnings: tuple[str, ...] = ()
    seconds: float = 0.0
    cuts: Cuts | None = field(default=None, repr=False)
    output: Path | None = None

    @property
    def residual(self) -> float | None:
        """The largest residual of a layer; None where it was not checked."""
        known = [layer.residual for layer in self.layers if layer.residual is not None]
        return max(known, default=None)

    @property
    def error(self) -> float:
        """The largest standard error of a mean, in standard deviations."""
        return max(layer.error for layer in self.layers)

    @property
    def _held(self) -> Model:
        return self.model

    def to_dict(self) -> dict[str, object]:
        """What `--format json` prints of it, but for the versions."""
        from bnfold.report.calibration import calibration_dict  # noqa: PLC0415 -- it imports this module

        return calibration_dict(self)

    def lines(self, *, verbose: bool = False) -> tuple[str, ...]:
        """The report as lines; if verbose, with one for each layer."""
        from bnfold.report.calibration import calibration_report  # noqa: PLC0415

        return calibration_report(self, verbose=verbose).lines_of_text()

    def __str__(self) -> str:
        return "\n".join(self.lines())

    def _repr_html_(self) -> str:
        from bnfold.report.calibration import calibration_report  # noqa: PLC0415

        return calibration_report(self, verbose=True).html()


def largest(values: FloatArray, unit: FloatArray | float = 1.0) -> float:
    """The largest of |values| / unit; NaN if any is."""
    with np.errstate(divide="ignore", invalid="ignore"):
        shares = np.abs(values) / unit
    return float(shares.max()) if shares.size else 0.0


def residual(before: Statistics, after: Statistics, epsilon: float) -> float:
    """The largest relative difference of two measurements: |d mean| / sigma and |d var| / (var + epsilon)."""
    var = before.var + epsilon
    return max(largest(after.mean - before.mean, np.sqrt(var)), largest(after.var - before.var, var))


def enough(samples: int, errors: Sequence[float], limit: float) -> int:
    """How many samples would bring the largest of the errors down to a limit: errors fall with 1/sqrt(samples)."""
    return int(np.ceil(samples * (max(errors) / limit) ** 2))
