"""Many graphs, one after the other; what CI and the longer run share."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context

from random_graphs.builder import Unfit
from random_graphs.generate import random_case
from random_graphs.properties import Discarded, check, usable
from random_graphs.tally import Recorder, Statistics

_CHUNK = 100


@dataclass(frozen=True)
class Fault:
    """A seed whose model came out wrong."""

    seed: int
    what: tuple[str, ...]


def examine(seed: int, statistics: Statistics) -> Fault | None:
    """One graph: counted, folded, checked."""
    try:
        case = random_case(seed)
        expected = usable(case)
    except (Unfit, Discarded):
        statistics.discarded += 1
        return None
    statistics.graphs += 1
    statistics.ops.update(case.op_types)
    statistics.opsets[case.model.opset_import[0].version] += 1
    with Recorder() as recorder:
        checked = check(case, expected)
    if checked.plan is not None:
        statistics.add(checked.plan, recorder.answers)
    return Fault(seed, checked.faults) if checked.faults else None


def campaign(seeds: range) -> tuple[Statistics, list[Fault]]:
    """All graphs of some seeds."""
    statistics = Statistics()
    return statistics, list(faults_of(seeds, statistics))


def faults_of(seeds: range, statistics: Statistics) -> Iterator[Fault]:
    """The graphs that came out wrong, as they come; all are counted."""
    for seed in seeds:
        if fault := examine(seed, statistics):
            yield fault


def parallel(seeds: range, workers: int) -> tuple[Statistics, list[Fault]]:
    """The same in several processes; the result does not depend on how many."""
    chunks = [seeds[start : start + _CHUNK] for start in range(0, len(seeds), _CHUNK)]
    statistics, faults = Statistics(), list[Fault]()
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
        for counted, found in pool.map(campaign, chunks):
            statistics.merge(counted)
            faults += found
    return statistics, faults
