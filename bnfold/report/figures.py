"""Numbers as a report shows them: in words, and as places on a scale."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from bnfold.affine import FloatArray

_LEAST, _MOST = 1e-300, 1e300
_MOST_POINTS = 32


def short(value: float | None) -> str:
    """Two digits."""
    if value is None or math.isnan(value):
        return "?"
    if math.isinf(value):
        return "∞" if value > 0 else "−∞"
    if value and not 1e-3 <= abs(value) < 1e4:
        return f"{value:.1e}"
    return f"{value:.2g}" if abs(value) < 100 else f"{value:.0f}"


@dataclass(frozen=True)
class Scale:
    """A logarithmic scale from 0 to 100 %; what is smaller or larger stands at its ends.

    Attributes:
        least: The power of ten where it begins.
        most: The power of ten where it ends.
    """

    least: int
    most: int

    @classmethod
    def of(cls, values: Iterable[float]) -> Scale:
        """One that has room for all of these; zeros and what is not finite do not count."""
        powers = [math.log10(value) for value in values if _LEAST < value < _MOST]
        least = math.floor(min(powers, default=0))
        return cls(least, max(math.ceil(max(powers, default=0)), least + 1))

    def at(self, value: float) -> float:
        """Where a value stands, in per cent."""
        if math.isnan(value) or value <= 0:
            return 0.0
        power = math.log10(value) if math.isfinite(value) else self.most
        return round(100 * min(max((power - self.least) / (self.most - self.least), 0.0), 1.0), 1)

    @property
    def ticks(self) -> list[tuple[float, str]]:
        """A few powers of ten, and where they stand."""
        step = max(1, math.ceil((self.most - self.least) / 5))
        return [
            (self.at(10.0**power), f"{10.0**power:.0e}" if abs(power) > 3 else f"{10.0**power:g}")
            for power in range(self.least, self.most + 1, step)
        ]

    def curve(self, values: Sequence[float], width: float, height: float) -> str:
        """The points of a line over sorted values, for SVG."""
        last = max(len(values) - 1, 1)
        points = [(width * index / last, height - height * self.at(value) / 100) for index, value in enumerate(values)]
        if len(points) == 1:
            points.append((width, points[0][1]))
        return " ".join(f"{x:.1f},{y:.1f}" for x, y in points)


def sampled(values: FloatArray) -> tuple[float, ...]:
    """Values, of many some, with the first and the last of them."""
    if values.size > _MOST_POINTS:
        values = values[np.linspace(0, values.size - 1, _MOST_POINTS).astype(int)]
    return tuple(map(float, values))
