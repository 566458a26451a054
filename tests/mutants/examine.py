"""What bnfold makes of a model that may be wrong."""

from __future__ import annotations

import contextlib
import io
import json
import traceback
import warnings
import zlib
from collections.abc import Callable, Iterable
from enum import Enum
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import onnx

import bnfold
from bnfold.commands.errors import explained
from bnfold.optimization.formats import FORMATS
from bnfold.page import FORMS, LOG, render
from bnfold.verification import verify
from bnfold.verification.told import Compared

_PACKAGE = str(Path(bnfold.__file__).parent)
_SECONDS = 5.0


class Depth(Enum):
    """What is done with a model; `FOLD` always."""

    FOLD = "fold"  # check and optimize --no-verify
    REGIONS = "regions"  # verify --no-run
    RUN = "run"  # optimize, verified by running
    CALIBRATE = "calibrate"  # calibrate and drift


class Damaged(Exception):
    """What bnfold wrote cannot be read."""


def examine(model: bytes, depth: Depth = Depth.FOLD) -> str:
    """`ok: …` if it was read or refused; else the error, and the place in bnfold that it came from."""
    try:
        with warnings.catch_warnings(action="error"):
            return _examined(model, depth)
    except Exception as error:
        return _told(error)


def _examined(model: bytes, depth: Depth) -> str:
    checked = bnfold.check(model)
    output = io.BytesIO()
    optimized = bnfold.optimize(model, output, verify="off", **_options(model))
    _tell(report([checked, optimized], True, LOG) for report in FORMATS.values())
    try:
        bnfold.check(output.getvalue())
    except bnfold.ModelError as error:
        raise Damaged(str(error)) from error
    _DEEPER[depth](model, output.getvalue())
    return "ok: folded" if optimized.plan.changes else "ok: nothing to fold"


def _options(model: bytes) -> dict[str, Any]:
    """Options of a fold, others for each model and the same each time."""
    bits = zlib.crc32(model)
    given: dict[str, Any] = {
        "leftover": ("keep", "affine", "conv")[bits % 3],
        "max_growth": ("10%", None)[bits >> 4 & 1],
    }
    flags = ("assume_constant", "inside_patterns", "fold_norms")
    given |= {flag: bool(bits >> place & 1) for place, flag in enumerate(flags, 5)}
    if bits >> 8 & 1:
        inputs = onnx.load_from_string(model).graph.input
        dims = {dim.dim_param for entry in inputs for dim in entry.type.tensor_type.shape.dim if dim.dim_param}
        given["dims"] = dict.fromkeys(dims, 1 + bits % 4)
    return given


def _compare(model: bytes, folded: bytes) -> None:
    result = verify(model, folded, run=False, timeout=_SECONDS, strict=len(model) % 8 == 0)
    told = Compared(result, "a", "b", layers=True)
    _tell(render(told, "verification", form) for form in ("json", *FORMS))


def _run(model: bytes, _folded: bytes) -> None:
    with contextlib.suppress(bnfold.NotVerified):
        bnfold.optimize(model, io.BytesIO())


def _calibrate(model: bytes, _folded: bytes) -> None:
    data = {entry.name: _some(entry) for entry in onnx.load_from_string(model).graph.input}
    for verb in (bnfold.calibrate, bnfold.drift):
        _tell(
            render(verb(model, data, batch_size=2), "calibration", form, verbose=True)
            for form in ("text", "markdown", "json")
        )


_DEEPER: dict[Depth, Callable[[bytes, bytes], object]] = {
    Depth.FOLD: lambda model, folded: None,
    Depth.REGIONS: _compare,
    Depth.RUN: _run,
    Depth.CALIBRATE: _calibrate,
}


def _some(entry: onnx.ValueInfoProto) -> object:
    """Samples for an input."""
    sizes = [dim.dim_value for dim in entry.type.tensor_type.shape.dim[1:]]
    shape = [4, *(size if 0 < size < 64 else 3 for size in sizes)]
    return np.random.default_rng(0).normal(size=shape).astype(np.float32)


def _tell(reports: Iterable[str]) -> None:
    """Renders reports, and looks at those that are JSON."""
    for report in reports:
        if report.startswith("{"):
            json.loads(report, parse_constant=_refuse)


def _refuse(constant: str) -> NoReturn:
    raise Damaged(f"{constant} in JSON")


def _told(error: Exception) -> str:
    line, code = explained(error)
    if code != 70:
        return "ok: refused" if isinstance(error, bnfold.ModelError) else f"ok: {line[:60]}"
    ours = [frame for frame in traceback.extract_tb(error.__traceback__) if frame.filename.startswith(_PACKAGE)]
    places = " < ".join(f"{Path(frame.filename).name}:{frame.lineno} {frame.name}" for frame in ours[:-4:-1])
    what = f"{error}" if isinstance(error, Damaged) else type(error).__name__
    return f"{what} at {places}"
