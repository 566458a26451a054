"""Temporary files."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt

from bnfold.calibration.error import CalibrationError


@contextmanager
def created(path: Path) -> Iterator[BinaryIO]:
    """A new file.

    Raises:
        CalibrationError: it cannot be written; mostly because the disk is full.
    """
    try:
        with path.open("wb") as stream:
            yield stream
    except OSError as error:
        line = f"temporary files cannot be written to {path.parent}: {error.strerror}; --work-dir takes another folder"
        raise CalibrationError(line) from error


def save(path: Path, array: npt.NDArray[Any]) -> None:
    """Writes an array to a new file.

    Raises:
        CalibrationError: it cannot be written; mostly because the disk is full.
    """
    with created(path) as stream:
        np.save(_Whole(stream), array, allow_pickle=False)


class _Whole:
    """A stream that numpy does not take for a file: it would write those by C's buffers, whose end may get lost."""

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream

    def write(self, data: bytes) -> int:
        return self._stream.write(data)
