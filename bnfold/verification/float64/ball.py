"""Arithmetic with numbers that may be off: midpoint and radius."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np


@dataclass(frozen=True)
class Ball:
    """All numbers within ``e`` of ``x``; each result adds ``unit`` of itself for float64's own rounding."""

    x: Any
    e: Any = 0.0
    unit: float = 0.0

    def __add__(self, other: Ball) -> Ball:
        return self._made(self.x + other.x, self.e + other.e)

    def __sub__(self, other: Ball) -> Ball:
        return self._made(self.x - other.x, self.e + other.e)

    def __mul__(self, other: Ball) -> Ball:
        return self._made(self.x * other.x, np.abs(self.x) * other.e + (np.abs(other.x) + other.e) * self.e)

    def __truediv__(self, other: Ball) -> Ball:
        """(a + d) / (b + e) - a / b  =  (d - e a/b) / (b + e)"""
        y = self.x / other.x
        room = np.abs(other.x) - other.e
        return self._made(y, np.where(room > 0, (self.e + np.abs(y) * other.e) / room, np.inf))

    def root(self) -> Ball:
        """|√(x + e) - √x|  <=  e / √x and √e"""
        y = np.sqrt(self.x)
        return self._made(y, np.where(np.equal(self.e, 0.0), 0.0, np.minimum(np.sqrt(self.e), self.e / y)))

    def mean(self, axes: tuple[int, ...]) -> Ball:
        """Over some axes, which stay."""
        e = np.broadcast_to(self.e + self.unit * np.abs(self.x), np.shape(self.x))
        return self._made(self.x.mean(axis=axes, keepdims=True), e.mean(axis=axes, keepdims=True))

    def reshaped(self, shape: tuple[int, ...]) -> Ball:
        """The same numbers in another shape."""
        e = self.e if np.ndim(self.e) == 0 else self.e.reshape(shape)
        return Ball(self.x.reshape(shape), e, self.unit)

    def repeated(self, times: int) -> Ball:
        """Every number so many times in turn."""
        return Ball(np.repeat(self.x, times), self.e if np.ndim(self.e) == 0 else np.repeat(self.e, times), self.unit)

    def along_channels(self, rank: int) -> Ball:
        """A vector with a number for each channel of an array of so many axes."""
        return self.reshaped((1, -1, *[1] * (rank - 2)))

    def _made(self, x: Any, e: Any) -> Ball:
        return Ball(x, e + self.unit * np.abs(x) if self.unit else e, self.unit)
