"""Where the boxes and lines of a small drawing go: layers from top to bottom, few crossings, boxes above one another.

After Sugiyama, Tagawa & Toda (1981): layers by the longest path, order by the mean place of the neighbours, then
places as near to those of the neighbours as their order allows.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

WIDTH, HEIGHT = 168, 52
"""Of a box."""
_COLUMN, _ROW = WIDTH + 20, HEIGHT + 34
_THREAD = 28  # the column of a line that passes a layer
_SWEEPS = 6
Edge = tuple[int, int]
_Point = tuple[float, float]


@dataclass(frozen=True)
class Layout:
    """A drawing of boxes that are numbered from 0.

    Attributes:
        places: The left upper corner of each box.
        lines: For each edge, the points that it goes through, from box to box.
        width: Of all.
        height: Of all.
    """

    places: tuple[_Point, ...]
    lines: tuple[tuple[_Point, ...], ...]
    width: float
    height: float


def layout(count: int, edges: Sequence[Edge]) -> Layout:
    """Lays out a graph; each edge leads from a lower number to a higher one."""
    layers = _layers(count, edges)
    chains, widths, rows = _chains(count, edges, layers)
    above: dict[int, list[int]] = defaultdict(list)
    below: dict[int, list[int]] = defaultdict(list)
    for chain in chains:
        for upper, lower in pairwise(chain):
            below[upper].append(lower)
            above[lower].append(upper)
    _order(rows, above, below)
    middles = _middles(rows, widths, above, below)
    left = min((middles[number] - widths[number] / 2 for number in middles), default=0.0)
    right = max((middles[number] + widths[number] / 2 for number in middles), default=0.0)
    level = {number: place for place, row in enumerate(rows) for number in row}
    places = tuple((middles[number] - WIDTH / 2 - left, float(level[number] * _ROW)) for number in range(count))
    lines = tuple(_line(chain, middles, level, left) for chain in chains)
    return Layout(places, lines, right - left, max(0.0, len(rows) * _ROW - (_ROW - HEIGHT)))


def _layers(count: int, edges: Sequence[Edge]) -> list[int]:
    """By the longest path from above; what begins a path stands right above what it leads to."""
    layers = [0] * count
    for upper, lower in sorted(edges, key=lambda edge: edge[1]):
        layers[lower] = max(layers[lower], layers[upper] + 1)
    fed = {lower for _, lower in edges}
    for number in range(count):
        if number not in fed and (readers := [layers[lower] for upper, lower in edges if upper == number]):
            layers[number] = min(readers) - 1
    return layers


def _chains(
    count: int, edges: Sequence[Edge], layers: Sequence[int]
) -> tuple[list[list[int]], dict[int, float], list[list[int]]]:
    """Each edge as a chain with a number of its own in each layer that it passes; all widths; and all layers."""
    rows: list[list[int]] = [[] for _ in range(max(layers, default=-1) + 1)]
    widths: dict[int, float] = dict.fromkeys(range(count), float(_COLUMN))
    for number in range(count):
        rows[layers[number]].append(number)
    chains = []
    for upper, lower in edges:
        passed = range(layers[upper] + 1, layers[lower])
        threads = list(range(len(widths), len(widths) + len(passed)))
        widths |= dict.fromkeys(threads, float(_THREAD))
        for layer, thread in zip(passed, threads, strict=True):
            rows[layer].append(thread)
        chains.append([upper, *threads, lower])
    return chains, widths, rows


def _order(rows: list[list[int]], above: Mapping[int, list[int]], below: Mapping[int, list[int]]) -> None:
    """Sorts each row by where its neighbours are, downwards and upwards by turns."""
    for sweep in range(_SWEEPS):
        down = sweep % 2 == 0
        for before, row in _pairs(rows, down=down):
            place = {number: index for index, number in enumerate(before)}
            near = above if down else below
            keys = {
                number: _mean([place[each] for each in near.get(number, ())], index) for index, number in enumerate(row)
            }
            row.sort(key=keys.__getitem__)


def _pairs(rows: list[list[int]], *, down: bool) -> list[tuple[list[int], list[int]]]:
    """Each row with the one that is looked at before it."""
    ordered = rows if down else rows[::-1]
    return list(pairwise(ordered))


def _mean(values: Sequence[float], default: float) -> float:
    return sum(values) / len(values) if values else default


def _middles(
    rows: list[list[int]],
    widths: Mapping[int, float],
    above: Mapping[int, list[int]],
    below: Mapping[int, list[int]],
) -> dict[int, float]:
    """The middle of each box, as near to the mean of its neighbours as the order and the widths of its row allow."""
    middles: dict[int, float] = {}
    for row in rows:
        middles |= dict(zip(row, _offsets(row, widths), strict=True))
    for sweep in range(_SWEEPS):
        down = sweep % 2 == 0
        for _, row in _pairs(rows, down=down):
            near = above if down else below
            wanted = [_mean([middles[each] for each in near.get(number, ())], middles[number]) for number in row]
            middles |= dict(zip(row, _apart(wanted, _offsets(row, widths)), strict=True))
    return middles


def _offsets(row: Sequence[int], widths: Mapping[int, float]) -> list[float]:
    """The middles of a row in which each stands beside the one before."""
    offsets, end = [], 0.0
    for number in row:
        offsets.append(end + widths[number] / 2)
        end += widths[number]
    return offsets


def _apart(wanted: Sequence[float], offsets: Sequence[float]) -> list[float]:
    """The places nearest to the wanted ones (least squares) at which none overlaps: pooled adjacent violators."""
    pools: list[tuple[float, int]] = []
    for place, offset in zip(wanted, offsets, strict=True):
        mean, count = place - offset, 1
        while pools and pools[-1][0] > mean:
            other, size = pools.pop()
            mean, count = (mean * count + other * size) / (count + size), count + size
        pools.append((mean, count))
    shifts = [mean for mean, count in pools for _ in range(count)]
    return [shift + offset for shift, offset in zip(shifts, offsets, strict=True)]


def _line(
    chain: Sequence[int], middles: Mapping[int, float], level: Mapping[int, int], left: float
) -> tuple[_Point, ...]:
    """From the bottom of a box to the top of another."""
    first, *threads, last = chain
    passed = [
        (middles[thread] - left, level[thread] * _ROW + part) for thread in threads for part in (0.0, float(HEIGHT))
    ]
    start = middles[first] - left, float(level[first] * _ROW + HEIGHT)
    end = middles[last] - left, float(level[last] * _ROW)
    return (start, *passed, end)
