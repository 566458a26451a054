"""What a calibration gives back."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np

from bnfold.affine import FloatArray
from bnfold.calibration.figures import number, percent, plain
from bnfold.calibration.measuring.cuts import Cuts
from bnfold.calibration.measuring.targets import Skipped
from bnfold.calibration.statistics.methods import Method
from bnfold.calibration.statistics.moments import Statistics
from bnfold.model_io import Holder, Model
from bnfold.page import Case, Demand, Level, Page, Table, html, plural, text

ERROR_LIMIT = 0.05
"""A standard error of a mean above this many standard deviations is warned of."""
_DEAD = 0.01
_OF_ERROR = 0.01
_WARNING = Demand("data", "warnings")
_COLUMNS = ("BatchNormalization", "channels", "mean moved", "var x", "mean error", "var error", "residual")


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

    def meets_others(self, rounding: float) -> bool:
        """Whether the residual is more than rounding and more than a hundredth of the standard errors.

        Rounding grows with depth: 7e-5 on a ShuffleNet, in which PyTorch's float32 is as far from float64.
        """
        if self.residual is None:
            return False
        limit = np.fmax(rounding, _OF_ERROR * np.fmax(self.error, self.var_error))
        return not self.residual <= limit

    def to_dict(self) -> dict[str, object]:
        """As plain data: a member of `layers` in docs/json.md."""
        return {
            "name": self.name,
            "channels": self.channels,
            "count": self.measured.count,
            "mean_moved": plain(self.moved),
            "mean_error": plain(self.error),
            "var_error": plain(self.var_error),
            "dead_channels": list(self.dead),
            "residual": self.residual,
        }


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

    def page(self, *, verbose: bool = False) -> Page:
        """What there is to say; if verbose, with a row for each layer."""
        what = f"{plural(len(self.layers), 'BatchNormalization')} calibrated"
        rows = tuple(map(_row, self.layers)) if verbose else ()
        return self._page(what, _lines(self), Table(_COLUMNS, rows, "l" + "r" * (len(_COLUMNS) - 1)))

    def _page(self, what: str, lines: Iterable[str], table: Table) -> Page:
        head = (
            f"{self.source}: {what} on {plural(self.samples, 'sample')} "
            f"({self.method.value}, batch size {self.batch_size})"
        )
        written = (f"written to {self.output}",) if self.output else ()
        return Page(head, (*lines, *written), table, warnings=(*left(self.skipped), *self.warnings))

    def to_dict(self) -> dict[str, object]:
        """What `--format json` prints of it, but for the versions."""
        return {
            "model": self.source,
            "output": str(self.output) if self.output else None,
            "method": self.method.value,
            "samples": self.samples,
            "batch_size": self.batch_size,
            "seconds": round(self.seconds, 3),
            "mean_error": plain(self.error),
            "residual": self.residual,
            "layers": [layer.to_dict() for layer in self.layers],
            "skipped": [{"name": entry.name, "why": entry.why} for entry in self.skipped],
            "warnings": list(self.warnings),
        }

    def cases(self) -> tuple[Case, ...]:
        """What the user should know."""
        return warned(self.source, (*left(self.skipped), *self.warnings))

    def __str__(self) -> str:
        return text(self.page())

    def _repr_html_(self) -> str:
        return html(self.page(verbose=True))


def _lines(result: Calibration) -> Iterator[str]:
    if kept := sum(entry.is_asked for entry in result.skipped):
        yield f"{kept} {'keeps its' if kept == 1 else 'keep their'} statistics, as asked"
    farthest = max(result.layers, key=lambda layer: layer.moved)
    yield f"means moved by up to {number(farthest.moved)} standard deviations ({farthest.name})"
    errors = [layer.error for layer in result.layers], [layer.var_error for layer in result.layers]
    if all(map(math.isfinite, errors[0])):
        mean, var = map(max, errors)
        yield f"standard errors: means within {number(mean)} standard deviations, variances within {percent(var)}"
    if result.residual is not None:
        yield f"measured again on the calibrated model: the largest residual is {result.residual:.1e}"


def _row(layer: Layer) -> tuple[str, ...]:
    with np.errstate(all="ignore"):  # what the model held may make no sense, and be no matter
        ratios = (layer.var + layer.epsilon) / (layer.old_var + layer.epsilon)
        ratio = ratios[np.argmax(np.abs(np.log(ratios)))]  # the first that is not finite, if any is not
    return (
        layer.name,
        str(layer.channels),
        number(layer.moved),
        number(float(ratio)),
        number(layer.error),
        percent(layer.var_error),
        "" if layer.residual is None else f"{layer.residual:.1e}",
    )


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


def warned(source: str, warnings: Iterable[str]) -> tuple[Case, ...]:
    """A case for each warning."""
    return tuple(Case(source, _WARNING, "warning", Level.WARNING, warning) for warning in warnings)


def left(skipped: Sequence[Skipped]) -> Iterator[str]:
    """A line for each that was left alone without having been asked to."""
    yield from (f"{entry.name} {entry.why}; it is left as it is" for entry in skipped if not entry.is_asked)
