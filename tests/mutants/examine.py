"""What bnfold makes of a model that may be wrong."""

from __future__ import annotations

import io
import traceback
import warnings
from pathlib import Path

import bnfold
from bnfold.commands.errors import explained
from bnfold.report import FORMATS

_PACKAGE = str(Path(bnfold.__file__).parent)


def examine(model: bytes, *, verify: bool = False) -> str:
    """`ok: …` if it was read or refused; else the error, and the place in bnfold that it came from."""
    try:
        with warnings.catch_warnings(action="error"):
            return _examined(model, verify)
    except Exception as error:
        return _told(error)


def _examined(model: bytes, verify: bool) -> str:
    checked = bnfold.check(model)
    output = io.BytesIO()
    try:
        optimized = bnfold.optimize(model, output, verify="auto" if verify else "off")
    except bnfold.NotVerified as error:
        return f"ok: not written: {type(error).__name__}"
    for report in FORMATS.values():
        report([checked, optimized], True)
    try:
        bnfold.check(output.getvalue())
    except bnfold.ModelError as error:
        return f"what was written is damaged: {error}"
    return "ok: folded" if optimized.plan.changes else "ok: nothing to fold"


def _told(error: Exception) -> str:
    line, code = explained(error)
    if code == 2:
        return "ok: refused" if isinstance(error, bnfold.ModelError) else f"ok: {line[:60]}"
    ours = [frame for frame in traceback.extract_tb(error.__traceback__) if frame.filename.startswith(_PACKAGE)]
    places = " < ".join(f"{Path(frame.filename).name}:{frame.lineno} {frame.name}" for frame in ours[:-4:-1])
    return f"{type(error).__name__} at {places}"
