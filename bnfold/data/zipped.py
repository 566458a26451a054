"""Arrays of a ``.npz`` file, read as they are wanted: neither those of other names, nor more rows than needed.

A member is a ``.npy`` file in a zip archive, compressed or not: a header, then the rows one after the other. So it can
be read forwards in pieces, whatever it would unpack to. Arrays in Fortran's order have no rows in one piece; they are
read as a whole, and so are arrays that belong together as they are.
"""

from __future__ import annotations

import math
import zipfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import numpy as np

from bnfold.data.sources import Array, DataError, Feed, Indices, Selection, reading, refuse_odd, usable

_SKIPPED = 1 << 22  # bytes at a time
_SUFFIX = ".npy"


@dataclass(frozen=True)
class _Header:
    """What a member says of its array."""

    shape: tuple[int, ...]
    is_fortran: bool
    dtype: np.dtype[np.generic]

    @property
    def row(self) -> int:
        """Bytes of a sample."""
        return math.prod(self.shape[1:]) * self.dtype.itemsize


class ZippedArrays:
    """A ``.npz`` file: an array for each input."""

    def __init__(self, path: Path, names: Sequence[str]) -> None:
        self.origin = str(path)
        self._path = path
        self._names = names
        with self._opened() as archive:
            has = [name.removesuffix(_SUFFIX) for name in archive.namelist()]
            if missing := [name for name in names if name not in has]:
                known = ", ".join(map(repr, has)) or "nothing"
                raise DataError(f"{path}: has no array for input {missing[0]!r} of the model; it has {known}")
            self._headers = {name: self._header(archive, name) for name in names}
        lengths = {header.shape[0] for header in self._headers.values() if header.shape}
        self._is_whole = len(lengths) != 1
        self.rows = 1 if self._is_whole else lengths.pop()
        refuse_odd(self.rows, self.origin)

    def pick(self, selection: Selection, offset: int, size: int) -> Iterator[Feed]:
        """The selected samples, at most ``size`` at a time; ``offset`` is the number of this source's first."""
        with ExitStack() as stack:
            members: dict[str, _Rows | _Whole] = {}
            for wanted in selection.within(offset, offset + self.rows, size):
                members = members or self._members(stack)
                with reading(self._path):
                    feed = {name: member.take(wanted) for name, member in members.items()}
                yield {name: usable(array, self.origin) for name, array in feed.items()}

    def _members(self, stack: ExitStack) -> dict[str, _Rows | _Whole]:
        archive = stack.enter_context(self._opened())
        return {name: self._member(archive, stack, name) for name in self._names}

    def _member(self, archive: zipfile.ZipFile, stack: ExitStack, name: str) -> _Rows | _Whole:
        header = self._headers[name]
        with reading(self._path):
            stream = stack.enter_context(archive.open(name + _SUFFIX))
            if self._is_whole or not header.shape or header.is_fortran:
                return _Whole(np.lib.format.read_array(stream, allow_pickle=False), by_row=not self._is_whole)
            _read_header(stream)
            return _Rows(stream, header)

    def _header(self, archive: zipfile.ZipFile, name: str) -> _Header:
        with reading(self._path), archive.open(name + _SUFFIX) as stream:
            return _read_header(stream)

    @contextmanager
    def _opened(self) -> Iterator[zipfile.ZipFile]:
        with reading(self._path):
            archive = zipfile.ZipFile(self._path)
        with archive:
            yield archive


class _Whole:
    """An array in memory."""

    def __init__(self, array: Array, *, by_row: bool) -> None:
        self._array = array
        self._by_row = by_row and bool(array.ndim)

    def take(self, wanted: Indices) -> Array:
        return self._array[wanted] if self._by_row else self._array


class _Rows:
    """The rows of an array, read in order."""

    def __init__(self, stream: IO[bytes], header: _Header) -> None:
        self._stream = stream
        self._header = header
        self._next = 0

    def take(self, wanted: Indices) -> Array:
        """Some rows, behind those that were taken before."""
        header = self._header
        result = np.empty((len(wanted), *header.shape[1:]), header.dtype)
        into = result.reshape(-1).view(np.uint8).data if header.row else memoryview(b"")
        at = 0
        while at < len(wanted):
            run = at + 1
            while run < len(wanted) and wanted[run] == wanted[run - 1] + 1:
                run += 1
            self._skip(int(wanted[at]) - self._next)
            self._fill(into[at * header.row : run * header.row])
            self._next = int(wanted[run - 1]) + 1
            at = run
        return result

    def _skip(self, rows: int) -> None:
        left = rows * self._header.row
        while left:
            left -= len(self._chunk(min(left, _SKIPPED)))

    def _fill(self, target: memoryview) -> None:
        at = 0
        while at < len(target):
            chunk = self._chunk(min(len(target) - at, _SKIPPED))
            target[at : at + len(chunk)] = chunk
            at += len(chunk)

    def _chunk(self, size: int) -> bytes:
        chunk = self._stream.read(size)
        if not chunk:
            raise EOFError("the array ends early")
        return chunk


def _read_header(stream: IO[bytes]) -> _Header:
    version = np.lib.format.read_magic(stream)
    read = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}.get(version)
    if read is None:
        raise ValueError(f"version {version}")
    header = _Header(*read(stream))
    if header.dtype.hasobject:
        raise ValueError("Object arrays cannot be loaded when allow_pickle=False")
    return header
