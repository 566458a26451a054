"""The verb: two models in, one answer out."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

import numpy.typing as npt
import onnx
import onnx.inliner

from bnfold.graph import Graph
from bnfold.model_io import Model, load
from bnfold.verify.endtoend import Run, Tolerance, run_both
from bnfold.verify.given import given
from bnfold.verify.inputs import DISTRIBUTIONS, CannotGenerate, Generator
from bnfold.verify.judge import Judge
from bnfold.verify.ports import invalid, matched_outputs, required_inputs
from bnfold.verify.regional import Comparison, compare_regions
from bnfold.verify.result import Outcome, OutputFigures, Verdict, Verification
from bnfold.verify.runner import Limits, Runner
from bnfold.verify.scenes import scenes
from bnfold.verify.variations import weights_moved

Source = str | os.PathLike[str] | onnx.ModelProto | Model
_FEW = ("normal",)
Progress = Callable[[str, int, int], None]


def verify(
    before: Source,
    after: Source,
    *,
    shapes: Mapping[str, Sequence[int]] | None = None,
    dims: Mapping[str, int] | None = None,
    data: Sequence[str | Path] | Iterable[Mapping[str, npt.ArrayLike]] | None = None,
    rtol: float | None = None,
    atol: float | None = None,
    providers: Sequence[str] = ("CPUExecutionProvider",),
    map_output: Mapping[str, str] | None = None,
    seed: int = 0,
    thorough: bool = False,
    timeout: float = 1800.0,
    memory: int | None = None,
    run: bool = True,
    progress: Progress | None = None,
) -> Verification:
    """Finds out whether two models compute the same.

    Args:
        before: A model: a path, or one in memory.
        after: The model made from it.
        shapes: Shapes of inputs, for those whose shape the model does not say.
        dims: Sizes of named dimensions.
        data: Inputs to run on, as ``bnfold.data.open_data`` takes them; made up if there is none.
        rtol: Accepted difference of an output relative to max |y|. Without it and ``atol``, the noise floor decides.
        atol: Accepted absolute difference of an output.
        providers: ONNX Runtime's execution providers.
        map_output: Outputs of ``before`` that have another name in ``after``.
        seed: Of the made-up inputs.
        thorough: Run on every kind of made-up inputs, and not on normal ones alone.
        timeout: Seconds for running the models.
        memory: Bytes for running the models; None for as much as there is.
        run: Whether to run the models as a whole, beside comparing them region by region.
        progress: Told what is being done, how much of it is done, and how much there is.

    Raises:
        ModelError: A model cannot be read, the two have other inputs or outputs, or data does not fit them.
    """
    left, right = _loaded(before), _loaded(after)
    names = matched_outputs(left, right, map_output or {})
    if not invalid(left) and (wrong := invalid(right)):
        return Verification(Verdict.DIFFERENT, reasons=(f"AFTER is no valid model: {wrong}",), seed=seed)
    graph = Graph(_inlined(left))
    samples = [] if data is None else given(data, required_inputs(left))
    shapes = {**(samples[0].shapes if samples else {}), **(shapes or {})}
    generator = Generator(graph, shapes, dims or {}, seed)
    found, problem = _regions(graph, Graph(_inlined(right)), names, generator, seed, progress or _silent)
    ran = Run(problem="it was not asked for")
    if run:
        (progress or _silent)("running both models", 0, 1)
        with Runner(Limits(timeout, memory)) as runner:
            files = runner.file_of(before, left), runner.file_of(after, right)
            ran = run_both(
                runner,
                *files,
                lambda: runner.write(weights_moved(left, right)),
                names,
                generator,
                data=samples,
                distributions=DISTRIBUTIONS if thorough else _FEW,
                providers=providers,
                tolerance=Tolerance(rtol, atol),
            )
        (progress or _silent)("running both models", 1, 1)
    return conclusion(found, problem, ran, seed)


# Of max |y|: no rounding that is amplified on its way through a network is believed to be this large.
_GROSS = 0.5


def _silent(what: str, done: int, total: int) -> None:
    """Tells nobody."""


def _loaded(source: Source) -> Model:
    return source if isinstance(source, Model) else load(source)


def _inlined(model: Model) -> Model:
    """The model without functions of its own: their nodes stand where they are called."""
    if not model.proto.functions:
        return model
    copy = model.copy()
    copy.proto = onnx.inliner.inline_local_functions(copy.proto)
    return copy


def _regions(
    before: Graph, after: Graph, names: Mapping[str, str], generator: Generator, seed: int, progress: Progress
) -> tuple[Comparison, str]:
    try:
        stage = scenes(before.model, generator.candidates())
    except CannotGenerate as error:
        return Comparison(), str(error)
    judge = Judge(before, after, stage, seed)
    return compare_regions(before, after, names, judge, progress), ""


def conclusion(found: Comparison, problem: str, ran: Run, seed: int) -> Verification:
    """The verdict: regions decide where they can, running decides where they cannot."""
    different = found.having(Outcome.DIFFERENT)
    unknown = found.having(Outcome.NOT_EVALUATED)
    complete = not problem and not unknown
    reasons = [str(region) for region in different]
    broken = [output for output in ran.outputs if output.misplaced]
    beyond = [output for output in ran.outputs if not output.passed]
    if ran.failure:
        reasons.append(f"AFTER does not run: {ran.failure}")
    reasons += [_beyond(output) for output in beyond]
    drowned = [output for output in ran.outputs if output.tolerance > _GROSS]  # random operators, say
    gross = [output for output in beyond if output.max_rel > _GROSS]
    if different or ran.failure or broken or gross or (beyond and not complete):
        verdict = Verdict.DIFFERENT
    elif complete or (ran.was_run and not drowned):
        verdict = Verdict.EQUIVALENT
    else:
        verdict = Verdict.NOT_RUN
    if problem:
        reasons.append(f"not compared region by region: {problem}")
    reasons += [str(region) for region in unknown]
    reasons += [f"output {output.name!r} tells nothing: its noise is as large as itself" for output in drowned]
    if not ran.was_run:
        reasons.append(f"not run: {ran.problem}")
    elif beyond and verdict is Verdict.EQUIVALENT:
        reasons.append("every region is equal in float64: the difference is how the runtime computes and rounds")
    return Verification(
        verdict=verdict,
        outputs=ran.outputs,
        regions=tuple(found.regions),
        complete=complete,
        shared=found.shared,
        how=ran.how,
        reasons=tuple(reasons),
        seed=seed,
    )


def _beyond(output: OutputFigures) -> str:
    if output.misplaced:
        return f"output {output.name!r}: {output.misplaced} entries are NaN or infinite on one side only, or not alike"
    accepted = f"accepted are {output.tolerance:.2g}"
    return f"output {output.name!r} differs by {output.max_rel:.2g} of max |y|, {accepted}"
