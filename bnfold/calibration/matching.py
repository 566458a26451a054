"""Calibration by a reference: layers without a BatchNormalization get what one would give them.

A float model says what mean and standard deviation each channel of a layer shall have, measured on the data. In the
model they are measured like BatchNormalizations, each behind corrected ones, and corrected through the bias:

    mean             y' = y + (mean' - mean)
    mean-variance    y' = (std' / std) * y + (mean' - (std' / std) * mean)
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from bnfold import batchnorm
from bnfold.affine import FloatArray
from bnfold.calibration.error import CalibrationError
from bnfold.calibration.figures import number
from bnfold.calibration.matched import EPSILON, Matched, MatchedLayer
from bnfold.calibration.measuring.batches import Data, inputs_of, of_both
from bnfold.calibration.measuring.cuts import Cuts
from bnfold.calibration.measuring.sequential import sequential
from bnfold.calibration.measuring.targets import ALL, Selection, Skipped
from bnfold.calibration.place import RunOptions, Workplace, workplace
from bnfold.calibration.reference.bias import added, bias_of
from bnfold.calibration.reference.forms import Unfit
from bnfold.calibration.reference.layers import Layer, layers, reason
from bnfold.calibration.reference.probes import mean_and_var, probed
from bnfold.calibration.reference.twins import Pair, pairs
from bnfold.calibration.reference.write import Correction, why_not_scaled, with_corrections
from bnfold.calibration.result import ERROR_LIMIT, enough, largest
from bnfold.calibration.statistics.methods import Method
from bnfold.calibration.statistics.moments import Statistics, difference_error
from bnfold.graph import Graph
from bnfold.model_io import Model
from bnfold.page import some
from bnfold.reasons import Refused

_MOST_SCALED = 8.0
"""A channel that hardly varies is not scaled up to what it should: what it is then made of is noise."""
_LEAST_SCALED = 1e-3
"""One that shall not vary at all is scaled down to this: a scale of 0 could not be taken back."""
_MOST_APART = 1.0
_LEAST_OPSET = 7
_REFERENCE = "the reference"
_WORSE = 0.25  # standard deviations: more than what grids and channels that hardly vary make of a correction


@dataclass(frozen=True, eq=False)
class Models:
    """Both models, with the names that reports call them by."""

    model: Model
    reference: Model
    source: str
    reference_name: str


def matched(
    models: Models,
    data: Data,
    method: Method,
    options: RunOptions,
    selection: Selection = ALL,
    *,
    check: bool = True,
    memory: int | None = None,
    disk: int | None = None,
) -> Matched:
    """The model with its layers matched to those of the reference; see `calibrate`.

    Raises:
        CalibrationError: no layer can be matched, or the two do not fit each other.
    """
    graph, other = (Graph(model, assume_constant=True) for model in (models.model, models.reference))
    for each, whose in ((graph, "the model"), (other, _REFERENCE)):
        _refuse_unready(each, whose)
    inputs = of_both(inputs_of(graph), inputs_of(other))
    found, skipped = _found(graph, other, selection)
    with workplace(inputs, data, options, memory, disk) as here:
        should = _met(here, models.reference, [(p.twin, p.twin_depth) for p in found], _REFERENCE)
        found, should, others = _alike(found, should)
        skipped += others
        sites = [(pair.layer, pair.depth) for pair in found]
        before = _met(here, models.model, sites, "before") if check else [None] * len(found)
        run = _Run(found, should, method)
        cuts, notes = run.measure(here, models.model, sites)
        result = with_corrections(models.model, run.corrections)
        after = _met(here, result, sites, "checking") if check else [None] * len(found)
    layers_ = tuple(
        _layer(pair, correction, goal, measured, then, now)
        for pair, correction, goal, measured, then, now in zip(
            found, run.corrections, should, run.measured, before, after, strict=True
        )
    )
    _refuse_worse(layers_)
    return Matched(
        source=models.source,
        model=result,
        method=method,
        samples=here.samples.count,
        batch_size=max(batch.rows for batch in here.samples.batches),
        layers=layers_,
        skipped=tuple(skipped),
        warnings=(*notes, *_warnings(layers_, run, here)),
        cuts=cuts,
        reference=models.reference_name,
    )


class _Run:
    """The corrections of a model's layers, found one after the other."""

    def __init__(self, found: Sequence[Pair], should: Sequence[Statistics], method: Method) -> None:
        self._pairs = found
        self._should = should
        self._scales = method is Method.MEAN_VARIANCE
        self._by_number: dict[int, Correction] = {}
        self.measured: list[Statistics] = []
        self.unscaled: dict[str, str] = {}

    @property
    def corrections(self) -> list[Correction]:
        return [self._by_number[number] for number in range(len(self._pairs))]

    def measure(
        self, here: Workplace, model: Model, sites: Sequence[tuple[Layer, int]]
    ) -> tuple[Cuts, tuple[str, ...]]:
        """Measures every layer behind corrected ones; gives the cuts, and what the user should know."""
        copy = probed(model, sites)
        subject = here.subject(copy.model, copy.graph, copy.survey)
        run = sequential(subject, here.budget, self._blend)
        self.measured = run.measured
        return run.cuts, copy.survey.notes

    def _blend(self, number: int, met: Statistics) -> tuple[FloatArray, FloatArray]:
        pair, should = self._pairs[number], self._should[number]
        scale = self._scale(pair, should, met)
        shift = should.mean - scale * met.mean if met.count and should.count else np.zeros(met.mean.size)
        bias = bias_of(pair.layer, pair.depth)
        stored = bias.after(scale, shift)
        correction = Correction(pair.layer, pair.depth, scale, bias.shift_of(scale, stored), stored)
        self._by_number[number] = correction
        return mean_and_var(correction.scale, correction.shift)

    def _scale(self, pair: Pair, should: Statistics, met: Statistics) -> FloatArray:
        ones = np.ones(met.mean.size)
        if not (self._scales and met.count and should.count):
            return ones
        if why := why_not_scaled(pair.layer, pair.depth):
            self.unscaled[pair.layer.name] = why
            return ones
        ratio = np.sqrt(np.divide(should.var, met.var, out=ones, where=met.var > 0))
        return np.where(ratio > _MOST_SCALED, 1.0, np.maximum(ratio, _LEAST_SCALED))


