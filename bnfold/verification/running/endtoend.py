"""Both models as they will run: under ONNX Runtime, its graph optimisations off, against a measured noise floor."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

from bnfold.verification.running.inputs import CannotGenerate, Generator, Sample
from bnfold.verification.running.outputs import Pair, Run, Tolerance, held_against, noise
from bnfold.verification.running.runner import Job, Outputs, Runner
from bnfold.verification.running.variations import moved_by_an_ulp

_FLOAT64 = "float64 in the place of ONNX Runtime"
_BATCHES = 2  # candidates where nothing else is open


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
    likely: Mapping[str, tuple[int, ...]] | None = None,
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
        likely: Shapes of the inputs that BEFORE seems to take. If it does not, the first that it takes are looked for.
    """
    setup = _Setup(before, after, varied, names, providers)
    if likely is not None and not data and len(list(generator.candidates())) > _BATCHES:
        with suppress(CannotGenerate):
            run = _compared(runner, setup, _made_up(generator, distributions, likely), tolerance, float64=False)
            if run.was_run:
                return run
    problems: list[str] = []
    for float64 in (False, True):
        try:
            samples = list(data) or _samples(runner, setup, generator, distributions, float64=float64)
        except CannotGenerate as error:
            return Run(problem=str(error))
        if isinstance(samples, str):
            problems.append(samples)
            continue
        run = _compared(runner, setup, samples, tolerance, float64=float64)
        if run.was_run:
            return run
        problems.append(run.problem)
    return Run(problem=f"ONNX Runtime: {problems[0]}; in float64: {problems[1]}")


def _samples(
    runner: Runner, setup: _Setup, generator: Generator, distributions: Sequence[str], *, float64: bool
) -> list[Sample] | str:
    """Inputs of the first shapes that BEFORE accepts, or why there are none."""
    shapes = list(generator.candidates())
    fitting = shapes[0]
    # where nothing but the batch is open, and one kind of inputs is asked for, they are tried in all batches anyway
    if len(shapes) > _BATCHES or len(shapes) > 1 < len(distributions):
        feeds = [generator.sample(shape, "normal").feed for shape in shapes]
        job = Job(setup.before, feeds, providers=setup.providers, float64=float64, first=True)
        found = runner.run([job])[0]
        if found[-1].error:
            return f"{found[0].error}; its shape was guessed: --shape {generator.guessed}=… gives it"
        fitting = shapes[len(found) - 1]
    return _made_up(generator, distributions, fitting)


def _made_up(
    generator: Generator, distributions: Sequence[str], fitting: Mapping[str, tuple[int, ...]]
) -> list[Sample]:
    """Inputs of these shapes, and in other numbers if that is open."""
    samples = [generator.sample(fitting, name) for name in distributions]
    for number, variant in enumerate(generator.batch_variants(fitting)):
        sample = generator.sample(variant, "normal", salt=number + 1)
        samples.append(replace(sample, name=f"normal, batch {next(iter(variant.values()))[0]}", like="normal"))
    for number, variant in enumerate(generator.length_variants(fitting)):  # which BEFORE may refuse
        sample = generator.sample(variant, "normal", salt=len(samples))
        samples.append(replace(sample, name=f"normal, {('other', 'equal')[number]} lengths"))
    return samples


def _compared(runner: Runner, setup: _Setup, samples: Sequence[Sample], tolerance: Tolerance, *, float64: bool) -> Run:
    feeds = [sample.feed for sample in samples]
    # of samples that differ in nothing but their number, the fewest tell how large the noise is
    fewest = {sample.kind: sample for sample in sorted(samples, key=lambda sample: sample.entries, reverse=True)}
    moved = [moved_by_an_ulp(sample.feed) for sample in fewest.values()]
    base = Job(setup.before, [*feeds, *moved], providers=setup.providers, float64=float64)
    before, after = runner.run([base, replace(base, model=setup.after, feeds=feeds)])
    varied: set[str] = set()
    how = _how(setup, sum(not outputs.error for outputs in before[: len(samples)]), float64=float64)
    ran = [number for number in range(len(samples)) if not before[number].error]
    usable = [number for number in ran if not after[number].is_exhausted]
    if not usable:
        return Run(problem=f"AFTER: {after[ran[0]].error}" if ran else before[0].error)
    if failed := [number for number in usable if after[number].error]:
        return Run(failure=after[failed[0]].error, failed_on=samples[failed[0]], how=how)
    pairs = {samples[number].name: Pair(samples[number], before[number], after[number]) for number in usable}
    measured = zip(fewest.values(), before[len(samples) :], strict=True)
    known = {s.kind: noise(pairs[s.name].before, [outputs]) for s, outputs in measured if s.name in pairs}
    floors = {name: known.get(pair.sample.kind, {}) for name, pair in pairs.items()}
    while True:
        run = held_against(list(pairs.values()), setup.names, floors, tolerance, how)
        unknown = [dispute.sample for dispute in run.disputes if dispute.sample.name not in varied]
        if not unknown or tolerance.is_given:
            return run
        # only now is it worth the time to know the noise well, and only of these samples
        varied |= {sample.name for sample in unknown}
        for sample, outputs in zip(unknown, _varied(runner, setup, base, unknown), strict=True):
            floors[sample.name] = noise(pairs[sample.name].before, outputs)


def _varied(runner: Runner, setup: _Setup, base: Job, samples: Sequence[Sample]) -> Iterator[Sequence[Outputs]]:
    """For each sample, what variations that change nothing make of it."""
    alone = replace(base, feeds=[sample.feed for sample in samples])
    moved = replace(alone, feeds=[moved_by_an_ulp(feed) for feed in alone.feeds])
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
