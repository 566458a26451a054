"""Where samples come from: one class for each kind of source, all with the same two questions.

``rows`` is how many samples there are, ``pick`` yields those that are asked for, in order, in pieces.
A sample is one index along axis 0 of every input.
"""

from __future__ import annotations

import tokenize
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import onnx
from google.protobuf.message import DecodeError
from onnx import numpy_helper

from bnfold.model_io import ModelError

# numpy reads the head of an array as Python
_UNREADABLE = SyntaxError, tokenize.TokenError, OverflowError, ValueError, KeyError, EOFError, TypeError, RuntimeError
_DAMAGED = *_UNREADABLE, zlib.error, zipfile.BadZipFile
Array = npt.NDArray[Any]
Feed = dict[str, Array]
Indices = npt.NDArray[np.int64]


_MOST = 1 << 40  # samples, which no disk holds


class DataError(ModelError):
    """Data cannot be used. Its text is one line that names the file and says what is wrong."""


class Selection:
    """Which samples are wanted: all from ``start`` to ``stop``, or the given sorted numbers."""

    def __init__(self, start: int, stop: int | None, chosen: Indices | None = None) -> None:
        self.start = start
        self.stop = stop
        self._chosen = chosen

    def within(self, low: int, high: int, size: int) -> Iterator[Indices]:
        """The wanted samples from ``low`` up to ``high``, counted from ``low``, at most ``size`` at a time.

        Never all of them: how many there are may be a file's word, and a lie.
        """
        if self._chosen is not None:
            first, last = np.searchsorted(self._chosen, (low, high))
            for at in range(first, last, size):
                yield self._chosen[at : min(at + size, last)] - low
            return
        stop = high if self.stop is None else min(high, self.stop)
        for at in range(max(low, self.start), stop, size):
            yield np.arange(at, min(at + size, stop), dtype=np.int64) - low

    def __getitem__(self, number: int) -> int:
        """The sample that is the one of this number among those that are wanted."""
        return self.start + number if self._chosen is None else int(self._chosen[number])

    def ends_before(self, sample: int) -> bool:
        return self.stop is not None and sample >= self.stop


class Source(Protocol):
    """Samples of one origin.

    Attributes:
        origin: The file, folder or script, for messages.
    """

    origin: str

    @property
    def rows(self) -> int:
        """How many samples; for a script, this may run it once."""

    def pick(self, selection: Selection, offset: int, size: int) -> Iterator[Feed]:
        """The selected samples, at most ``size`` at a time; ``offset`` is the number of this source's first."""


class ArrayFile:
    """A ``.npy`` file: the only input of a model."""

    def __init__(self, path: Path, names: Sequence[str]) -> None:
        if len(names) != 1:
            raise DataError(f"{path}: the model has the inputs {', '.join(names)}: use .npz with these names")
        self.origin = str(path)
        self._path = path
        self._name = names[0]
        self.rows = _rows({self._name: self._array()}, self.origin)

    def pick(self, selection: Selection, offset: int, size: int) -> Iterator[Feed]:
        array: Array | None = None
        for wanted in selection.within(offset, offset + self.rows, size):
            array = self._array() if array is None else array
            part = rows_of({self._name: array}, wanted)  # an index array copies: nothing stays mapped
            yield {self._name: usable(part[self._name], self.origin)}

    def _array(self) -> Array:
        with reading(self._path):
            array: Array = np.load(self._path, mmap_mode="r", allow_pickle=False)
            return array


class Arrays:
    """A ``test_data_set`` folder: an array for each input, read as a whole."""

    def __init__(self, origin: Path, names: Sequence[str], read: Callable[[], Feed]) -> None:
        self.origin = str(origin)
        self._read = read
        feed = read()
        if missing := [name for name in names if name not in feed]:
            has = ", ".join(map(repr, feed)) or "nothing"
            raise DataError(f"{origin}: has no array for input {missing[0]!r} of the model; it has {has}")
        self._names = names
        self.rows = _rows({name: feed[name] for name in names}, self.origin)

    def pick(self, selection: Selection, offset: int, size: int) -> Iterator[Feed]:
        feed: Feed = {}
        for wanted in selection.within(offset, offset + self.rows, size):
            feed = feed or self._read()
            arrays = {name: usable(feed[name], self.origin) for name in self._names}
            yield _taken(arrays, wanted)


