"""A picture of a drift report: one bar for each BatchNormalization, on a logarithmic scale, as SVG."""

from __future__ import annotations

import math

from bnfold.calibration.drifted import BANDS, Drift
from bnfold.escape import html, shortened

_LEFT, _WIDTH, _ROW, _TOP = 330, 420, 18, 48
_LEAST, _MOST = -4.0, 2.0  # powers of ten
_COLOURS = "#4c956c", "#e9c46a", "#d1495b"


def drift_svg(result: Drift) -> str:
    """The picture. Scores under 1e-4 and over 100 stand at the ends of the scale; a tick is what sampling explains."""
    height = _TOP + _ROW * len(result.layers) + 24
    head = f"{result.source}: {result.verdict.value}, score {result.score:.2g} on {result.samples} samples"
    parts = [f'<text x="8" y="20" font-weight="bold">{html(head)}</text>']
    for number, layer in enumerate(result.layers):
        y = _TOP + _ROW * number
        colour = _COLOURS[sum(layer.score >= band for band in BANDS)]
        parts += [
            f'<text x="{_LEFT - 6}" y="{y + 12}" text-anchor="end">{html(shortened(layer.name, 47))}</text>',
            f'<rect x="{_LEFT}" y="{y + 2}" width="{_x(layer.score) - _LEFT:.1f}" height="{_ROW - 4}" '
            f'fill="{colour}"/>',
            f'<text x="{_x(layer.score) + 4:.1f}" y="{y + 12}">{layer.score:.2g}</text>',
        ]
        if math.isfinite(floor := float(layer.floor.mean())):
            parts.append(f'<line x1="{_x(floor):.1f}" x2="{_x(floor):.1f}" y1="{y}" y2="{y + _ROW}" stroke="black"/>')
    for value, dashed in [(10.0**power, False) for power in range(-4, 3)] + [(band, True) for band in BANDS]:
        dash = ' stroke-dasharray="4 3"' if dashed else ""
        parts.append(
            f'<line x1="{_x(value):.1f}" x2="{_x(value):.1f}" y1="{_TOP}" y2="{height - 20}" '
            f'stroke="{"#333" if dashed else "#ddd"}"{dash}/>'
        )
        if not dashed:
            parts.append(f'<text x="{_x(value):.1f}" y="{height - 6}" text-anchor="middle">{value:g}</text>')
    body = "\n".join(parts)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{_LEFT + _WIDTH + 60}" height="{height}" '
        f'font-family="sans-serif" font-size="11">\n<rect width="100%" height="100%" fill="white"/>\n{body}\n</svg>\n'
    )


def _x(score: float) -> float:
    power = math.log10(score) if score > 0 else _LEAST
    return _LEFT + _WIDTH * (min(max(power, _LEAST), _MOST) - _LEAST) / (_MOST - _LEAST)
