"""What a calibration by a reference gives back."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from bnfold.affine import FloatArray
from bnfold.calibration.figures import number, percent, plain
from bnfold.calibration.result import Calibration, Layer, largest
from bnfold.calibration.statistics.methods import Method
from bnfold.calibration.statistics.moments import Statistics
from bnfold.page import Page, Table, plural

EPSILON = 1e-5
"""Of a BatchNormalization; channels that vary less are measured by it."""
_COLUMNS = ("layer", "twin", "channels", "mean off", "now", "spread off", "now")


@dataclass(frozen=True, eq=False)
class MatchedLayer(Layer):
    """A layer that was matched to its twin. Its mean and variance are the twin's.

    Attributes:
        twin: the name of the layer in the reference.
        is_named: whether it was found by a name; else by the order of the layers.
        scale: what its output is multiplied by now, float64 `[C]`.
        shift: and what is added after that.
        before: what it made before any layer was corrected; None if that was not measured.
        after: what it makes in the corrected model.
        shift_error: the standard error of what was found missing in each mean, float64 `[C]`.
    """

    twin: str = ""
    is_named: bool = True
    scale: FloatArray | None = None
    shift: FloatArray | None = None
    before: Statistics | None = None
    after: Statistics | None = None
    shift_error: FloatArray | None = None

    @property
    def error(self) -> float:
        """The largest standard error of a correction, in the twin's standard deviations; NaN for a single sample."""
        return math.nan if self.shift_error is None else largest(self.shift_error, np.sqrt(self.var + self.epsilon))

    @property
    def off_before(self) -> float | None:
        """How far its means were from the twin's, in the twin's standard deviations: the largest."""
        return self._off(self.before)

    @property
    def off(self) -> float | None:
        """How far they are now."""
        return self._off(self.after)

    @property
    def spread_before(self) -> float | None:
        """How far its standard deviations were from the twin's, as a share of those: the largest."""
        return self._spread(self.before)

    @property
    def spread(self) -> float | None:
        """How far they are now."""
        return self._spread(self.after)

    def to_dict(self) -> dict[str, object]:
        """As plain data: a member of `layers` in docs/json.md."""
        return {
            "name": self.name,
            "twin": self.twin,
            "by": "name" if self.is_named else "order",
            "channels": self.channels,
            "count": self.measured.count,
            "mean_error": plain(self.error),
            "mean_off_before": self.off_before,
            "residual": self.residual,
            "spread_off_before": self.spread_before,
            "spread_off": self.spread,
        }

    def _off(self, met: Statistics | None) -> float | None:
        if met is None or not met.count:
            return None
        return _finite(largest(met.mean - self.mean, np.sqrt(self.var + self.epsilon)))

    def _spread(self, met: Statistics | None) -> float | None:
        if met is None or not met.count:
            return None
        return _finite(largest(np.sqrt((met.var + self.epsilon) / (self.var + self.epsilon)) - 1))


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


@dataclass(frozen=True, eq=False)
class Matched(Calibration):
    """A model whose layers have the means of a float model's, and how that came to be.

    Attributes:
        reference: the name of the float model.
        layers: those that have a twin in it, in graph order.
    """

    reference: str = ""
    layers: tuple[MatchedLayer, ...] = ()

    def page(self, *, verbose: bool = False) -> Page:
        """What there is to say; if verbose, with a row for each layer."""
        what = f"{plural(len(self.layers), 'layer')} matched to {self.reference}"
        rows = tuple(map(_row, self.layers)) if verbose else ()
        return self._page(what, _lines(self), Table(_COLUMNS, rows, "ll" + "r" * (len(_COLUMNS) - 2)))

    def to_dict(self) -> dict[str, object]:
        """What `--format json` prints of it, but for the versions."""
        return {**super().to_dict(), "reference": self.reference, "mean_off_before": worst(self, "off_before")[0]}


def worst(result: Matched, figure: str) -> tuple[float | None, str]:
    """The largest of a figure of the layers, and whose it is; None where it was not measured."""
    found = [(value, layer.name) for layer in result.layers if (value := getattr(layer, figure)) is not None]
    return max(found, default=(None, ""))


def _lines(result: Matched) -> Iterator[str]:
    if kept := sum(entry.is_asked for entry in result.skipped):
        yield f"{plural(kept, 'layer')} left as {'it is' if kept == 1 else 'they are'}, as asked"
    if by_order := [layer for layer in result.layers if not layer.is_named]:
        yield f"{len(by_order)} of them by their order: both models line up, and their weights are alike"
    figures = ("off_before", "off", "spread_before", "spread")
    (before, where), (now, there), (wide, who), (wide_now, them) = (worst(result, figure) for figure in figures)
    if before is not None and now is not None:
        yield f"means were off by up to {number(before)} standard deviations ({where}), now by {now:.1e} ({there})"
    if math.isfinite(result.error):
        yield f"standard errors: what was missing in a mean is known within {number(result.error)} standard deviations"
    if wide is not None and wide_now is not None:
        yield f"standard deviations were off by up to {percent(wide)} ({who}), now by {percent(wide_now)} ({them})"
        if result.method is Method.MEAN:
            yield "--method mean-variance matches those, too"


def _row(layer: MatchedLayer) -> tuple[str, ...]:
    off = "" if layer.off is None else f"{layer.off:.1e}"
    return (
        layer.name,
        layer.twin,
        str(layer.channels),
        _told(layer.off_before, number),
        off,
        _told(layer.spread_before, percent),
        _told(layer.spread, percent),
    )


def _told(value: float | None, form: object) -> str:
    return "" if value is None else str(form(value))  # type: ignore[operator]
