"""Both models as they will run: under ONNX Runtime, its graph optimisations off, against a measured noise floor."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from bnfold.verify.figures import Figures, figures
from bnfold.verify.inputs import CannotGenerate, Generator, Sample
from bnfold.verify.result import OutputFigures
from bnfold.verify.runner import Job, Outputs, Runner
from bnfold.verify.variations import moved_by_an_ulp

Array = npt.NDArray[Any]
_Pair = tuple[Sample, Outputs, Outputs]

_FLOORS = 10.0  # a correct fold is another rounding of the same function, a few times the noise at the most
_LEAST_EPSILONS = 16.0  # noise of an output whose variations happen to round alike
_MOST_CANDIDATES = 24
_NOTHING = np.empty((0, 0))  # stands for an entry of a sequence that one side does not have


@dataclass(frozen=True)
class Tolerance:
    """What the user accepts: ``atol + rtol * max |y|``; both None where the noise floor decides."""

    rtol: float | None = None
    atol: float | None = None

    @property
    def is_given(self) -> bool:
        return self.rtol is not None or self.atol is not None

    def relative(self, scale: float) -> float:
        """The tolerance as a fraction of the scale of an output."""
        return (self.rtol or 0.0) + ((self.atol or 0.0) / scale if scale else 0.0)


@dataclass(frozen=True, eq=False)
class Dispute:
    """A run in which some outputs are further apart than is accepted.

    Attributes:
        sample: The inputs.
        before: The outputs of BEFORE by name.
        after: Those of AFTER, under the names of BEFORE.
        figures: What is known of the outputs in question.
    """

    sample: Sample
    before: dict[str, Array]
    after: dict[str, Array]
    figures: tuple[OutputFigures, ...]


@dataclass(frozen=True)
class Run:
    """What running both models came to.

    Attributes:
        outputs: Figures for each output, the worst of all samples.
        how: How they were run.
        problem: Why BEFORE could not be run; then nothing is known.
        failure: Why AFTER could not be run where BEFORE could.
        disputes: The runs that were not accepted.
        is_final: Whether the user says what is accepted.
    """

    outputs: tuple[OutputFigures, ...] = ()
    how: str = ""
    problem: str = ""
    failure: str = ""
    disputes: tuple[Dispute, ...] = ()
    is_final: bool = False

    @property
    def was_run(self) -> bool:
        return not self.problem

    @property
    def passed(self) -> bool:
        return not self.failure and all(output.passed for output in self.outputs)


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
    for reference in (False, True):
        try:
            samples = list(data) or _samples(runner, setup, generator, distributions, reference=reference)
        except CannotGenerate as error:
            return Run(problem=str(error))
        if isinstance(samples, str):
            problems.append(samples)
            continue
        run = _compared(runner, setup, samples, tolerance, reference=reference)
        if run.was_run:
            return run
        problems.append(run.problem)
    return Run(problem=f"ONNX Runtime: {problems[0]}; onnx.reference: {problems[1]}")


def _samples(
    runner: Runner, setup: _Setup, generator: Generator, distributions: Sequence[str], *, reference: bool
) -> list[Sample] | str:
    """Inputs of the first shapes that BEFORE accepts, or why there are none."""
    shapes = list(itertools.islice(generator.candidates(), _MOST_CANDIDATES))
    fitting = shapes[0]
    if len(shapes) > 1:
        feeds = [generator.sample(shape, "normal").feed for shape in shapes]
        job = Job(setup.before, feeds, providers=setup.providers, reference=reference, first=True)
        found = runner.run([job])[0]
        if found[-1].error:
            return found[0].error
        fitting = shapes[len(found) - 1]
    samples = [generator.sample(fitting, name) for name in distributions]
    for number, variant in enumerate(generator.batch_variants(fitting)):
        sample = generator.sample(variant, "normal", salt=number + 1)
        samples.append(replace(sample, name=f"normal, batch {next(iter(variant.values()))[0]}"))
    return samples


def _compared(
    runner: Runner, setup: _Setup, samples: Sequence[Sample], tolerance: Tolerance, *, reference: bool
) -> Run:
    feeds = [sample.feed for sample in samples]
    base = Job(setup.before, [*feeds, moved_by_an_ulp(feeds[0])], providers=setup.providers, reference=reference)
    before, after = runner.run([base, replace(base, model=setup.after, feeds=feeds)])
    how = _how(setup, sum(not outputs.error for outputs in before[:-1]), reference=reference)
    usable = [number for number in range(len(samples)) if not before[number].error]
    if not usable:
        return Run(problem=before[0].error)
    if failed := [after[number].error for number in usable if after[number].error]:
        return Run(failure=failed[0], how=how)
    pairs = [(samples[number], before[number], after[number]) for number in usable]
    variants = [before[-1]]
    run = _run(pairs, setup.names, _floors(before[0], variants), tolerance, how)
    if tolerance.is_given:
        return replace(run, is_final=True)
    if run.passed or reference:
        return run
    # only now is it worth the time to know the noise well
    alone = replace(base, feeds=feeds[:1])
    changes = replace(alone, optimize=True), replace(alone, threads=1), replace(alone, model=setup.varied())
    more = runner.run(changes)
    variants += [run for results in more for run in results]
    return _run(pairs, setup.names, _floors(before[0], variants), tolerance, how)


def _run(
    pairs: Sequence[_Pair], names: Mapping[str, str], floors: Mapping[str, float], tolerance: Tolerance, how: str
) -> Run:
    originals = {renamed: name for name, renamed in names.items()}
    # entries of sequences are not there in every run, nor on both sides
    every = dict.fromkeys(name for _, before, _ in pairs for name in before.arrays)
    every |= dict.fromkeys(_renamed(name, originals) for _, _, after in pairs for name in after.arrays)
    outputs = [_worst(name, names, pairs, floors.get(name, 0.0), tolerance) for name in every]
    return Run(tuple(outputs), how, disputes=tuple(_disputes(pairs, names, outputs)))


def _disputes(pairs: Sequence[_Pair], names: Mapping[str, str], outputs: Sequence[OutputFigures]) -> Iterator[Dispute]:
    for sample, before, after in pairs:
        if beyond := tuple(output for output in outputs if not output.passed and output.inputs == sample.name):
            theirs = {name: after.arrays.get(_renamed(name, names), _NOTHING) for name in before.arrays}
            yield Dispute(sample, before.arrays, theirs, beyond)


def _floors(before: Outputs, variants: Sequence[Outputs]) -> dict[str, float]:
    """By output, the largest difference that a variation made which changes nothing."""
    floors: dict[str, float] = {}
    for variant in variants:
        for name, array in before.arrays.items() if not variant.error else ():
            found = figures(array, variant.arrays.get(name, _NOTHING))
            if not found.misplaced:
                floors[name] = max(floors.get(name, 0.0), found.max_rel)
    return floors


def _worst(
    name: str,
    names: Mapping[str, str],
    pairs: Sequence[_Pair],
    floor: float,
    tolerance: Tolerance,
) -> OutputFigures:
    judged = []
    for sample, before, after in pairs:
        left, right = before.arrays.get(name, _NOTHING), after.arrays.get(_renamed(name, names), _NOTHING)
        if left is not _NOTHING or right is not _NOTHING:
            judged.append((left, _judged(name, sample, figures(left, right), left.dtype, floor, tolerance)))
    # what overflows by itself says nothing by where it does, as long as there is something else to go by
    sound = [found for left, found in judged if found.inputs != "large" or _is_finite(left)]
    return max(sound or [found for _, found in judged], key=lambda found: (not found.passed, found.max_rel))


def _renamed(name: str, names: Mapping[str, str]) -> str:
    """The name in AFTER; an entry of a sequence or map has that of its output and a key."""
    output, bracket, key = name.partition("[") if name not in names else (name, "", "")
    return names.get(output, output) + bracket + key


def _judged(
    name: str, sample: Sample, found: Figures, dtype: np.dtype[Any], floor: float, tolerance: Tolerance
) -> OutputFigures:
    if tolerance.is_given:
        accepted = tolerance.relative(found.scale)
    else:
        accepted = max(_FLOORS * floor, _LEAST_EPSILONS * _epsilon(dtype))
    passed = not found.misplaced and found.max_rel <= accepted
    return OutputFigures(name=name, floor=floor, tolerance=accepted, inputs=sample.name, passed=passed, **asdict(found))


def _epsilon(dtype: np.dtype[Any]) -> float:
    if dtype.kind != "f":
        return 2.0**-8 if dtype.kind == "V" else 0.0
    return float(np.finfo(dtype).eps)


def _is_finite(array: Array) -> bool:
    return array.dtype.kind != "f" or bool(np.isfinite(array).all())


def _how(setup: _Setup, runs: int, *, reference: bool) -> str:
    if reference:
        return f"onnx.reference, {runs} runs"
    providers = "" if tuple(setup.providers) == ("CPUExecutionProvider",) else f", {', '.join(setup.providers)}"
    return f"ONNX Runtime with graph optimisations off{providers}, {runs} runs"
