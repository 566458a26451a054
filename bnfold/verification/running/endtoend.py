"""Both models as they will run: under ONNX Runtime, its graph optimisations off, against a measured noise floor."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from bnfold.verification.running.inputs import CannotGenerate, Generator, Sample
from bnfold.verification.running.outputs import Pair, Run, Tolerance, held_against, noise
from bnfold.verification.running.runner import Job, Outputs, Runner
from bnfold.verification.running.variations import moved_by_an_ulp

_FLOAT64 = "float64 in the place of ONNX Runtime"
_MOST_CANDIDATES = 24


@dataclass(frozen=True)
class _Setup:
    before: Path
    after: Path
    varied: Callable[[], Path]
    names: Mapping[str, str]
    providers: Sequence[str]


def run_both(
    runner: Runner,
    before: Path,
    after: Path,
    varied: Callable[[], Path],
    names: Mapping[str, str],
    generator: Generator,
    *,
    data: Sequence[Sample],
    distributions: Sequence[str],
    providers: Sequence[str],
    tolerance: Tolerance,
) -> Run:
    """Runs both models on the same inputs and compares their outputs.

    Args:
        runner: Where to run them.
        before: The file of a model.
        after: The file of the model made from it.
        varied: Makes a file of ``before`` with its weights next to a fold moved by rounding.
        names: Each output of ``before`` with its name in ``after``.
        generator: Makes inputs up where there is no data.
        data: The user's inputs.
        distributions: What kinds of inputs to make up.
        providers: ONNX Runtime's execution providers.
        tolerance: What the user accepts.
    """
    setup = _Setup(before, after, varied, names, providers)
    problems: list[str] = []
    for float64 in (False, True):
        run = Run()
        try:
            chosen = [list(data)] if data else _samples(runner, setup, generator, distributions, float64=float64)
            for samples in chosen:
                run = _compared(runner, setup, samples, tolerance, float64=float64)
                if run.was_run:
                    return run
        except CannotGenerate as error:
            return Run(problem=str(error))
        except _NothingFits as error:
            run = Run(problem=str(error))
        problems.append(run.problem)
    return Run(problem=f"ONNX Runtime: {problems[0]}; in float64: {problems[1]}")


class _NothingFits(Exception):
    """BEFORE takes inputs of none of the shapes that were tried."""


def _samples(
    runner: Runner, setup: _Setup, generator: Generator, distributions: Sequence[str], *, float64: bool
) -> Iterator[list[Sample]]:
    """Inputs of the most sensible shapes; then, which is seldom needed, of the first that BEFORE accepts."""
    shapes = list(itertools.islice(generator.candidates(), _MOST_CANDIDATES))
    yield _of_shapes(shapes[0], generator, distributions)
    if len(shapes) > 1:
        feeds = [generator.sample(shape, "normal").feed for shape in shapes]
        found = runner.run([Job(setup.before, feeds, providers=setup.providers, float64=float64, first=True)])[0]
        if found[-1].error:
            raise _NothingFits(f"{found[0].error}; its shape was guessed: --shape {generator.guessed}=… gives it")
        yield _of_shapes(shapes[len(found) - 1], generator, distributions)


def _of_shapes(
    shapes: Mapping[str, tuple[int, ...]], generator: Generator, distributions: Sequence[str]
) -> list[Sample]:
    samples = [generator.sample(shapes, name) for name in distributions]
    for number, variant in enumerate(generator.batch_variants(shapes)):
        sample = generator.sample(variant, "normal", salt=number + 1)
        samples.append(replace(sample, name=f"normal, batch {next(iter(variant.values()))[0]}"))
    return samples


def _compared(runner: Runner, setup: _Setup, samples: Sequence[Sample], tolerance: Tolerance, *, float64: bool) -> Run:
    feeds = [sample.feed for sample in samples]
    least = min(range(len(samples)), key=lambda number: sum(array.size for array in feeds[number].values()))
    base = Job(setup.before, [*feeds, moved_by_an_ulp(feeds[least])], providers=setup.providers, float64=float64)
    before, after = runner.run([base, replace(base, model=setup.after, feeds=feeds)])
    usual = noise(before[least], before[len(samples) :])  # of the others it is not much else, until it matters
    varied: set[str] = set()
    how = _how(setup, sum(not outputs.error for outputs in before[: len(samples)]), float64=float64)
    ran = [number for number in range(len(samples)) if not before[number].error]
    usable = [number for number in ran if not after[number].is_exhausted]
    if not usable:
        return Run(problem=f"AFTER: {after[ran[0]].error}" if ran else before[0].error)
    if failed := [number for number in usable if after[number].error]:
        return Run(failure=after[failed[0]].error, failed_on=samples[failed[0]], how=how)
    pairs = [Pair(samples[number], before[number], after[number]) for number in usable]
    originals = {pair.sample.name: pair.before for pair in pairs}
    floors = dict.fromkeys(originals, usual)
    while True:
        run = held_against(pairs, setup.names, floors, tolerance, how)
        unknown = [dispute.sample for dispute in run.disputes if dispute.sample.name not in varied]
        if not unknown or tolerance.is_given:
            return run
        # only now is it worth the time to know the noise well, and only of these samples
        varied |= {sample.name for sample in unknown}
        for sample, outputs in zip(unknown, _varied(runner, setup, base, unknown), strict=True):
            floors[sample.name] = noise(originals[sample.name], outputs)


def _varied(runner: Runner, setup: _Setup, base: Job, samples: Sequence[Sample]) -> Iterator[Sequence[Outputs]]:
    """For each sample, what variations that change nothing make of it."""
    alone = replace(base, feeds=[sample.feed for sample in samples])
    moved = replace(base, feeds=[moved_by_an_ulp(sample.feed) for sample in samples])
    changes = [moved, replace(alone, model=setup.varied())]
    if not base.float64:  # which nothing of the runtime changes
        changes += [replace(alone, optimize=True), replace(alone, threads=1)]
    yield from zip(*runner.run(changes), strict=True)


def _how(setup: _Setup, runs: int, *, float64: bool) -> str:
    told = f"{runs} run{'s' * (runs != 1)}"
    if float64:
        return f"{_FLOAT64}, {told}"
    providers = "" if tuple(setup.providers) == ("CPUExecutionProvider",) else f", {', '.join(setup.providers)}"
    return f"ONNX Runtime with graph optimisations off{providers}, {told}"
