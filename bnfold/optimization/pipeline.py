"""The verbs of bnfold, as Python calls them and as the command line does."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import onnx

from bnfold import escape
from bnfold.folding import FoldOptions, Leftover
from bnfold.folding import plan as make_plan
from bnfold.folding.keep import check_patterns
from bnfold.folding.options import DEFAULT_GROWTH
from bnfold.folding.record import Entry, Outcome, Plan
from bnfold.limits import Deadline
from bnfold.model_io import Model, ModelError, ModelLike, check_output, load, staged, sweep, to_proto, write_stream
from bnfold.model_io.tensors import all_tensors, is_external
from bnfold.model_io.wire import size
from bnfold.optimization.gate import FailOn, Gate
from bnfold.optimization.inventory import Change
from bnfold.optimization.results import Checked, Optimized

if TYPE_CHECKING:
    from bnfold.calibration import Calibration
    from bnfold.calibration.measuring.batches import Data


_SHOWN = 3  # names of nodes, in a line


class VerifyMode(StrEnum):
    """What to do about comparing the folded model with the original."""

    AUTO = "auto"  # compare; write the model even if nothing can evaluate it, or exercise a difference
    REQUIRE = "require"  # compare; write nothing if that is not possible
    OFF = "off"


class NotAllFolded(Exception):
    """A BatchNormalization stays, and none was to stay. Nothing was written.

    Attributes:
        result: What would have been written.
        left: The nodes that stay.
    """

    def __init__(self, result: Optimized) -> None:
        left = result.stopped
        count = f"{len(left)} BatchNormalization{'s stay' if len(left) > 1 else ' stays'}"
        names = ", ".join(entry.node for entry in left[:_SHOWN]) + (", …" if len(left) > _SHOWN else "")
        super().__init__(f"{result.source}: not written: {count}: {names}")
        self.result = result
        self.left = left


class NotVerified(Exception):
    """Verification was required, and it could not be told whether the two are equivalent. Nothing was written.

    Attributes:
        result: What would have been written, with the verification that says why not.
    """

    def __init__(self, result: Optimized) -> None:
        super().__init__(escape.line(f"{result.source}: not written: {result.verification}"))
        self.result = result


class NotEquivalent(NotVerified):
    """The folded model computes something else. Nothing was written."""


def plan(
    model: ModelLike,
    *,
    keep: Sequence[str] = (),
    assume_constant: bool = False,
    leftover: Leftover | str = Leftover.KEEP,
    max_growth: int | str | None = DEFAULT_GROWTH,
    inside_patterns: bool = False,
) -> Plan:
    """Finds out what would become of each affine node, and changes nothing.

    Args:
        model: A path, bytes, a file object, an `onnx.ModelProto`, an `onnx_ir.Model` or torch's `ONNXProgram`.
        keep: A list of names of nodes that must stay as they are; `*`, `?` and `[…]` match as in file names. A node
            without a name goes by that of its first output, as in reports.
        assume_constant: Fold also what a caller could override: initializers that are inputs of the graph too.
        leftover: What to do with a BatchNormalization that stays: `keep` it, or put a Mul and an Add (`affine`) or a
            depthwise Conv (`conv`) in its place.
        max_growth: How much larger the model may become, since a weight that several operators share is copied for
            those that change: a number of bytes, or a percentage of its size; None for any amount.
        inside_patterns: Fold also affines that are part of what runtimes compute as one operator, such as a Gelu that
            is spelt out.

    Raises:
        ModelError: The model cannot be read, or a pattern in `keep` matches no node.
        ValueError: `leftover` or `max_growth` is none of those.
    """
    options = FoldOptions(keep, assume_constant, Leftover(leftover), max_growth, inside_patterns)
    return make_plan(load(model), options)


def fold(
    model: ModelLike,
    *,
    keep: Sequence[str] = (),
    assume_constant: bool = False,
    leftover: Leftover | str = Leftover.KEEP,
    max_growth: int | str | None = DEFAULT_GROWTH,
    inside_patterns: bool = False,
) -> onnx.ModelProto:
    """The folded model in memory, not verified; arguments as in `plan`.

    Raises:
        ModelError: The model cannot be read, is over 2 GiB, or a pattern in `keep` matches no node.
    """
    made = plan(
        model,
        keep=keep,
        assume_constant=assume_constant,
        leftover=leftover,
        max_growth=max_growth,
        inside_patterns=inside_patterns,
    )
    return to_proto(made.model)


def check(
    model: ModelLike,
    *,
    keep: Sequence[str] = (),
    assume_constant: bool = False,
    max_growth: int | str | None = DEFAULT_GROWTH,
    inside_patterns: bool = False,
    timeout: float = math.inf,
    fail_on: Collection[FailOn | str] = Gate.fail_on,
    allow: Sequence[str] = (),
) -> Checked:
    """Tells which BatchNormalizations would fold and why others stay.

    Args:
        model: As in `plan`.
        keep: As in `plan`.
        assume_constant: As in `plan`.
        max_growth: As in `plan`.
        inside_patterns: As in `plan`.
        timeout: Seconds, after which what has not been decided stays, for that reason.
        fail_on: What there may not be, for the result to be `ok`: "foldable" BatchNormalizations, those in "training"
            mode, other "affines" that could fold, or "any" BatchNormalization. Mul and Add that spell one out are one.
        allow: Exceptions: names of nodes or globs of them, and names of reasons such as TRAINING_MODE.

    Raises:
        ModelError: The model cannot be read, or a pattern in `keep` matches no node.
        ValueError: There is no such thing to fail on, or `max_growth` is none.
    """
    gate = Gate(fail_on, allow)
    options = FoldOptions(keep, assume_constant, Leftover.KEEP, max_growth, inside_patterns)
    loaded = load(model)
    planned = make_plan(loaded, options, Deadline.after(timeout))
    return Checked(_name(model), planned, gate, Change.of(loaded, planned))


def optimize(
    model: ModelLike,
    output: str | os.PathLike[str] | BinaryIO | None = None,
    *,
    in_place: bool = False,
    overwrite: bool = False,
    keep: Sequence[str] = (),
    assume_constant: bool = False,
    leftover: Leftover | str = Leftover.KEEP,
    max_growth: int | str | None = DEFAULT_GROWTH,
    inside_patterns: bool = False,
    verify: VerifyMode | str = VerifyMode.AUTO,
    shapes: Mapping[str, Sequence[int]] | None = None,
    dims: Mapping[str, int] | None = None,
    calibrate: Data | None = None,
    calibration: Mapping[str, Any] | None = None,
    certificate: str | os.PathLike[str] | None = None,
    counterexample: str | os.PathLike[str] | None = None,
    require_none: bool = False,
    allow: Sequence[str] = (),
    timeout: float = 300.0,
    memory: int | None = None,
    progress: Callable[[str, int, int], None] | None = None,
) -> Optimized:
    """Folds a model, compares the result with the original, and writes it if they are equivalent.

    Args:
        model: As in `plan`; one in memory is not changed.
        output: Where to write the folded model; replaced if it exists. By default `NAME.folded.onnx` beside
            `NAME.onnx`; a model in memory is written nowhere by default (see `Optimized.proto`).
        in_place: Write over the model itself.
        overwrite: The default output may be replaced if it exists, and so may a counterexample.
        keep: As in `plan`.
        assume_constant: As in `plan`.
        leftover: As in `plan`.
        max_growth: As in `plan`.
        inside_patterns: As in `plan`.
        verify: Whether to compare, and what to do if that is not possible.
        shapes: Shapes of inputs to compare on, for those whose shape the model does not say.
        dims: Sizes of named dimensions to compare on.
        calibrate: Data to take the BatchNormalizations' statistics from first, as `bnfold.calibrate` does; the folded
            model is then compared with the calibrated one.
        calibration: Arguments of `bnfold.calibrate` beside model, data and output, for instance `{"method": "paper"}`.
        certificate: Where to write a record that `verify_certificate` can check; it needs two files, and so is not for
            models in memory, in place, or while calibrating.
        counterexample: A folder to make if the folded model is not equivalent; see `verify`.
        require_none: Write nothing if an operator BatchNormalization stays, for compilers that know none.
        allow: Exceptions to that, as in `check`.
        timeout: Seconds for calibrating, as many for deciding what to fold, for comparing region by region, and for
            running the models. If they run out, what is not decided stays, and what is not compared is not verified.
        memory: Bytes for each process that measures or compares; None for as much as there is.
        progress: Told what is being done, how much of it is done, and how much there is.

    Raises:
        ModelError: The model cannot be read, a pattern in `keep` matches no node, or the output cannot be written.
        NotAllFolded: A BatchNormalization stays, and `require_none` is set.
        NotEquivalent: The folded model computes something else.
        NotVerified: The models could not be compared, and `verify` is "require".
        TimeoutError, MemoryError: There was not enough for calibrating.
    """
    begun = time.monotonic()
    mode = VerifyMode(verify)
    gate = Gate((FailOn.ANY,), allow)
    asked = FoldOptions(keep, assume_constant, Leftover(leftover), max_growth, inside_patterns)
    loaded = load(model)
    target = _target(model, loaded, output, in_place=in_place, overwrite=overwrite)
    draft = None
    if certificate is not None:
        from bnfold.certificate import Draft, Options  # noqa: PLC0415 -- takes long, and is seldom asked for

        options = Options.of(asked, shapes or {}, dims or {})
        draft = Draft(Path(certificate), loaded if calibrate is None else None, target, options)
    before = _nbytes(loaded, loaded.path)
    reference = loaded.path or loaded
    calibrated = None
    if calibration is not None and calibrate is None:
        raise TypeError("calibration says how to calibrate, and needs data to do it: calibrate")
    if calibrate is not None:
        check_patterns(loaded, asked.keep)
        how = {"timeout": timeout, "memory": memory, "progress": progress, **(calibration or {})}
        calibrated = _calibrated(loaded, calibrate, how, _name(model))
        reference = loaded = calibrated.model
    planned = make_plan(loaded, asked, Deadline.after(timeout))
    change = Change.of(loaded, planned)
    unchanged = not planned.changes and calibrate is None
    if require_none and (left := _left(planned, gate)):
        sizes = before, _nbytes(planned.model, None)
        raise NotAllFolded(Optimized(_name(model), planned, None, *sizes, change=change, stopped=left))

    def verified(after: Path | None) -> Optimized:
        # of a file that was written, what it says itself: folded tensors have moved to another data file
        written = load(after) if after is not None and planned.model.has_data_files else planned.model
        size_after = _nbytes(written, after)
        result = Optimized(_name(model), planned, target, before, size_after, calibration=calibrated, change=change)
        if mode is VerifyMode.OFF or not planned.changes:
            return replace(result, seconds=time.monotonic() - begun)
        from bnfold.verification import Verdict, Verification  # noqa: PLC0415 -- takes long, and is not always needed
        from bnfold.verification import verify as compare  # noqa: PLC0415

        try:
            found = compare(
                reference,
                after or planned.model,
                shapes=shapes,
                dims=dims,
                timeout=timeout,
                memory=memory,
                strict=False,
                counterexample=counterexample,
                overwrite=overwrite,
                progress=progress,
            )
        except MemoryError:
            found = Verification(Verdict.NOT_VERIFIED, reasons=("there was not enough memory",))
        return _accepted(replace(result, verification=found, seconds=time.monotonic() - begun), mode)

    if target is not None and not (unchanged and in_place):
        with staged(planned.model, target, unchanged=unchanged) as path:
            result = verified(path)
            if draft is not None:
                draft.fill(planned, path, result.verification)
        if draft is not None:
            draft.write()
        return result
    result = verified(None)
    if target is not None:
        sweep(Path(os.path.realpath(target)).parent)  # as writing would have done
    elif output is not None and not isinstance(output, str | os.PathLike):
        write_stream(planned.model, output)
    return result


def _left(planned: Plan, gate: Gate) -> tuple[Entry, ...]:
    """The operators BatchNormalization that stay although none may."""
    stopped = gate.stopped(planned)
    return tuple(entry for entry in stopped if entry.is_batchnorm and entry.outcome is Outcome.KEPT)


def _calibrated(model: Model, data: Data, options: Mapping[str, Any], name: str) -> Calibration:
    from bnfold.calibration import calibrate  # noqa: PLC0415 -- takes long, and is rarely asked for

    if stray := {"model", "data", "output", "in_place"} & options.keys():
        raise TypeError(f"calibration takes no {min(stray)!r}: that is an argument of its own")
    return replace(calibrate(model, data, **options), source=name)


def _accepted(result: Optimized, mode: VerifyMode) -> Optimized:
    """The result, if it may be written."""
    assert result.verification is not None
    if result.verification.is_different:
        raise NotEquivalent(replace(result, output=None))
    if not result.verification.passed and mode is VerifyMode.REQUIRE:
        raise NotVerified(replace(result, output=None))
    return result


def _target(
    model: ModelLike,
    loaded: Model,
    output: str | os.PathLike[str] | BinaryIO | None,
    *,
    in_place: bool,
    overwrite: bool,
) -> Path | None:
    """The file to write; None if the model goes to a stream, or stays in memory."""
    source = Path(model) if loaded.path and isinstance(model, str | os.PathLike) else None
    if in_place and (source is None or output is not None):
        raise ModelError("in place is where the model came from: it must be a file, and no output can be given")
    if isinstance(output, str | os.PathLike):
        target = Path(output)
    elif output is not None or source is None:
        return None
    else:
        target = source if in_place else source.with_suffix(".folded.onnx")
        if target.exists() and not (in_place or overwrite):
            raise ModelError(
                f"{target}: already exists; --force (overwrite=True) replaces it, and -o OUT writes to another place"
            )
    check_output(target, loaded.path, in_place=in_place, overwrite=True)
    return target


def _name(model: ModelLike) -> str:
    return os.fspath(model) if isinstance(model, str | os.PathLike) else "model"


def _nbytes(model: Model, path: Path | None) -> int:
    """Size of the model, data files included; ``path`` is where it is stored, if it is."""
    inside = path.stat().st_size if path else size(model.pieces())
    if not model.has_data_files:
        return inside
    external = (model.payload(tensor) for tensor in all_tensors(model.proto) if is_external(tensor))
    return inside + sum(payload.nbytes for payload in external if payload)
