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
from bnfold.verify.conclusion import conclusion
from bnfold.verify.endtoend import Run, Tolerance, run_both
from bnfold.verify.evaluate import CannotEvaluate
from bnfold.verify.given import given
from bnfold.verify.inputs import DISTRIBUTIONS, CannotGenerate, Generator
from bnfold.verify.judge import Judge
from bnfold.verify.ports import invalid, matched_outputs, required_inputs
from bnfold.verify.referee import Referee, Ruling
from bnfold.verify.regional import Comparison, compare_regions
from bnfold.verify.result import Outcome, Verdict, Verification
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
    after_graph = Graph(_inlined(right))
    found, problem = _regions(graph, after_graph, names, generator, seed, progress or _silent)
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
    rulings: list[Ruling] | None = []
    if ran.disputes and not found.having(Outcome.DIFFERENT):
        (progress or _silent)("running both models in float64", 0, 1)
        rulings = _rulings(graph, after_graph, lambda: Graph(_inlined(weights_moved(right, left))), names, ran)
        (progress or _silent)("running both models in float64", 1, 1)
    return conclusion(found, problem, ran, rulings, seed)


def _silent(what: str, done: int, total: int) -> None:
    """Tells nobody."""


def _loaded(source: Source) -> Model:
    return source if isinstance(source, Model) else load(source)


def _inlined(model: Model) -> Model:
    """The model without functions of its own: their nodes stand where they are called."""
    if not model.proto.functions:
        return model
    copy = model.copy()
    copy.proto = onnx.inliner.inline_local_functions(copy.proto, convert_version=True)
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


def _rulings(
    before: Graph, after: Graph, moved: Callable[[], Graph], names: Mapping[str, str], ran: Run
) -> list[Ruling] | None:
    """What float64 has to say of the runs that were not accepted; None if it cannot be asked."""
    referee = Referee(before, after, moved, names)
    try:
        return [ruling for dispute in ran.disputes for ruling in referee.rulings(dispute)]
    except CannotEvaluate:
        return None