class Script:
    """What a function yields, a batch of samples each: dicts of arrays, tuples, or arrays where there is one input.

    A tuple holds the inputs in the model's order; what follows them (labels, as data loaders have them) is not used.
    """

    def __init__(self, origin: str, names: Sequence[str], function: Callable[[], object]) -> None:
        self.origin = origin
        self._names = names
        self._function = function
        self._rows: int | None = None

    @property
    def rows(self) -> int:
        if self._rows is None:
            self._rows = sum(count_of(feed) for feed in self._feeds())
        return self._rows

    def pick(self, selection: Selection, offset: int, size: int) -> Iterator[Feed]:
        at = offset
        for feed in self._feeds():
            rows = _rows(feed, self.origin)
            for wanted in selection.within(at, at + rows, size):
                yield _taken(feed, wanted)
            at += rows
            if selection.ends_before(at):
                return
        self._rows = at - offset

    def _feeds(self) -> Iterator[Feed]:
        try:
            result = self._function()
            batches = [result] if isinstance(result, Mapping) or hasattr(result, "__array__") else result
            if not isinstance(batches, Iterable):
                raise DataError(f"{self.origin}: returned {type(result).__name__}, not arrays")
            is_empty = True
            for batch in batches:
                yield self._feed(batch)
                is_empty = False
            if is_empty:
                raise DataError(f"{self.origin}: gave no samples")
        except DataError:
            raise
        except (Exception, SystemExit) as error:
            raise DataError(f"{self.origin}: {type(error).__name__}: {error}") from error

    def _feed(self, batch: object) -> Feed:
        if isinstance(batch, tuple | list) and len(batch) >= len(self._names) and hasattr(batch[0], "__array__"):
            batch = dict(zip(self._names, batch, strict=False))
        if not isinstance(batch, Mapping):
            if len(self._names) != 1:
                raise DataError(f"{self.origin}: must yield dicts with the inputs {', '.join(self._names)}")
            batch = {self._names[0]: batch}
        if missing := [name for name in self._names if name not in batch]:
            raise DataError(f"{self.origin}: gave nothing for input {missing[0]!r} of the model")
        return {name: usable(np.asarray(batch[name]), self.origin) for name in self._names}


def read_test_data(folder: Path, names: Sequence[str]) -> Feed:
    """The inputs of an ONNX ``test_data_set`` folder: ``input_0.pb`` and so on, in the order of the model's inputs."""
    feed: Feed = {}
    for number, name in enumerate(names):
        path = folder / f"input_{number}.pb"
        if path.exists():
            with reading(path):
                tensor = onnx.TensorProto.FromString(path.read_bytes())
                feed[tensor.name if tensor.name in names else name] = numpy_helper.to_array(tensor)
    return feed


class reading:  # noqa: N801 -- reads as the statement that it is
    """Turns whatever goes wrong with a file into one line. What is no file might never answer, or never end."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __enter__(self) -> None:
        if self._path.exists() and not self._path.is_file():
            raise DataError(f"{self._path}: is not a regular file")

    def __exit__(self, _kind: object, error: BaseException | None, _trace: object) -> None:
        if isinstance(error, OSError):
            raise DataError(f"{self._path}: {error.strerror or error}") from error
        if isinstance(error, DecodeError):
            raise DataError(f"{self._path}: is not a tensor, or is damaged") from error
        if isinstance(error, MemoryError):
            raise DataError(f"{self._path}: there is not enough memory for what it holds") from error
        if isinstance(error, _DAMAGED):
            pickled = str(error).startswith("Object arrays") or "Python objects" in str(error)
            hint = "holds pickled objects, which are not read" if pickled else "is damaged or no array"
            raise DataError(f"{self._path}: {hint}") from error


def lengths(feed: Feed) -> set[int]:
    """The lengths of first axes: one if it counts samples, several if a feed is a whole. Scalars have none."""
    return {len(array) for array in feed.values() if array.ndim}


def count_of(feed: Feed) -> int:
    """How many samples it holds; arrays that belong together as they are count as one."""
    return max(lengths(feed)) if len(lengths(feed)) == 1 else 1


def rows_of(feed: Feed, rows: slice | Indices) -> Feed:
    """Some samples; scalars are for all of them."""
    return {name: array[rows] if array.ndim else array for name, array in feed.items()}


def _taken(feed: Feed, rows: Indices) -> Feed:
    return rows_of(feed, rows) if len(lengths(feed)) == 1 else feed


def usable(array: Array, origin: str) -> Array:
    """The array in a type that an input of a model can have, and in the byte order of this machine."""
    if array.dtype.kind == "S" or (array.dtype.kind == "O" and all(isinstance(x, str | bytes) for x in array.flat)):
        try:
            texts = [text.decode() if isinstance(text, bytes) else text for text in array.flat]
        except UnicodeDecodeError as error:
            raise DataError(f"{origin}: holds text that is not UTF-8") from error
        return np.array(texts, dtype=str).reshape(array.shape)
    native = array.astype(array.dtype.newbyteorder("="), copy=False)
    if not _is_known(native.dtype):
        raise DataError(f"{origin}: holds entries of type {array.dtype}, which ONNX does not have")
    return native


def _is_known(dtype: np.dtype[Any]) -> bool:
    try:
        return dtype.kind == "U" or (dtype.kind != "O" and bool(onnx.helper.np_dtype_to_tensor_dtype(dtype)))
    except (KeyError, ValueError, TypeError):
        return False


def refuse_odd(rows: int, origin: str) -> None:
    """Refuses what has no samples, or says that it has more than there can be.

    Raises:
        DataError: It is odd.
    """
    if not rows:
        raise DataError(f"{origin}: has no samples")
    if rows > _MOST:
        raise DataError(f"{origin}: says that it has {rows} samples")


def _rows(feed: Feed, origin: str) -> int:
    rows = count_of(feed)
    refuse_odd(rows, origin)
    return rows
