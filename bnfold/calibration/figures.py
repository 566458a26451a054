"""Figures of a measurement as people read them, and as JSON can hold them."""

from __future__ import annotations

import math


def number(value: float) -> str:
    """Two digits; a question mark where nothing is known."""
    if not math.isfinite(value):
        return "?"
    return f"{value:.2g}" if abs(value) < 1e4 else f"{value:.1e}"


def percent(value: float) -> str:
    """A share."""
    return f"{100 * value:.2g} %" if math.isfinite(value) else "?"


def plain(value: float) -> float | None:
    """None for what JSON has no number for."""
    return value if math.isfinite(value) else None
