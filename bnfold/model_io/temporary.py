"""Temporary files and folders under random names. What a killed run leaves, the next one in the same place removes."""

from __future__ import annotations

import contextlib
import errno
import os
import re
import secrets
import shutil
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from bnfold.model_io.lock import created, left_over
from bnfold.model_io.payload import Stamp
from bnfold.model_io.unnamed import remove_unnamed

_LOCK = re.compile(r"\.bnfold-[0-9a-f]{32}\.lock")
_FOLDER = re.compile(r"bnfold-[0-9a-f]{32}")
_SUFFIXES = (".data", ".json", ".onnx", ".lock")  # in this order: without its lock, nothing is known of the rest
# kind, inode, size, time of modification and name of a data file
_NOTED = re.compile(rb"(new|old) (\d{1,20}) (\d{1,20}) (\d{1,20}) ([^/\0]+-[0-9a-f]{16}\.data)")
_MOST_NOTED = 1 << 20
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


class Temporary:
    """A name of our own in a folder, for the files that will be an output there.

    `NAME.lock` stands as long as any other file of that name, and is locked as long as we live. A data file gets its
    final name before the model `NAME.onnx` does; so it is noted in the lock first. As long as the model does not
    count, the new data files are for nothing; from then on the old ones are.
    """

    def __init__(self, folder: Path) -> None:
        """Removes what others have left, and makes the lock.

        Raises:
            OSError: nothing can be written there.
        """
        sweep(folder)
        stream = None
        while stream is None:
            self._stem = folder / f".bnfold-{secrets.token_hex(16)}"
            stream = created(self.path(".lock"))
        self._lock = stream

    def path(self, suffix: str) -> Path:
        """The file with that suffix, one of `.data`, `.json` and `.onnx`."""
        return self._stem.with_suffix(suffix)

    def note_new(self, final: Path) -> None:
        """Says that `NAME.data` is about to be renamed."""
        self._note("new", final, self.path(".data"))

    def note_old(self, data: Path) -> None:
        """Says of a data file that nobody needs it once the model counts."""
        self._note("old", data, data)

    def _note(self, kind: str, name: Path, file: Path) -> None:
        stamp = Stamp.of(file.stat())
        line = f"{kind} {stamp.inode} {stamp.size} {stamp.modified} {name.name}\n"
        self._lock.write(os.fsencode(line))

    def close(self) -> None:
        """Removes all that is not, or no longer, of use."""
        if not self._lock.closed:
            _remove(self._stem, self._lock)
            self._lock.close()


@contextmanager
def temporary_folder(parent: str | os.PathLike[str] | None = None) -> Iterator[Path]:
    """A folder for the files of one run, gone at its end.

    Args:
        parent: where; by default where the system wants temporary files.

    Raises:
        OSError: it cannot be made.
    """
    root = Path(parent or tempfile.gettempdir())
    _sweep_folders(root)
    outer, lock = _locked_folder(root)
    try:
        (outer / "files").mkdir()
        yield outer / "files"
    except OSError as error:
        if error.errno in _FULL and not error.filename:  # a write does not say where it was to go
            error.filename = str(root)
        raise
    finally:
        _remove_folder(outer)
        lock.close()


def sweep(folder: Path) -> None:
    """Removes what killed runs have left of their outputs in a folder."""
    for path in folder.glob(".bnfold-*.lock"):
        if _LOCK.fullmatch(path.name):
            with contextlib.suppress(OSError):
                if lock := left_over(path):
                    with lock:
                        _remove(path.with_suffix(""), lock)


def _remove(stem: Path, lock: BinaryIO) -> None:
    model = stem.with_suffix(".onnx")
    useless = b"new" if model.exists() else b"old"
    lock.seek(0)
    with contextlib.suppress(OSError):  # what cannot be removed keeps its lock, and the next run tries again
        for line in lock.read(_MOST_NOTED).splitlines():
            if (noted := _NOTED.fullmatch(line)) and noted[1] == useless:
                stamp = int(noted[2]), int(noted[3]), int(noted[4])
                remove_unnamed(stem.with_name(os.fsdecode(noted[5])), stamp, apart_from=model)
        for suffix in _SUFFIXES:
            stem.with_suffix(suffix).unlink(missing_ok=True)


def _sweep_folders(parent: Path) -> None:
    with contextlib.suppress(OSError), os.scandir(parent) as entries:
        for entry in entries:
            if _FOLDER.fullmatch(entry.name):
                with contextlib.suppress(OSError):
                    _sweep_folder(Path(entry.path))


def _sweep_folder(outer: Path) -> None:
    """Removes it if it is ours, so that nobody can exchange it for another one meanwhile, and left over."""
    found = outer.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid():
        return
    try:
        lock = left_over(outer / "lock")
    except FileNotFoundError:
        outer.rmdir()  # only if it is empty
        return
    if lock:
        with lock:
            _remove_folder(outer)


def _locked_folder(parent: Path) -> tuple[Path, BinaryIO]:
    while True:
        outer = parent / f"bnfold-{secrets.token_hex(16)}"
        outer.mkdir(mode=0o700)
        with contextlib.suppress(FileNotFoundError):  # swept away while it was empty
            if lock := created(outer / "lock"):
                return outer, lock


def _remove_folder(outer: Path) -> None:
    """Its lock goes last: a folder without one is nobody's."""
    shutil.rmtree(outer / "files", ignore_errors=True)
    with contextlib.suppress(OSError):
        if not (outer / "files").exists():
            (outer / "lock").unlink()
            outer.rmdir()
