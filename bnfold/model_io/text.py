"""A text that is written beside a model: there whole or not at all."""

from __future__ import annotations

import os
from collections.abc import Iterable
from contextlib import closing
from pathlib import Path

from bnfold.model_io.error import ModelError
from bnfold.model_io.output import check_output
from bnfold.model_io.temporary import Temporary


def check_text(path: Path, apart_from: Iterable[str | os.PathLike[str]] = ()) -> None:
    """Refuses, before any work is done, what `write_text` cannot write, or what is read or written for something else.

    Raises:
        ModelError: It is one of these.
    """
    place = os.path.realpath(path)
    if place in map(os.path.realpath, apart_from):
        raise ModelError(f"{path}: is a model, data or another output itself")
    if not _is_device(place):
        check_output(path, None, in_place=False, overwrite=True)


def _is_device(place: str) -> bool:
    """A device or a pipe, whose place no file may take."""
    return os.path.exists(place) and not os.path.isfile(place) and not os.path.isdir(place)


def write_text(path: Path, text: str) -> None:
    """Writes it; what was there is replaced at once or not at all. A symbolic link stands for what it points to.

    A device or a pipe is written to.

    Raises:
        ModelError: It cannot be written.
    """
    target = Path(os.path.realpath(path))
    try:
        if _is_device(str(target)):
            path.write_text(text, encoding="utf-8")
            return
        with closing(Temporary(target.parent)) as temporary:
            draft = temporary.path(".json")
            with open(draft, "x", encoding="utf-8") as stream:
                stream.write(text)
                stream.flush()
                os.fsync(stream.fileno())
            os.replace(draft, target)
    except OSError as error:
        raise ModelError(f"{path}: cannot be written: {error.strerror}") from error
