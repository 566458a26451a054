"""The verb: two models in, one answer out."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path

from bnfold.confined import Exhausted, Progress, confined
from bnfold.graph import Graph, inlined
from bnfold.graph.ports import Port, invalid, lost_defaults, matched_outputs, mistyped, reordered, required_inputs
from bnfold.graph.sizes import sized
from bnfold.limits import Deadline, Limits
from bnfold.model_io import Model, ModelError, ModelLike, load
from bnfold.reasons import Refused
from bnfold.verification.conclusion import conclusion
from bnfold.verification.evidence import Evidence, refuse_occupied, write
from bnfold.verification.float64.evaluate import CannotEvaluate, OutOfTime
from bnfold.verification.float64.kept import Kept
from bnfold.verification.regions.alignment import Comparison, compare_regions
from bnfold.verification.regions.judge import Judge
from bnfold.verification.regions.scenes import scenes, taken
from bnfold.verification.result import Outcome, Verdict, Verification
from bnfold.verification.running.admission import admitted, refuse_invalid
from bnfold.verification.running.endtoend import run_both
from bnfold.verification.running.given import Data, given
from bnfold.verification.running.inputs import DISTRIBUTIONS, CannotGenerate, Generator
from bnfold.verification.running.outputs import Run, Tolerance
from bnfold.verification.running.ranges import ranges
from bnfold.verification.running.referee import Referee, Ruling
from bnfold.verification.running.runner import CPU, Runner
from bnfold.verification.running.shown import of_run
from bnfold.verification.running.variations import weights_moved

Source = ModelLike | Model
_FEW = ("normal",)
_ENTRIES_A_SECOND = 10**7
_BYTES_AN_ENTRY = 64


def verify(
    before: Source,
    after: Source,
    *,
    shapes: Mapping[str, Sequence[int]] | None = None,
    dims: Mapping[str, int] | None = None,
    data: Data | None = None,
    rtol: float | None = None,
    atol: float | None = None,
    providers: Sequence[str] = CPU,
    map_output: Mapping[str, str] | None = None,
    seed: int = 0,
    thorough: bool = False,
    timeout: float = 1800.0,
    memory: int | None = None,
    run: bool = True,
    strict: bool = True,
    counterexample: str | os.PathLike[str] | None = None,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> Verification:
    """Finds out whether two models compute the same.

    Args:
        before: A model: a path, or one in memory, in any form (see `bnfold.optimize`).
        after: The model made from it.
        shapes: Shapes of inputs, for those whose shape the model does not say; the two are compared for these alone.
        dims: Sizes of named dimensions, likewise.
        data: Inputs to run on, as ``bnfold.data.open_data`` takes them; made up if there is none.
        rtol: Accepted difference of an output relative to max |y|. Without it and ``atol``, the noise floor decides.
        atol: Accepted absolute difference of an output.
        providers: ONNX Runtime's execution providers.
        map_output: Outputs of ``before`` that have another name in ``after``.
        seed: Of the made-up inputs.
        thorough: Run on every kind of made-up inputs, and not on normal ones alone.
        timeout: Seconds for comparing region by region, and as many for running the models.
        memory: Bytes for each process that compares; None for as much as there is.
        run: Whether to run the models as a whole, beside comparing them region by region.
        strict: Refuse a ``before`` that is not valid, and models of versions or domains that ONNX Runtime does not
            know, if it is to run them. Else there is a verdict all the same, on what is left to compare.
        counterexample: A folder to make if the two are different, with what it takes to see it with other tools.
        overwrite: The folder may hold another counterexample, which is replaced.
        progress: Told what is being done, how much of it is done, and how much there is.

    Raises:
        ModelError: A model cannot be read or is refused, or its files changed meanwhile; the two have other inputs or
            outputs, or data does not fit; or the counterexample cannot be written.
    """
    folder = None if counterexample is None else Path(counterexample)
    if folder is not None:
        refuse_occupied(folder, overwrite=overwrite)
    pair = _Pair(before, after, map_output or {})
    ports = sized(required_inputs(pair.left), shapes or {}, dims or {})
    if strict:
        refuse_invalid(pair.left, run=run)
    if wrong := pair.spoilt(run=run):
        return Verification(Verdict.DIFFERENT, reasons=(f"AFTER is no valid model: {wrong}",), seed=seed)
    if strict and run:
        providers = admitted({"BEFORE": pair.left, "AFTER": pair.right}, providers)
    report = progress or _silent
    samples = [] if data is None else given(data, ports)
    known = {**(samples[0].shapes if samples else {}), **(shapes or {})}
    limits = Limits(timeout, memory)
    generator = Generator(pair.before, known, dims or {}, seed, most=_most_entries(limits))
    found = _regions(pair, generator, ports, seed, limits, report, shown=folder is not None)
    ran, rulings, late = Run(problem="it was not asked for"), None, ""
    deadline = Deadline.after(timeout)
    if run:
        report("running both models", 0, 1)
        try:
            with Runner(limits) as runner:
                ran = run_both(
                    runner,
                    runner.file_of(before, pair.left),
                    runner.file_of(after, pair.right),
                    lambda: runner.write(weights_moved(pair.left, pair.right)),
                    pair.names,
                    generator,
                    data=samples,
                    distributions=DISTRIBUTIONS if thorough else _FEW,
                    providers=providers,
                    tolerance=Tolerance(rtol, atol, ranges(pair.before)),
                    likely=found.sizes,
                )
        except MemoryError:
            ran = Run(problem="there was not enough memory")
        report("running both models", 1, 1)
    if ran.disputes and not (ran.is_final or found.having(Outcome.DIFFERENT)):
        rulings, late = _rulings(pair, ran, replace(limits, seconds=deadline.left), report)
    for model in (pair.left, pair.right):
        model.refuse_changed(at_its_path=True)  # else it was compared with parts of another one
    result = conclusion(found, ran, rulings, pair.notes, seed, late)
    if folder is None or result.verdict is not Verdict.DIFFERENT:
        return result
    return _shown(result, found, of_run(ran, pair.names), folder, overwrite=overwrite)


class _Pair:
    """Two models that can be compared.

    Attributes:
        left: BEFORE as it was given.
        right: AFTER likewise.
        before: The index of BEFORE without functions.
        after: The same of AFTER.
        names: Each output of BEFORE with its name in AFTER.
    """

    def __init__(self, before: Source, after: Source, map_output: Mapping[str, str]) -> None:
        self.left, self.right = load(before), load(after)
        self.names = matched_outputs(self.left, self.right, map_output)

    @cached_property
    def before(self) -> Graph:
        return Graph(self._flat[0])

    @cached_property
    def after(self) -> Graph:
        return Graph(self._flat[1])

    @cached_property
    def _flat(self) -> tuple[Model, Model]:
        """Both without functions; both as they are if functions of either have to stay."""
        try:
            return inlined(self.left, convert_version=True), inlined(self.right, convert_version=True)
        except Refused:
            return self.left, self.right

    def spoilt(self, *, run: bool) -> str:
        """What is wrong with AFTER, and not with BEFORE; ``run`` if ONNX Runtime will look at them too."""
        checks = (invalid,) if run else (invalid, mistyped)
        return next((wrong for check in checks if not check(self.left) and (wrong := check(self.right))), "")

    @property
    def notes(self) -> list[str]:
        """What a caller of the models should know, though they compute the same."""
        notes = []
        if lost := ", ".join(map(repr, lost_defaults(self.left, self.right))):
            notes.append(f"AFTER has no input {lost}: a caller can no longer override the default")
        if moved := reordered(self.left, self.right, self.names):
            notes.append(f"AFTER has its {moved} in another order: a caller that goes by position gets others")
        return notes

    def moved(self) -> Graph:
        """AFTER with every weight that BEFORE does not have moved by rounding."""
        moved = weights_moved(self.right, self.left)
        return Graph(moved if self._flat[1] is self.right else inlined(moved, convert_version=True))


def _silent(what: str, done: int, total: int) -> None:
    """Tells nobody."""


def _most_entries(limits: Limits) -> int:
    """Of made-up inputs: several copies of them are made, and written to a file."""
    of_time = int(limits.seconds * _ENTRIES_A_SECOND)
    memory = limits.allowed
    return of_time if memory is None else min(of_time, memory // _BYTES_AN_ENTRY)


def _shown(
    result: Verification, found: Comparison, whole: Evidence | str, folder: Path, *, overwrite: bool
) -> Verification:
    """The result, with what shows the difference in a folder: a region if there is one, else the whole models."""
    shows = found.evidence if isinstance(found.evidence, Evidence) else whole
    if isinstance(shows, str):
        why = f"no counterexample: {found.evidence or shows}"
        return replace(result, reasons=(*result.reasons, why))
    write(shows, folder, overwrite=overwrite)
    return replace(result, counterexample=str(folder))


def _evidence(judge: Judge, found: Comparison) -> Evidence | str:
    """Of the first region that differs, or why there is none."""
    different = found.having(Outcome.DIFFERENT)
    try:
        return judge.evidence(different[0]) if different else ""
    except (CannotEvaluate, ModelError, Refused) as error:
        return str(error)
    except MemoryError:
        return "there was not enough memory"


def _regions(
    pair: _Pair,
    generator: Generator,
    ports: Sequence[Port],
    seed: int,
    limits: Limits,
    progress: Progress,
    *,
    shown: bool,
) -> Comparison:
    deadline = Deadline.after(limits.seconds)

    def compared(progress: Progress) -> Comparison:
        stage = scenes(pair.before, generator.candidates(), ports, deadline)
        judge = Judge(pair.before, pair.after, stage, seed, deadline, Kept.within(limits.allowed))
        try:
            found = compare_regions(pair.before, pair.after, pair.names, judge, progress)
            found.evidence = _evidence(judge, found) if shown else ""
            found.sizes = taken(stage)
            return found
        except Refused as refused:  # an attribute of a wrong type, say
            return Comparison(problem=str(refused))

    try:
        return confined(compared, limits, progress)
    except (CannotGenerate, Exhausted) as error:
        return Comparison(problem=str(error))


def _rulings(pair: _Pair, ran: Run, limits: Limits, progress: Progress) -> tuple[list[Ruling] | None, str]:
    """What float64 has to say of the runs that were not accepted.

    None if it cannot be asked; with why, if that is for want of time or memory.
    """
    progress("running both models in float64", 0, 1)
    deadline = Deadline.after(limits.seconds)

    def ruled(_: Progress) -> list[Ruling]:
        referee = Referee(pair.before, pair.after, pair.moved, pair.names, deadline)
        return [ruling for dispute in ran.disputes for ruling in referee.rulings(dispute)]

    try:
        return confined(ruled, limits, progress), ""
    except (OutOfTime, Exhausted) as error:
        return None, str(error)
    except CannotEvaluate:
        return None, ""
    finally:
        progress("running both models in float64", 1, 1)
