"""What a drift measurement gives back."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import Enum
from functools import cached_property

import numpy as np

from bnfold.affine import FloatArray
from bnfold.calibration.figures import number, plain
from bnfold.calibration.measuring.targets import Skipped
from bnfold.calibration.result import left, warned
from bnfold.calibration.statistics.sampling import explained
from bnfold.page import Case, Demand, Level, Page, Table, html, plural, text

LEAST_SAMPLES = 8
"""Under this, the floor itself is not known."""
BANDS = (0.01, 0.1)
"""Scores from which on one should look, and recalibrate. Provisional: they come from small networks."""
_WORST_CHANNELS = 5
_DRIFT = Demand("drift", "models whose statistics are far from the data")
_COLUMNS = ("BatchNormalization", "score", "mean shift", "log var", "distance", "worst channels")


class Verdict(Enum):
    """What a score means."""

    FINE = "fine"
    LOOK = "look"
    RECALIBRATE = "recalibrate"
    UNKNOWN = "unknown"


_MEANING = {
    Verdict.FINE: "the data looks like what the statistics were made from",
    Verdict.LOOK: "the data differs; look at the layers with the highest scores",
    Verdict.RECALIBRATE: "the data differs so much that accuracy is likely to suffer: recalibrate, or mend the input",
    Verdict.UNKNOWN: "so few samples cannot tell",
}


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
        kernel: what groups of samples add to the floor, each with each; see `sampling`.
        unseen: what of the score samples that were not drawn may explain, since they alone excite some channels.
    """

    name: str
    mean_shift: FloatArray
    log_variance: FloatArray
    divergence: FloatArray
    distance: FloatArray
    floor: FloatArray
    variance_ratio: FloatArray
    kernel: FloatArray
    unseen: float

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
        limit: the score that it was not to exceed by more than sampling explains; None if any will do.
    """

    source: str
    samples: int
    layers: tuple[LayerDrift, ...]
    skipped: tuple[Skipped, ...] = ()
    fault: str = ""
    warnings: tuple[str, ...] = ()
    seconds: float = 0.0
    limit: float | None = None

    @property
    def score(self) -> float:
        """The mean score of the layers."""
        return float(np.mean([layer.score for layer in self.layers]))

    @property
    def floor(self) -> float:
        """What sampling alone adds to the score, on average."""
        return float(np.mean([layer.floor.mean() for layer in self.layers]))

    @cached_property
    def explained(self) -> float:
        """What sampling alone adds in all but one of 200 cases; infinity where that is not known."""
        return _explained(self.layers)

    @cached_property
    def excess(self) -> float:
        """What of the score sampling does not explain; 0 where that is not known."""
        return excess(self.layers)

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

    @property
    def is_above_limit(self) -> bool:
        return self.limit is not None and self.excess > self.limit

    def __bool__(self) -> bool:
        return self.ok

    def page(self, *, verbose: bool = False) -> Page:
        """What there is to say; if verbose, with a row for each layer, else for the worst few."""
        head = f"{self.source}: {self.verdict.value} (score {number(self.score)} on {plural(self.samples, 'sample')})"
        ranked = sorted(self.layers, key=lambda layer: -layer.score)
        rows = tuple(map(_row, self.layers if verbose else ranked[:_WORST_CHANNELS]))
        table = Table(_COLUMNS, rows, "l" + "r" * (len(_COLUMNS) - 1))
        return Page(head, tuple(_lines(self)), table, warnings=(*left(self.skipped), *self.warnings))

    def to_dict(self) -> dict[str, object]:
        """What `--format json` prints of it, but for the versions."""
        return {
            "model": self.source,
            "verdict": self.verdict.value,
            "score": self.score,
            "worst_score": self.worst.score,
            "floor": plain(self.floor),
            "explained": plain(self.explained),
            "excess": self.excess,
            "samples": self.samples,
            "samples_needed": self.samples_needed,
            "seconds": round(self.seconds, 3),
            "first": self.first.name,
            "fault": self.fault,
            "layers": [
                {
                    "name": layer.name,
                    "score": layer.score,
                    "floor": plain(float(layer.floor.mean())),
                    "mean_shift": layer.mean_shift.tolist(),
                    "log_variance": layer.log_variance.tolist(),
                    "variance_ratio": layer.variance_ratio.tolist(),
                    "divergence": layer.divergence.tolist(),
                    "distance": layer.distance.tolist(),
                    "ranked_channels": layer.ranked(),
                }
                for layer in self.layers
            ],
            "skipped": [{"name": entry.name, "why": entry.why} for entry in self.skipped],
            "warnings": list(self.warnings),
        }

    def cases(self) -> tuple[Case, ...]:
        """The score, and what the user should know."""
        level = Level.ERROR if self.is_above_limit else Level.PASSED if self.ok else Level.WARNING
        above = f"; more than {self.limit:g}, also without what sampling explains" if self.is_above_limit else ""
        message = f"{self.verdict.value} (score {number(self.score)}){above}"
        judged = Case(self.source, _DRIFT, "score", level, message, tuple(_lines(self)))
        return judged, *warned(self.source, (*left(self.skipped), *self.warnings))

    def __str__(self) -> str:
        return text(self.page())

    def _repr_html_(self) -> str:
        return html(self.page(verbose=True))


def excess(layers: Sequence[LayerDrift]) -> float:
    """What of the mean score of some layers sampling does not explain; 0 where that is not known."""
    return max(0.0, float(np.mean([layer.score for layer in layers])) - _explained(layers))


def _explained(layers: Sequence[LayerDrift]) -> float:
    return explained([layer.kernel for layer in layers]) + float(np.mean([layer.unseen for layer in layers]))


def _lines(result: Drift) -> Iterator[str]:
    unknown = result.verdict is Verdict.UNKNOWN
    yield _MEANING[result.verdict] + (f": take {result.samples_needed} or more" if unknown else "")
    look, recalibrate = BANDS
    at_most = f", seldom over {number(result.explained)}" if math.isfinite(result.explained) else ""
    yield (
        f"score: fine under {look:g}, look under {recalibrate:g}; "
        f"sampling alone adds about {number(result.floor)}{at_most}"
    )
    first = result.first
    yield (
        f"first layer ({first.name}): means off by up to {number(float(first.mean_shift.max()))} standard deviations, "
        f"variances {_ratio(first)}"
    )
    if result.fault:
        yield f"the input: {result.fault}"
    elif result.verdict in (Verdict.LOOK, Verdict.RECALIBRATE) and first.mean_shift.max() > 1:
        yield "the input: is it scaled and normalised as in training?"
    if result.verdict in (Verdict.LOOK, Verdict.RECALIBRATE):
        yield f"next: {'mend the input, or ' * bool(result.fault)}bnfold calibrate {_path(result)} --data DATA"


def _path(result: Drift) -> str:
    return result.source if result.source != "the model" else "MODEL"


def _ratio(layer: LayerDrift) -> str:
    """By how much variances are off: the channel that is farthest."""
    return f"by up to a factor of {number(float(layer.variance_ratio[layer.log_variance.argmax()]))}"


def _row(layer: LayerDrift) -> tuple[str, ...]:
    channels = " ".join(map(str, layer.ranked()[:_WORST_CHANNELS]))
    values = (layer.score, layer.mean_shift.mean(), layer.log_variance.mean(), layer.distance.mean())
    return (layer.name, *(number(float(value)) for value in values), channels)
