"""Temporary files."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

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
        why = error.strerror or "no room"  # numpy counts bytes, and says no more
        line = f"temporary files cannot be written to {path.parent}: {why}; --work-dir takes another folder"
        raise CalibrationError(line) from error
