"""`bnfold.optimize`: folds, compares, writes."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from enum import StrEnum
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Unpack

from bnfold.folding import FoldArguments, FoldOptions, plan
from bnfold.folding.keep import check_patterns
from bnfold.folding.record import Outcome
from bnfold.folding.stated import stated_shapes
from bnfold.limits import Deadline
from bnfold.model_io import Model, ModelLike, Output, destination_of, load, staged, sweep, write_stream
from bnfold.model_io.tensors import all_tensors, is_external
from bnfold.model_io.wire import size
from bnfold.optimization.difference import difference
from bnfold.optimization.errors import NotAllFolded, NotEquivalent, NotVerified
from bnfold.optimization.forecast import named
from bnfold.optimization.gate import FailOn, Gate
from bnfold.optimization.inventory import Change, Inventory
from bnfold.optimization.results import Optimized

if TYPE_CHECKING:
    from bnfold.calibration import Calibration
    from bnfold.calibration.measuring.batches import Data
    from bnfold.certificate import Draft
    from bnfold.verification import Verification


class VerifyMode(StrEnum):
    """What to do about comparing the folded model with the original."""

    AUTO = "auto"  # compare; write the model even if nothing can evaluate it, or exercise a difference
    REQUIRE = "require"  # compare; write nothing if that is not possible
    OFF = "off"


def optimize(
    model: ModelLike,
    output: Output = None,
    *,
    in_place: bool = False,
    overwrite: bool = False,
    verify: VerifyMode | str = VerifyMode.AUTO,
    calibrate: Data | None = None,
    calibration: Mapping[str, Any] | None = None,
    certificate: str | os.PathLike[str] | None = None,
    counterexample: str | os.PathLike[str] | None = None,
    require_none: bool = False,
    allow: Sequence[str] = (),
    dry_run: bool = False,
    diff: bool = False,
    timeout: float = 300.0,
    memory: int | None = None,
    progress: Callable[[str, int, int], None] | None = None,
    **options: Unpack[FoldArguments],
) -> Optimized:
    """Folds a model, compares the result with the original, and writes it if they are equivalent.

    Args:
        model: As in `plan`; one in memory is not changed.
        output: Where to write the folded model; replaced if it exists. By default `NAME.folded.onnx` beside
            `NAME.onnx`; a model in memory is written nowhere by default (see `Optimized.proto`).
        in_place: Write over the model itself.
        overwrite: The default output may be replaced if it exists, and so may a counterexample.
        verify: Whether to compare, and what to do if that is not possible.
        calibrate: Data to take the BatchNormalizations' statistics from first, as `bnfold.calibrate` does; the folded
            model is then compared with the calibrated one.
        calibration: Arguments of `bnfold.calibrate` beside model, data and output, for instance `{"method": "paper"}`.
        certificate: Where to write a record that `verify_certificate` can check; it needs two files, and so is not for
            models in memory, in place, or while calibrating.
        counterexample: A folder to make if the folded model is not equivalent; see `verify`.
        require_none: Write nothing if an operator BatchNormalization stays, for compilers that know none.
        allow: Exceptions to that, as in `check`.
        dry_run: Do all of it, and write nothing.
        diff: Tell of each node whether it is gone, has changed or has come.
        timeout: Seconds for calibrating, as many for deciding what to fold, for comparing region by region, and for
            running the models. If they run out, what is not decided stays, and what is not compared is not verified.
        memory: Bytes for each process that measures or compares; None for as much as there is.
        progress: Told what is being done, how much of it is done, and how much there is.
        options: As in `plan`; the two are compared for the `shapes` and `dims` that are stated there, and no others.

    Raises:
        ModelError: The model cannot be read, a pattern in `keep` matches no node, stated sizes do not fit the model, or
            the output cannot be written.
        NotAllFolded: A BatchNormalization stays, and `require_none` is set.
        NotEquivalent: The folded model computes something else.
        NotVerified: The models could not be compared, and `verify` is "require".
        TimeoutError, MemoryError: There was not enough for calibrating.
    """
    begun = time.monotonic()
    if calibration is not None and calibrate is None:
        raise TypeError("calibration says how to calibrate, and needs data to do it: calibrate")
    if dry_run and certificate is not None:
        raise TypeError("a certificate is of two files, and a dry run writes none")
    mode = VerifyMode(verify)
    gate = Gate((FailOn.ANY,), allow)
    asked = FoldOptions(**options)
    loaded = load(model)
    file, stream = destination_of(
        *(model, loaded, output), in_place=in_place, suffix=".folded.onnx", overwrite=overwrite or dry_run
    )
    if dry_run:
        file = stream = counterexample = None
    drafted = loaded if calibrate is None else None
    draft = _draft(certificate, drafted, file, asked) if certificate is not None else None
    before = _nbytes(loaded, loaded.path)
    reference = loaded.path or loaded
    calibrated = None
    if calibrate is not None:
        how = {"timeout": timeout, "memory": memory, "progress": progress, **(calibration or {})}
        calibrated = _calibrated(loaded, calibrate, how, asked, named(model))
        reference = loaded = calibrated.model
    if progress is not None:
        progress("deciding what folds", 0, 1)
    counted = Inventory.of(loaded.proto)
    planned = plan(loaded, asked, Deadline.after(timeout))
    nodes = difference(loaded.proto, planned.model.proto) if diff else None
    change = Change.of(counted, loaded, planned)
    made = partial(
        Optimized, named(model), planned, change=change, difference=nodes, calibration=calibrated, is_dry=dry_run
    )
    unchanged = not planned.changes and calibrate is None
    left = [entry for entry in gate.stopped(planned) if entry.is_batchnorm and entry.outcome is Outcome.KEPT]
    if require_none and left:
        raise NotAllFolded(made(None, before, _nbytes(planned.model, None), stopped=tuple(left)))

    def verified(after: Path | None) -> Optimized:
        # of a file that was written, what it says itself: folded tensors have moved to another data file
        written = load(after) if after is not None and planned.model.has_data_files else planned.model
        result = made(file, before, _nbytes(written, after))
        if mode is VerifyMode.OFF or not planned.changes:
            return replace(result, seconds=time.monotonic() - begun)
        found = _compared(
            reference,
            after or planned.model,
            shapes=asked.shapes,
            dims=asked.dims,
            timeout=timeout,
            memory=memory,
            counterexample=counterexample,
            overwrite=overwrite,
            progress=progress,
        )
        return _accepted(replace(result, verification=found, seconds=time.monotonic() - begun), mode)

    if file is not None and not (unchanged and in_place):
        with staged(planned.model, file, unchanged=unchanged) as path:
            result = verified(path)
            if draft is not None:
                draft.fill(planned, path, result.verification)
        if draft is not None:
            draft.write()
        return result
    result = verified(None)
    if file is not None:
        sweep(Path(os.path.realpath(file)).parent)  # as writing would have done
    elif stream is not None:
        write_stream(planned.model, stream)
    return result


def _draft(
    path: str | os.PathLike[str],
    model: Model | None,
    file: Path | None,
    asked: FoldOptions,
) -> Draft:
    from bnfold.certificate import Draft, Options  # noqa: PLC0415 -- takes long, and is seldom asked for

    return Draft(Path(path), model, file, Options(asked))


def _calibrated(model: Model, data: Data, options: Mapping[str, Any], asked: FoldOptions, name: str) -> Calibration:
    check_patterns(model, asked.keep)  # what is wrong with them would come out long afterwards
    stated_shapes(model, asked)
    from bnfold.calibration import calibrate  # noqa: PLC0415 -- takes long, and is rarely asked for

    if stray := {"model", "data", "output", "in_place"} & options.keys():
        raise TypeError(f"calibration takes no {min(stray)!r}: that is an argument of its own")
    found: Calibration = calibrate(model, data, **options)
    return replace(found, source=name)


def _compared(before: Path | Model, after: Path | Model, **options: Any) -> Verification:
    from bnfold.verification import Verdict, Verification, verify  # noqa: PLC0415 -- takes long, is not always needed

    try:
        return verify(before, after, strict=False, **options)
    except MemoryError:
        return Verification(Verdict.NOT_VERIFIED, reasons=("there was not enough memory",))


def _accepted(result: Optimized, mode: VerifyMode) -> Optimized:
    """The result, if it may be written."""
    assert result.verification is not None
    if result.verification.is_different:
        raise NotEquivalent(replace(result, output=None))
    if not result.verification.passed and mode is VerifyMode.REQUIRE:
        raise NotVerified(replace(result, output=None))
    return result


def _nbytes(model: Model, path: Path | None) -> int:
    """Size of the model, data files included; ``path`` is where it is stored, if it is."""
    inside = path.stat().st_size if path else size(model.pieces())
    if not model.has_data_files:
        return inside
    external = (model.payload(tensor) for tensor in all_tensors(model.proto) if is_external(tensor))
    return inside + sum(payload.nbytes for payload in external if payload)