def _found(graph: Graph, other: Graph, selection: Selection) -> tuple[list[Pair], list[Skipped]]:
    """The pairs that can be corrected, and the layers that are left.

    Raises:
        CalibrationError: there is no pair.
    """
    ours, unfit = layers(graph)
    theirs, _ = layers(other)
    selection.check([*(layer.op for layer in ours), *(op for op, _ in unfit)], "layer")
    kept = [layer for layer in ours if selection.leaves_out(layer.op)]
    found, alone = pairs([layer for layer in ours if layer not in kept], theirs)
    skipped = [Skipped(entry.layer.name, entry.why) for entry in alone]
    skipped += [Skipped(op.label, why) for op, why in unfit if not selection.leaves_out(op)]
    good = []
    for pair in found:
        try:
            bias_of(pair.layer, pair.depth)
            good.append(pair)
        except (Unfit, Refused) as error:
            skipped.append(Skipped(pair.layer.name, reason(error)))
    if not good:
        raise CalibrationError(f"nothing to match: {_why_none(skipped, len(kept), len(theirs))}")
    return good, [*skipped, *(Skipped(layer.name, "is kept by its name", is_asked=True) for layer in kept)]


def _alike(found: Sequence[Pair], should: Sequence[Statistics]) -> tuple[list[Pair], list[Statistics], list[Skipped]]:
    """Without those of which one is folded, it seems, but not to what the other computes.

    Raises:
        CalibrationError: none is left.
    """
    good, means, skipped = [], [], []
    for pair, met in zip(found, should, strict=True):
        apart = _apart(pair, met) if pair.is_folded else 0.0
        if apart > _MOST_APART:
            why = f"adds other numbers than its twin {pair.twin.name}: {number(apart)} standard deviations apart"
            skipped.append(Skipped(pair.layer.name, why))
        else:
            good.append(pair)
            means.append(met)
    if not good:
        raise CalibrationError(f"nothing to match: {skipped[0].name} {skipped[0].why}")
    return good, means, skipped


