"""Which activations to keep between segments, when not all of them fit.

Between two chosen cuts i < j every segment w in (i, j] runs from cut i on, so

    cost = sum over chosen (i, j] of  sum over w in (i, j] of work(i..w)  +  price of what does not fit in memory at j

and a cut can be chosen if memory and disk together hold what crosses it. Dynamic programming finds the cheapest set.
Work is counted in multiply-adds, not measured, so that two runs choose the same cuts and give the same bits.
"""

from __future__ import annotations

import math
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from bnfold.calibration.measuring.segments import START, Segments
from bnfold.graph import Op, Value
from bnfold.limits import NEVER, Deadline, Limits

_WORK_PER_BYTE = 1.0
"""Multiply-adds in the time that an elementwise operator takes for a byte: 10 GB/s beside 10 GMAC/s, one thread."""
_WORK_PER_SPILLED_BYTE = 20.0
"""The same for a byte that is written to disk and read again, at 1 GB/s each way."""
_SHARE_OF_FREE = 4


@dataclass(frozen=True)
class Budget:
    """Bytes for activations: in memory, and beyond that on disk."""

    memory: int
    disk: int


@dataclass(frozen=True)
class Cuts:
    """The chosen cuts, ascending, the last segment's among them, and what they cost.

    Attributes:
        chosen: the cuts.
        work: multiply-adds per sample, recomputation included.
        least: multiply-adds per sample when nothing is computed twice.
        peak: bytes per sample at the fullest cut.
    """

    chosen: tuple[int, ...]
    work: float
    least: float
    peak: int


def choose(
    segments: Segments,
    sizes: Mapping[str, int],
    shapes: Mapping[str, Sequence[int]],
    samples: int,
    budget: Budget,
    deadline: Deadline = NEVER,
) -> Cuts:
    """The cheapest cuts that `samples` samples fit through.

    Args:
        segments: the schedule.
        sizes: bytes per sample of each value, by name.
        shapes: the shape of each value for one sample, by name.
        samples: how many samples there are.
        budget: where activations may go.
        deadline: when it has to be done.

    Raises:
        TimeoutError: the time is over.
    """
    work = [sum(_work(op, sizes, shapes) for op in ops) for ops in segments.alone()]
    held = [sum(sizes.get(value.name, 0) for value in segments.crossing(cut)) for cut in range(segments.count)]
    best: list[float] = [0.0]  # of the first k segments, k = 0 …
    origin: list[int] = [START]
    for stop in range(segments.count):
        deadline.heed()
        spilled = max(0, held[stop] * samples - budget.memory)
        price = math.inf if spilled > budget.disk else _WORK_PER_SPILLED_BYTE * spilled / max(samples, 1)
        ways = ((best[start + 1] + chunk, start) for start, chunk in _chunks(work, stop))
        least, start = min(ways)
        best.append(least + price)
        origin.append(start)
    chosen, cut = [], segments.count - 1
    while cut > START:
        chosen.append(cut)
        cut = origin[cut + 1]
    return Cuts(tuple(reversed(chosen)), best[-1], sum(work), max((held[cut] for cut in chosen), default=0))


def default_budget(folder: Path, limits: Limits) -> Budget:
    """A quarter of the memory that is free, or may be had, and a quarter of the disk that holds `folder`."""
    memory = min(_free_memory(), limits.memory or _free_memory())
    return Budget(memory // _SHARE_OF_FREE, shutil.disk_usage(folder).free // _SHARE_OF_FREE)


def _chunks(work: Sequence[float], stop: int) -> Iterator[tuple[int, float]]:
    """For each cut before `stop`, the work of segments up to `stop`, each run from that cut on."""
    chunk = 0.0
    for segment in range(stop, START, -1):
        chunk += work[segment] * (stop - segment + 1)
        yield segment - 1, chunk


def _work(op: Op, sizes: Mapping[str, int], shapes: Mapping[str, Sequence[int]]) -> float:
    """Multiply-adds of a node for one sample, and what moving its output takes."""
    out = next((value for value in op.outputs if value is not None), None)
    if out is None or out.name not in shapes:
        return 0.0
    moved = _WORK_PER_BYTE * sizes[out.name]
    return moved + _inner(op, shapes) * math.prod(shapes[out.name])


def _inner(op: Op, shapes: Mapping[str, Sequence[int]]) -> float:
    """Multiply-adds for each element of the output."""
    weight = _shape(op.input(1), shapes)
    if op.type in ("Conv", "ConvTranspose") and weight:
        return math.prod(weight[1:])
    if op.type in ("MatMul", "Gemm") and len(weight) > 1:
        return weight[-1] if op.attribute("transB", 0) else weight[-2]
    return 0.0


def _shape(value: Value | None, shapes: Mapping[str, Sequence[int]]) -> Sequence[int]:
    if value is None:
        return ()
    return tuple(value.tensor.dims) if value.tensor is not None else tuple(shapes.get(value.name, ()))


def _free_memory() -> int:
    """Bytes that this process may still take: what the machine has free, or what its container may take."""
    try:
        with open("/proc/meminfo") as file:
            entries = dict(line.split(":") for line in file)
        free = int(entries["MemAvailable"].split()[0]) << 10
    except (OSError, KeyError, ValueError):
        pages = os.sysconf("SC_PHYS_PAGES") if hasattr(os, "sysconf") else 0
        free = pages * os.sysconf("SC_PAGE_SIZE") // 2 if pages else 4 << 30
    try:
        limit = int(Path("/sys/fs/cgroup/memory.max").read_text())
        used = int(Path("/sys/fs/cgroup/memory.current").read_text())
    except (OSError, ValueError):
        return free
    return max(0, min(free, limit - used))
