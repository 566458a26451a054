"""Data files of ours that no model names any more."""

from __future__ import annotations

import contextlib
import os
import re
from pathlib import Path

from bnfold.model_io.error import ModelError
from bnfold.model_io.lock import alone
from bnfold.model_io.model import cut
from bnfold.model_io.payload import File, Stamp


def data_of(model: Path) -> list[Path]:
    """The data files that we made for a model and that it names; none if it cannot be read."""
    ours = re.compile(re.escape(model.stem) + r"-[0-9a-f]{16}\.data")
    with contextlib.suppress(ModelError):
        return [path for path in model.parent.glob("*.data") if ours.fullmatch(path.name) and _names(model, path)]
    return []


def remove_unnamed(data: Path, stamp: tuple[int, int, int], apart_from: Path) -> None:
    """Removes a data file, if no model in its folder names it.

    Args:
        data: one that we made.
        stamp: its inode, size and time of modification: if it has others by now, it is another file.
        apart_from: a model that does not count.

    Raises:
        OSError: it cannot be removed now.
    """
    with alone(data.parent) as ours, contextlib.suppress(FileNotFoundError, ModelError):
        if not ours:
            raise BlockingIOError
        if Stamp.of(data.lstat())[1:] == stamp:
            models = (path for path in data.parent.glob("*.onnx*") if path != apart_from and path.is_file())
            if not any(_names(model, data) for model in models):  # what cannot be read may need the data
                data.unlink()


def _names(model: Path, data: Path) -> bool:
    """Whether the model names that data file; errs on the side of yes."""
    return os.fsencode(data.name) in cut(File(model), {})
