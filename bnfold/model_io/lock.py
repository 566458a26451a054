"""Is a temporary file in use, or left over? A lock tells: the system drops it when a process ends, however it ends.

A process number would not: two containers that share a folder may share their host name too, and have the same numbers.
"""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

_PATIENCE = 1.0
_PAUSE = 0.01


def created(path: Path) -> BinaryIO | None:
    """A new file, locked until it is closed; None if it was swept away before it was locked.

    Where a file system knows no locks nobody sweeps, and the file is as good as locked.

    Raises:
        OSError: it cannot be made.
    """
    stream = _opened(path, os.O_CREAT | os.O_EXCL)
    if _lock(stream.fileno()) is not False and _is_at(stream, path):
        return stream
    stream.close()
    return None


def left_over(path: Path) -> BinaryIO | None:
    """The file, locked until it is closed; None if it is in use, or nobody can tell.

    Raises:
        OSError: it cannot be opened.
    """
    stream = _opened(path, os.O_NONBLOCK | os.O_NOFOLLOW)
    if _lock(stream.fileno()) and _is_at(stream, path):
        return stream
    stream.close()
    return None


@contextmanager
def alone(folder: Path) -> Iterator[bool]:
    """Keeps other runs from placing and removing data files in a folder meanwhile.

    Yields:
        False if another one would not let go of it, or it may not be opened.
    """
    try:
        descriptor = os.open(folder, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        yield False
        return
    try:
        end = time.monotonic() + _PATIENCE
        while (ours := _lock(descriptor)) is False and time.monotonic() < end:
            time.sleep(_PAUSE)
        yield ours is not False
    finally:
        os.close(descriptor)


def _opened(path: Path, flags: int) -> BinaryIO:
    return os.fdopen(os.open(path, os.O_RDWR | os.O_CLOEXEC | flags, 0o600), "r+b", buffering=0)


def _lock(descriptor: int) -> bool | None:
    """Whether the lock is ours from now on; None if the file system knows no locks."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return None
    return True


def _is_at(stream: BinaryIO, path: Path) -> bool:
    """Whether the path still leads to what was opened there."""
    try:
        return os.path.samestat(os.fstat(stream.fileno()), os.stat(path, follow_symlinks=False))
    except FileNotFoundError:
        return False
