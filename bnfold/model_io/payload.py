"""Where the bytes of a tensor come from: a range of a file or of memory, or whatever another package makes."""

from __future__ import annotations

import os
import stat
import weakref
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, Protocol

from bnfold.model_io.error import ModelError

CHUNK = 1 << 20


class Payload(Protocol):
    """The bytes of one tensor, produced when asked for."""

    @property
    def nbytes(self) -> int:
        """How many bytes `chunks` gives in total."""

    def chunks(self) -> Iterator[bytes | memoryview]:
        """The bytes in order, in pieces of bounded size where possible. May be called more than once."""


class Source(Protocol):
    """Bytes that can be read from any position."""

    @property
    def size(self) -> int:
        """How many bytes there are."""

    def read(self, offset: int, count: int) -> bytes | memoryview:
        """Exactly `count` bytes from `offset` on; raises ModelError if there are fewer."""

    def read_into(self, offset: int, target: memoryview) -> None:
        """Fills `target` from `offset` on, without a copy in between; raises ModelError if there are too few bytes."""


class Memory:
    """A source that is held in memory."""

    def __init__(self, data: bytes) -> None:
        self._view = memoryview(data)
        self.size = len(data)

    def read(self, offset: int, count: int) -> memoryview:
        return self._view[offset : offset + count]

    def read_into(self, offset: int, target: memoryview) -> None:
        target[:] = self._view[offset : offset + len(target)]


class Stamp(NamedTuple):
    """What tells one content of a file from another, without reading it."""

    device: int
    inode: int
    size: int
    modified: int

    @classmethod
    def of(cls, found: os.stat_result) -> Stamp:
        """That of a file that was looked at."""
        return cls(found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns)


class File:
    """An open regular file, read by position, so that it may be replaced or removed while it is in use.

    It is not mapped into memory: if somebody cuts a mapped file short, its reader is killed; this one gets an error.
    """

    def __init__(self, path: Path, flags: int = 0) -> None:
        """Opens it, and waits for nothing: what is no regular file might never answer, or never end.

        Args:
            path: where it is.
            flags: more for `os.open`.

        Raises:
            ModelError: it cannot be opened, or is no regular file.
        """
        self.path = path
        try:
            self.descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY | flags)
        except OSError as error:
            raise ModelError(error.strerror) from error
        weakref.finalize(self, os.close, self.descriptor)
        found = os.fstat(self.descriptor)
        if not stat.S_ISREG(found.st_mode):
            raise ModelError("is a folder" if stat.S_ISDIR(found.st_mode) else "is not a regular file")
        self.stamp = Stamp.of(found)
        self.size = found.st_size

    def refuse_changed(self, *, at_its_path: bool = False) -> None:
        """Refuses a file that was written to since it was opened: what was read early and late may not fit together.

        Args:
            at_its_path: and one that another file has taken the place of.

        Raises:
            ModelError: it was.
        """
        found = [os.fstat(self.descriptor)]
        if at_its_path and self.path.exists():
            found.append(self.path.stat())
        if any(Stamp.of(each) != self.stamp for each in found):
            raise ModelError(f"{self.path}: was changed while it was in use")

    def read(self, offset: int, count: int) -> bytes:
        try:
            data = os.pread(self.descriptor, count, offset)
        except OSError as error:
            raise ModelError(f"{self.path}: {error.strerror}") from error
        if len(data) == count:
            return data
        whole = bytearray(count)  # the system gives at most 2 GiB at a time
        self.read_into(offset, memoryview(whole))
        return bytes(whole)

    def read_into(self, offset: int, target: memoryview) -> None:
        done = 0
        try:
            while done < len(target):
                count = os.preadv(self.descriptor, [target[done:]], offset + done)
                if not count:
                    raise ModelError(f"{self.path}: was cut short while it was read")
                done += count
        except OSError as error:
            raise ModelError(f"{self.path}: {error.strerror}") from error


@dataclass(frozen=True)
class Range:
    """The payload that is `nbytes` bytes of a source, from `offset` on."""

    source: Source
    offset: int
    nbytes: int

    def part(self, start: int, stop: int) -> Range:
        """The bytes from `start` to `stop` of it."""
        return Range(self.source, self.offset + start, stop - start)

    def read_into(self, target: memoryview) -> None:
        """Fills a target of `nbytes` bytes at once."""
        self.source.read_into(self.offset, target)

    def chunks(self) -> Iterator[bytes | memoryview]:
        for start in range(0, self.nbytes, CHUNK):
            yield self.source.read(self.offset + start, min(CHUNK, self.nbytes - start))


def exact_chunks(payload: Payload) -> Iterator[bytes | memoryview]:
    """The payload's chunks; a payload that breaks its promise must not shift all that comes after it.

    Raises:
        ModelError: there were not `nbytes` bytes in them.
    """
    count = 0
    for chunk in payload.chunks():
        count += len(chunk)
        yield chunk
    if count != payload.nbytes:
        raise ModelError(f"a tensor of {payload.nbytes} bytes was given {count}")
