"""Calibration data on its way to ONNX Runtime: checked once, and laid down as one `.npy` file per batch and input.

Workers, here or on another machine, then read files by name, so the data travels at most once, may be an iterator
that can be read but once, and NaN is found, and named, before anything runs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from hashlib import sha256
from itertools import count
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from bnfold.calibration.error import CalibrationError
from bnfold.calibration.images import are_images
from bnfold.calibration.running.program import Batch
from bnfold.calibration.running.scratch import created, save
from bnfold.data import DataError, Dataset, Feed, lengths, open_data, rows_of
from bnfold.data.sources import Script
from bnfold.graph import Graph, Shape
from bnfold.limits import NEVER, Deadline

_ORIGIN = "the data"
_FEW = 2


class Reader(Protocol):
    """What onnxruntime.quantization calls a CalibrationDataReader."""

    def get_next(self) -> Mapping[str, Any] | None:
        """The next batch; None at the end."""


Data = str | Path | Sequence[str | Path] | Mapping[str, Any] | npt.NDArray[Any] | Iterable[Any] | Reader
"""Paths; a whole data set as an array, or a dict of arrays; an iterable of batches; a CalibrationDataReader."""


@dataclass(frozen=True)
class Input:
    """What an input of the model takes.

    Attributes:
        name: of the input.
        dtype: None if it is no tensor.
        shape: fixed sizes; None for what is open.
        first: the name of the first axis, where it is open and has one. Inputs that share it have as many samples.
    """

    name: str
    dtype: np.dtype[Any] | None
    shape: tuple[int | None, ...] | None
    first: str | None = None

    def __str__(self) -> str:
        sizes = "" if self.shape is None else f" [{', '.join('?' if d is None else str(d) for d in self.shape)}]"
        return f"input {self.name!r} takes {self.dtype or 'no tensor'}{sizes}"

    def fits(self, array: npt.NDArray[Any]) -> bool:
        """Whether the model takes the array, whatever the number of samples."""
        if self.dtype is None or array.dtype != self.dtype:
            return False
        if self.shape is None:
            return True
        pairs = zip(self.shape[1:], array.shape[1:], strict=False)
        return len(self.shape) == array.ndim and all(want in (None, size) for want, size in pairs)


@dataclass(frozen=True)
class Samples:
    """Checked data, as batches on disk.

    Attributes:
        batches: in order.
        count: of samples.
        few: a batch of two samples at most, where the model leaves it open.
        where: for messages: the file and row of a sample.
        notes: what the user should know, a line each.
    """

    batches: tuple[Batch, ...]
    count: int
    few: Batch
    where: Callable[[int], str]
    notes: tuple[str, ...] = ()


def inputs_of(graph: Graph) -> list[Input]:
    """The inputs that a caller of the model has to give."""
    values = [graph.main.own(entry.name) for entry in graph.main.proto.input]
    fed = [value for value in values if not value.is_stored]
    return [_input(value.name, graph.dtype(value), graph.shape(value)) for value in fed]


def _input(name: str, dtype: np.dtype[Any] | None, shape: Shape | None) -> Input:
    first = shape[0] if shape else None
    return Input(name, dtype, _sizes(shape), first if isinstance(first, str) else None)


def _sizes(shape: Shape | None) -> tuple[int | None, ...] | None:
    """Fixed sizes; what has but a name is open, and so is -1, which some exporters write."""
    return None if shape is None else tuple(size if isinstance(size, int) and size > 0 else None for size in shape)


def of_both(ours: Sequence[Input], theirs: Sequence[Input]) -> list[Input]:
    """The inputs of a model, with the sizes that a reference insists on, too.

    Raises:
        CalibrationError: the two cannot be fed the same.
    """
    names = {entry.name: entry for entry in theirs}
    for entry in theirs:
        if entry.name not in {given.name for given in ours}:
            raise _fed_otherwise(entry, ours)
    return [_of_both(entry, names[entry.name]) if entry.name in names else entry for entry in ours]


def _of_both(ours: Input, theirs: Input) -> Input:
    if ours.dtype != theirs.dtype:
        raise _fed_otherwise(theirs, [ours])
    if ours.shape is None or theirs.shape is None:
        return ours if theirs.shape is None else replace(ours, shape=theirs.shape)
    sizes = list(zip(ours.shape, theirs.shape, strict=False))
    if len(ours.shape) != len(theirs.shape) or any(None not in pair and pair[0] != pair[1] for pair in sizes):
        raise _fed_otherwise(theirs, [ours])
    return replace(ours, shape=tuple(other if own is None else own for own, other in sizes))


def _fed_otherwise(entry: Input, ours: Sequence[Input]) -> CalibrationError:
    has = "; ".join(map(str, ours)) or "no input"
    return CalibrationError(f"the reference is fed otherwise: its {entry}, of the model {has}")


def prepare(
    data: Data,
    inputs: Sequence[Input],
    folder: Path,
    batch_size: int | None = None,
    max_samples: int | None = None,
    seed: int | None = None,
    deadline: Deadline = NEVER,
) -> Samples:
    """Checks the data and writes its batches into a folder.

    Args:
        data: in any of its forms.
        inputs: of the model.
        folder: for the files.
        batch_size: samples in a batch; 32 where the model leaves it open.
        max_samples: take no more, evenly spread, or drawn with `seed`.
        seed: of the draw.
        deadline: when it has to be done.

    Raises:
        DataError: it does not fit, is empty, cannot be read, or holds NaN or infinity: where is said.
        TimeoutError: the time is over.
    """
    names = [entry.name for entry in inputs]
    fixed = fixed_batch(inputs)
    size = fixed or batch_size or 32
    dataset = opened(data, names, folder, once=max_samples is not None)
    batches: list[Batch] = []
    samples = left_over = 0
    where = partial(dataset.where, max_samples=max_samples, seed=seed)
    few: Feed = {}
    for feed in dataset.batches(size, max_samples=max_samples, seed=seed):
        deadline.heed()
        _check(feed, inputs, samples + left_over, where)
        rows = _rows(feed)
        if fixed and rows != fixed and len(lengths(feed)) == 1:
            left_over += rows
            continue
        few = few or (feed if fixed or rows == 1 else rows_of(feed, slice(_FEW)))
        batches.append(_write(feed, rows, len(batches), folder))
        samples += rows
    if not batches:
        short = f"the model takes batches of exactly {fixed}, there are {left_over} samples"
        raise DataError(short if left_over else "the data has no samples")
    notes = tuple(_notes(fixed, batch_size, left_over))
    return Samples(tuple(batches), samples, _write(few, _rows(few), -1, folder), where, notes)


def _notes(fixed: int | None, asked: int | None, left_over: int) -> Iterator[str]:
    if fixed and asked and asked != fixed:
        yield f"the model takes batches of {fixed} and of no other size, also where {asked} are asked for"
    if left_over:
        yield f"{left_over} samples did not fill a batch of {fixed}, which the model insists on"


def fixed_batch(inputs: Sequence[Input]) -> int | None:
    """The batch size that the model insists on, if it does."""
    sizes = {entry.shape[0] for entry in inputs if entry.shape} - {None}
    return sizes.pop() if len(sizes) == 1 else None


def opened(data: Data, names: Sequence[str], folder: Path, *, once: bool) -> Dataset:
    """The data as a `Dataset`.

    Args:
        data: in any of its forms.
        names: of the model's inputs.
        folder: for copies: of URLs, and of iterators that have to be read twice.
        once: whether the number of samples has to be known before the first is taken.
    """
    if paths := _paths(data):
        for path in filter(are_images, map(Path, paths)):
            raise DataError(f"{path}: nothing in it is data; images are given by --images, in Python as bnfold.Images")
        return open_data([_local(path, folder) for path in paths], names)
    if hasattr(data, "get_next"):
        data = _from_reader(data)
    if isinstance(data, Iterator) and once:
        data = _kept(data, names, folder)
        return open_data([data], names)
    if not isinstance(data, Mapping | Iterable) and not hasattr(data, "__array__"):
        raise CalibrationError(f"{type(data).__name__} is no data: give paths, arrays, or an iterable of batches")
    return Dataset([Script(_ORIGIN, names, lambda: data)])


def _paths(data: Data) -> list[str]:
    if isinstance(data, str | Path):
        return [str(data)]
    if isinstance(data, list | tuple) and data and all(isinstance(entry, str | Path) for entry in data):
        return [str(entry) for entry in data]
    return []


def _local(path: str, folder: Path) -> str:
    """A path as it is; what a URL names, copied."""
    if "://" not in path:
        return path
    try:
        import fsspec  # noqa: PLC0415 -- an extra
    except ImportError:
        raise DataError(f"{path}: URLs need fsspec: pip install bnfold[fsspec]") from None
    target = folder / f"fetched-{sha256(path.encode()).hexdigest()[:16]}"
    target.mkdir(exist_ok=True)
    try:
        files, remote = fsspec.core.url_to_fs(path)
        files.get(remote, f"{target}/", recursive=True)
    except Exception as error:  # each protocol has its own
        raise DataError(f"{path}: {type(error).__name__}: {' '.join(str(error).split())}") from error
    return str(target)


def _from_reader(reader: Any) -> Iterator[Any]:
    while (feed := reader.get_next()) is not None:
        yield feed


def _kept(batches: Iterator[Any], names: Sequence[str], folder: Path) -> Path:
    """Writes what an iterator gives, to be read again."""
    kept = folder / "kept"
    kept.mkdir()
    numbers = count()
    for feed in Dataset([Script(_ORIGIN, names, lambda: batches)]).batches(1 << 10):
        with created(kept / f"{next(numbers):08}.npz") as file:
            np.savez(file, **feed)  # type: ignore[arg-type]
    return kept


def _check(feed: Feed, inputs: Sequence[Input], start: int, where: Callable[[int], str]) -> None:
    for entry in inputs:
        array = feed[entry.name]
        if not entry.fits(array):
            other = f"the data has {array.dtype} {list(array.shape)}"
            raise DataError(f"{where(start)}: {entry}, {other}{_advice(entry, array)}")
        if array.dtype.kind == "f" and not np.isfinite(array).all():
            row = int(np.argwhere(~np.isfinite(array))[0][0])
            raise DataError(f"{where(start + row)}: holds NaN or infinity (input {entry.name!r})")
    for first in {entry.first for entry in inputs if entry.first}:
        rows = {entry.name: len(feed[entry.name]) for entry in inputs if entry.first == first}
        if len(set(rows.values())) > 1:
            counts = ", ".join(f"{name!r} {count}" for name, count in rows.items())
            raise DataError(f"{where(start)}: the inputs have different numbers of samples: {counts}")


def _advice(entry: Input, array: npt.NDArray[Any]) -> str:
    """How to make another type of floats fit, if that is all that is wrong: integers may want to be scaled first."""
    are_floats = entry.dtype is not None and entry.dtype.kind == array.dtype.kind == "f"
    if not are_floats or not replace(entry, dtype=array.dtype).fits(array):
        return ""
    return f": x.astype('{entry.dtype}') makes it that"


def _rows(feed: Feed) -> int:
    """How many samples; a feed without a common first axis is one."""
    found = lengths(feed)
    return found.pop() if len(found) == 1 else 1


def _write(feed: Feed, rows: int, number: int, folder: Path) -> Batch:
    files = {name: str(folder / f"data-{number}-{index}.npy") for index, name in enumerate(feed)}
    for name, array in feed.items():
        save(Path(files[name]), array)
    return Batch(number, files, rows)
