"""Exact population statistics, for any batch size: every BatchNormalization measured behind finished ones.

One pass after another would measure BatchNormalization k with all above it frozen at their final statistics. Here the
graph is cut between depths instead, and each segment goes on from the activations that the last one left, so that
every node runs once for each sample (see segments.py), or now and then again where memory is short (cuts.py).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from bnfold.affine import FloatArray
from bnfold.calibration.error import CalibrationError
from bnfold.calibration.measuring.cuts import Budget, Cuts, choose
from bnfold.calibration.measuring.measure import Subject
from bnfold.calibration.measuring.segments import START
from bnfold.calibration.running.program import nbytes
from bnfold.calibration.statistics.moments import Statistics

Blend = Callable[[int, Statistics], tuple[FloatArray, FloatArray]]
"""The mean and variance that a target of some number shall hold, from what was measured."""


@dataclass(frozen=True)
class SequentialRun:
    """What a sequential run gives: statistics by target number, and how the cuts were chosen."""

    measured: list[Statistics]
    cuts: Cuts


def sequential(subject: Subject, budget: Budget, blend: Blend) -> SequentialRun:
    """Measures every target with all others above it at the statistics that they shall hold.

    Args:
        subject: the model on its data.
        budget: for cached activations.
        blend: what a target shall hold.

    Raises:
        CalibrationError: a variance is undefined, or ONNX Runtime fails.
    """
    cuts = _cuts(subject, budget)
    measured: dict[int, Statistics] = {}
    frozen: dict[int, tuple[FloatArray, FloatArray]] = {}
    start = START
    for cut in cuts.chosen:
        for segment in range(start + 1, cut + 1):
            found = _segment(subject, start, segment, frozen, saves=segment == cut)
            for number, statistics in found.items():
                _refuse_single(subject, number, statistics)
                measured[number] = statistics
                frozen[number] = blend(number, statistics)
        start = cut
    return SequentialRun([measured[number] for number in range(len(subject.targets))], cuts)


def _segment(
    subject: Subject, start: int, segment: int, frozen: dict[int, tuple[FloatArray, FloatArray]], *, saves: bool
) -> dict[int, Statistics]:
    """Runs from the cut `start` to the end of a segment; with `saves`, its cut becomes the next start."""
    subject.engine.deadline.heed()
    numbers = subject.segments.measured(segment)
    before = subject.segments.crossing(start)
    after = subject.segments.crossing(segment) if saves else []
    keeps = [value for value in after if value not in set(before)]
    frees = [value for value in before if value not in set(after)] if saves else []
    wanted = [subject.targets[number].x for number in numbers]
    ops = subject.segments.between(start, [*wanted, *keeps])
    builder = subject.builder()
    subject.emit(builder, ops, frozen)
    readings = [builder.measure(n, subject.targets[n], subject.forms[n]) for n in numbers]
    program = subject.program(builder, ops, wanted, readings, keeps, frees)
    what = f"segment {segment + 1} of {subject.segments.count}"
    found = subject.measure(program, numbers, what)
    subject.engine.forget(program.frees, subject.samples.batches)
    return dict(zip(numbers, found, strict=True))


def _cuts(subject: Subject, budget: Budget) -> Cuts:
    rows = max(subject.samples.few.rows, 1)
    sizes = {name: nbytes(described) // rows for name, described in subject.values.items()}
    shapes = {name: (1, *described.shape[1:]) for name, described in subject.values.items()}
    return choose(subject.segments, sizes, shapes, subject.samples.count, budget, subject.engine.deadline)


def _refuse_single(subject: Subject, number: int, statistics: Statistics) -> None:
    if statistics.count == 1:
        name = subject.targets[number].name
        raise CalibrationError(f"{name}: one value per channel in all of the data has no variance: give more samples")
