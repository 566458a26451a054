"""`bnfold.calibrate`: the verb, from arguments to result."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import BinaryIO, Unpack, overload

import numpy as np
from onnx import TensorProto

from bnfold import batchnorm
from bnfold.affine import FloatArray
from bnfold.calibration.error import CalibrationError
from bnfold.calibration.figures import number
from bnfold.calibration.matched import Matched
from bnfold.calibration.matching import Models, matched
from bnfold.calibration.measuring.batches import Data
from bnfold.calibration.measuring.cuts import Budget, Cuts
from bnfold.calibration.measuring.measure import Subject
from bnfold.calibration.measuring.sequential import sequential
from bnfold.calibration.measuring.targets import Target, shared
from bnfold.calibration.options import (
    MOMENTUM,
    CalibrationArguments,
    Options,
    method_of,
    options_of,
    refuse_pointless,
    selection_of,
)
from bnfold.calibration.place import RunArguments, RunOptions, measuring, named
from bnfold.calibration.ready import ready
from bnfold.calibration.result import ERROR_LIMIT, Calibration, Layer, enough, residual
from bnfold.calibration.rewrite import with_statistics
from bnfold.calibration.statistics.methods import BATCH_METHODS, Ema, Estimator, Method
from bnfold.calibration.statistics.moments import Statistics
from bnfold.model_io import Model, ModelLike, Output, destination_of, load, refuse_data, staged, write_stream
from bnfold.page import some

RESIDUAL_LIMIT = 1e-5
"""A residual above this is warned of, where sampling does not leave far more open."""
_NARROW_LIMITS: dict[int, float] = {
    TensorProto.FLOAT16: 2e-3,
    TensorProto.BFLOAT16: 2e-2,
}  # two units in the last place of activations
_FEW_BATCHES = 8  # the spread between fewer batches says little
_EMA_FORGETS = 5  # time constants until the start of a moving average is forgotten: e^-5 = 0.7 %


@overload
def calibrate(
    model: ModelLike | Model,
    data: Data,
    output: Output = None,
    *,
    reference: None = None,
    **options: Unpack[CalibrationArguments],
) -> Calibration: ...


@overload
def calibrate(
    model: ModelLike | Model,
    data: Data,
    output: Output = None,
    *,
    reference: ModelLike | Model,
    **options: Unpack[CalibrationArguments],
) -> Matched: ...


def calibrate(
    model: ModelLike | Model,
    data: Data,
    output: Output = None,
    *,
    in_place: bool = False,
    reference: ModelLike | Model | None = None,
    method: Method | str | None = None,
    momentum: float = MOMENTUM,
    unbiased: bool = False,
    prior: float = 0.0,
    reset: bool = False,
    only: Sequence[str] = (),
    keep: Sequence[str] = (),
    check: bool = True,
    cache_memory: int | None = None,
    cache_disk: int | None = None,
    **options: Unpack[RunArguments],
) -> Calibration:
    """Gives the BatchNormalizations of a model the statistics of some data, and puts them in inference mode.

    Args:
        model: a path or a model in memory, which is not changed; in training or inference mode.
        data: paths (`.npy`, `.npz`, folders, globs, `test_data_set_*`, `script.py:function`, URLs), an array or a
            dict of arrays with all samples, an iterable of batches such as a torch DataLoader, or a
            CalibrationDataReader.
        output: where to write the calibrated model, whole or not at all: a path, replaced if it exists, or a stream.
            By default it is written nowhere; see `Calibration.save`.
        in_place: write over the model itself.
        reference: a float model whose layers say what means those of this one shall have: for models without
            BatchNormalizations that were quantized or pruned. Gives a `Matched`.
        method: `sequential` (the default: exact, for any batch size), `paper` (Algorithm 2 of Ioffe & Szegedy 2015),
            `pooled` or `ema`; with a reference `mean` (the default) or `mean-variance`.
        momentum: of `ema`, in ONNX's sense: the share of the old value in each step (PyTorch's is 1 minus this).
        unbiased: whether `ema` takes m/(m-1)·var, as PyTorch does.
        prior: this many pseudo-samples of the stored statistics are blended in: (prior·old + n·new) / (prior + n),
            means and variances each (Schneider et al. 2020).
        reset: forget the stored statistics: mean 0, variance 1. Matters to `ema`, which starts from them.
        only: calibrate none but the BatchNormalizations whose names match one of these patterns (`*`, `?`, `[…]`).
        keep: and not those that match one of these. Others stay as they are, as a frozen backbone does.
        check: measure once more, on the calibrated model, and give the residual (sequential only).
        cache_memory: bytes of activations that `sequential` may hold in memory; a quarter of what is free by default.
        cache_disk: bytes beyond that on disk; a quarter of what is free by default.
        options: the attributes of `RunOptions`: which samples are measured, and where.

    Raises:
        ModelError: the model or the data cannot be read or do not fit each other (`CalibrationError`, `DataError`).
        TimeoutError: it would take longer.
        MemoryError: it would need more.
    """
    started = time.monotonic()
    run = RunOptions(**options)
    chosen = method_of(method, of_reference=reference is not None)
    how = options_of(chosen, momentum, unbiased=unbiased, prior=prior, reset=reset, check=check)
    loaded = load(model)
    run.deadline.heed()  # a large model takes its time to be read
    file, stream = destination_of(model, loaded, output, in_place=in_place)
    selection = selection_of(only, keep)
    if reference is not None:
        refuse_pointless(momentum, unbiased=unbiased, prior=prior, reset=reset, in_place=in_place)
        models = Models(loaded, load(reference), named(model), named(reference, "the reference"))
        _refuse_same(file, models.reference)
        found = matched(models, data, chosen, run, selection, check=check, memory=cache_memory, disk=cache_disk)
        found = replace(found, seconds=time.monotonic() - started, output=file)
        _write(found.model, file, stream)
        return found
    loaded, notes = ready(loaded, selection)
    with measuring(loaded, data, run, selection, cache_memory, cache_disk) as (subject, budget):
        layers, cuts = _measure(subject, how, budget)
        samples = subject.samples
    result = Calibration(
        source=named(model),
        model=with_statistics(loaded, [layer.mean for layer in layers], [layer.var for layer in layers], selection),
        method=how.method,
        samples=samples.count,
        batch_size=max(batch.rows for batch in samples.batches),
        layers=layers,
        skipped=subject.survey.skipped,
        seconds=time.monotonic() - started,
        cuts=cuts,
        output=file,
    )
    result = replace(result, warnings=(*notes, *_warnings(result, subject, how)))
    _write(result.model, file, stream)
    return result


def _write(model: Model, file: Path | None, stream: BinaryIO | None) -> None:
    if file is not None:
        with staged(model, file):
            pass
    elif stream is not None:
        write_stream(model, stream)


def _refuse_same(file: Path | None, reference: Model) -> None:
    if file is not None and reference.path is not None:
        if reference.path.exists() and file.exists() and file.samefile(reference.path):
            raise CalibrationError(f"{file}: is the reference")
        refuse_data(file, reference)


def _measure(subject: Subject, options: Options, budget: Budget) -> tuple[tuple[Layer, ...], Cuts | None]:
    if options.prior or (options.method is Method.EMA and not options.reset):
        for target in subject.targets:
            if options.prior or target.is_known:  # a moving average can start from 0 and 1
                target.refuse_senseless()
    if options.method is Method.SEQUENTIAL:
        run = sequential(subject, budget, lambda *found: _held(subject, options, *found))
        held = [_held(subject, options, number, statistics) for number, statistics in enumerate(run.measured)]
        layers = _layers(subject, run.measured, held)
        return (_checked(subject, layers) if options.check else layers), run.cuts
    estimators = [_estimator(target, options) for target in subject.targets]
    measured = subject.in_training_mode(estimators)
    found = list(map(subject.with_estimate, range(len(measured)), measured, estimators))
    held = [_held(subject, options, number, statistics) for number, statistics in enumerate(found)]
    return _layers(subject, found, held), None


def _estimator(target: Target, options: Options) -> Estimator:
    if options.method is not Method.EMA:
        return BATCH_METHODS[options.method](target.channels)
    fresh = np.zeros(target.channels), np.ones(target.channels)
    mean, var = fresh if options.reset else (target.mean, target.var)
    return Ema(options.momentum, mean, var, options.unbiased)


def _held(subject: Subject, options: Options, number: int, found: Statistics) -> tuple[FloatArray, FloatArray]:
    """What a target shall hold, in the precision of the model: the mean and the variance that were found.

    With a prior they are blended with the stored ones, (N·old + n·new) / (N + n). Where nothing was measured they are
    the stored ones.
    """
    target = subject.targets[number]
    if not found.count:
        return target.mean, target.var
    share = subject.samples.count / (subject.samples.count + options.prior)
    if share == 1:
        return target.stored(found.mean, found.var)
    old, new = 1 - share, share
    return target.stored(new * found.mean + old * target.mean, new * found.var + old * target.var)


def _layers(subject: Subject, found: list[Statistics], held: list[tuple[FloatArray, FloatArray]]) -> tuple[Layer, ...]:
    return tuple(
        Layer(target.name, mean, var, target.mean, target.var, statistics, batchnorm.epsilon(target.op))
        for target, statistics, (mean, var) in zip(subject.targets, found, held, strict=True)
    )


def _checked(subject: Subject, layers: tuple[Layer, ...]) -> tuple[Layer, ...]:
    """The layers with what one pass through the calibrated model says of them."""
    again = subject.in_inference_mode([layer.mean for layer in layers], [layer.var for layer in layers], "checking")
    return tuple(
        replace(layer, residual=residual(layer.measured, statistics, layer.epsilon) if statistics.count else None)
        for layer, statistics in zip(layers, again, strict=True)
    )


def _warnings(result: Calibration, subject: Subject, options: Options) -> Iterator[str]:
    yield from subject.survey.notes
    yield from shared(subject.targets)
    yield from subject.samples.notes
    if idle := [layer.name for layer in result.layers if not layer.measured.count]:
        yield f"nothing reached {some(idle)}: they hold what they held"
    measured = [layer for layer in result.layers if layer.measured.count]
    if dead := [f"{layer.name} ({len(layer.dead)})" for layer in measured if layer.dead]:
        yield f"channels that hardly vary are scaled up by gamma / sqrt(epsilon): {some(dead)}"
    limit = max(_NARROW_LIMITS.get(form.kind, RESIDUAL_LIMIT) for form in subject.forms)
    if any(layer.meets_others(limit) for layer in result.layers):
        yield f"the calibrated model meets other statistics than it holds: they differ by up to {result.residual:.1e}"
    yield from _about_precision(result, measured, options, len(subject.samples.batches))


def _about_precision(result: Calibration, measured: list[Layer], options: Options, batches: int) -> Iterator[str]:
    if options.method is Method.EMA and batches < (needed := math.ceil(_EMA_FORGETS / (1 - options.momentum))):
        yield (
            f"a moving average with momentum {options.momentum:g} has not forgotten its start before {needed} batches; "
            f"this were {batches}: lower --momentum, or take another method"
        )
    if options.method is not Method.SEQUENTIAL and batches < _FEW_BATCHES:
        how = "rough" if batches > 1 else "not known"
        yield f"the standard errors are {how}: {_FEW_BATCHES} batches or more tell them, not {batches}"
        return
    errors = [layer.error for layer in measured]
    if errors and not all(map(math.isfinite, errors)):
        yield "the standard errors are not known from a single sample"
    elif errors and max(errors) > ERROR_LIMIT:
        worst = max(measured, key=lambda layer: layer.error)
        yield (
            f"a mean of {worst.name} is known to {number(worst.error)} standard deviations only; about "
            f"{enough(result.samples, errors, ERROR_LIMIT)} samples would bring that to {ERROR_LIMIT}"
        )