def _apart(pair: Pair, met: Statistics) -> float:
    """How far what a layer and its twin add is apart, in the twin's standard deviations."""
    try:
        ours, theirs = added(pair.layer, pair.depth), added(pair.twin, pair.twin_depth)
    except (Unfit, Refused):
        return math.inf
    return largest(ours - theirs, np.sqrt(met.var + EPSILON))


def _why_none(skipped: Sequence[Skipped], kept: int, theirs: int) -> str:
    if skipped:
        return f"{skipped[0].name} {skipped[0].why}"
    if kept:
        return "every layer is kept by its name"
    where = "the model" if theirs else "either model"
    return f"there is no Conv, ConvTranspose, Gemm or MatMul with weights in {where}"


def _refuse_unready(graph: Graph, whose: str) -> None:
    """Refuses what cannot have a BatchNormalization, and what is not done with its own."""
    if graph.main.opsets.get("", 0) < _LEAST_OPSET:
        raise CalibrationError(f"{whose} is of opset {graph.main.opsets.get('', 0)}: {_LEAST_OPSET} is needed")
    for op in graph.ops():
        if batchnorm.is_batchnorm(op) and batchnorm.is_training(op):
            raise CalibrationError(
                f"{op.label} of {whose} is in training mode: calibrate it first, without --reference"
            )


def _met(here: Workplace, model: Model, sites: Sequence[tuple[Layer, int]], what: str) -> list[Statistics]:
    """What layers of a model make of the data."""
    copy = probed(model, sites, what if what == _REFERENCE else "the model")
    subject = here.subject(copy.model, copy.graph, copy.survey)
    as_it_is = [mean_and_var(np.ones(layer.channels), np.zeros(layer.channels)) for layer, _ in sites]
    return subject.in_inference_mode([mean for mean, _ in as_it_is], [var for _, var in as_it_is], what)


def _layer(
    pair: Pair,
    correction: Correction,
    should: Statistics,
    measured: Statistics,
    before: Statistics | None,
    after: Statistics | None,
) -> MatchedLayer:
    layer = MatchedLayer(
        name=pair.layer.name,
        mean=should.mean,
        var=should.var,
        old_mean=(before or measured).mean,
        old_var=(before or measured).var,
        measured=measured,
        epsilon=EPSILON,
        twin=pair.twin.name,
        is_named=pair.is_named,
        scale=correction.scale,
        shift=correction.shift,
        before=before,
        after=after,
        shift_error=difference_error(should, measured),
    )
    return replace(layer, residual=layer.off)


def _refuse_worse(found: Sequence[MatchedLayer]) -> None:
    """Refuses what has made it worse, whatever the reason: each mean should be that of its twin now."""
    for layer in found:
        if layer.after is None or not layer.after.count:
            continue
        off, before = (math.inf if value is None else value for value in (layer.off, layer.off_before))
        if off > max(before, _WORSE):
            raise CalibrationError(
                f"{layer.name}: its means would be off by {number(off)} standard deviations, and were by "
                f"{number(before)}: leave it as it is, with --keep"
            )


def _warnings(found: Sequence[MatchedLayer], run: _Run, here: Workplace) -> Iterator[str]:
    yield from here.samples.notes
    if idle := [layer.name for layer in found if not layer.measured.count]:
        yield f"nothing reached {some(idle)}: they are as they were"
    errors = {layer.name: layer.error for layer in found if math.isfinite(layer.error)}
    if errors and max(errors.values()) > ERROR_LIMIT:
        worst = max(errors, key=lambda name: errors[name])
        needed = enough(here.samples.count, list(errors.values()), ERROR_LIMIT)
        yield (
            f"a correction of {worst} is known to {number(errors[worst])} standard deviations only; about {needed} "
            f"samples would bring that to {ERROR_LIMIT}"
        )
    for why in dict.fromkeys(run.unscaled.values()):
        names = [name for name, reason_ in run.unscaled.items() if reason_ == why]
        yield f"of {some(names)} only the means are matched: {why}"
