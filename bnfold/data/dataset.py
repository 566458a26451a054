"""Opening data and handing it out in batches."""

from __future__ import annotations

import glob
import importlib.util
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import chain
from pathlib import Path

import numpy as np

from bnfold.data.sources import (
    ArrayFile,
    Arrays,
    DataError,
    Feed,
    Script,
    Selection,
    Source,
    count_of,
    lengths,
    read_test_data,
    rows_of,
)
from bnfold.data.zipped import ZippedArrays

_GLOB = frozenset("*?[")
_DEFAULT_FUNCTION = "load_data"


class Dataset:
    """Samples from one or more sources, one after the other."""

    def __init__(self, sources: Sequence[Source]) -> None:
        self._sources = sources

    def __len__(self) -> int:
        """How many samples. A script has to run once to tell."""
        return sum(source.rows for source in self._sources)

    @property
    def knows_length(self) -> bool:
        """Whether ``len`` costs nothing, as there is no script."""
        return not any(isinstance(source, Script) for source in self._sources)

    def batches(
        self,
        batch_size: int,
        *,
        start: int = 0,
        stop: int | None = None,
        max_samples: int | None = None,
        seed: int | None = None,
    ) -> Iterator[Feed]:
        """The samples from ``start`` to ``stop``, ``batch_size`` at a time; the last batch may be smaller.

        Args:
            batch_size: Samples in a batch. A batch ends early where the next sample has another shape.
            start: The first sample.
            stop: The sample to end before.
            max_samples: Take no more than these, spread evenly over all (never just the first ones).
            seed: Draw the ``max_samples`` at random with this seed, still in order.

        Raises:
            DataError: A source cannot be read.
        """
        selection = self._selection(start, stop, max_samples, seed)
        return _rebatched(self._pieces(selection, batch_size), batch_size)

    def where(self, number: int, *, max_samples: int | None = None, seed: int | None = None) -> str:
        """For messages: the origin and the row of the sample that ``batches`` gives as the one of this number."""
        if max_samples is not None:
            number = self._selection(0, None, max_samples, seed)[number]
        for source in self._sources[:-1]:
            if number < source.rows:
                return f"{source.origin}, row {number}"
            number -= source.rows
        return f"{self._sources[-1].origin}, row {number}"

    def _selection(self, start: int, stop: int | None, max_samples: int | None, seed: int | None) -> Selection:
        if max_samples is None:
            return Selection(start, stop)
        stop = len(self) if stop is None else min(stop, len(self))
        count = max(0, stop - start)
        if count <= max_samples:
            return Selection(start, stop)
        if seed is not None:
            chosen = np.sort(np.random.default_rng(seed).choice(count, max_samples, replace=False))
        else:
            chosen = (np.arange(max_samples) * count + count // 2) // max_samples
        return Selection(start, stop, chosen.astype(np.int64) + start)

    def _pieces(self, selection: Selection, size: int) -> Iterator[Feed]:
        offset = 0
        for source in self._sources:
            if selection.ends_before(offset):
                return
            yield from source.pick(selection, offset, size)
            offset += source.rows if source is not self._sources[-1] else 0  # the last may be a script without end


def open_data(sources: Sequence[str | Path], input_names: Sequence[str]) -> Dataset:
    """Opens data for a model with these inputs.

    Args:
        sources: ``.npy`` files (models with one input), ``.npz`` files whose keys are input names, ONNX
            ``test_data_set_*`` folders, folders and globs of these, or ``script.py:function`` (``load_data`` if there
            is no colon).
        input_names: The inputs that every sample needs.

    Raises:
        DataError: A source is missing, empty, damaged, or does not have what the inputs need.
    """
    return Dataset(list(chain.from_iterable(_opened(str(source), input_names) for source in sources)))


def _opened(source: str, names: Sequence[str]) -> Iterator[Source]:
    path = Path(source)
    if path.suffix == ".py" and path.exists():
        source, path = f"{source}:{_DEFAULT_FUNCTION}", Path(f"{source}:{_DEFAULT_FUNCTION}")
    if not path.exists() and (function := _function(source)):
        yield Script(source, names, function)
        return
    if path.exists():
        paths: Iterable[Path] = [path]
    else:
        matches = glob.glob(source, recursive=True) if _GLOB & set(source) else []
        paths = [Path(match) for match in sorted(matches)]
    empty = True
    for match in paths:
        for opened in _on_disk(match, names):
            empty = False
            yield opened
    if empty:
        missing = "nothing matches it" if _GLOB & set(source) else "no such file or folder"
        raise DataError(f"{source}: {'nothing in it is data' if path.exists() else missing}")


def _on_disk(path: Path, names: Sequence[str]) -> Iterator[Source]:
    if path.is_dir():
        if (path / "input_0.pb").exists():
            yield Arrays(path, names, lambda: read_test_data(path, names))
        else:
            for child in sorted(path.iterdir()):
                if child.suffix in (".npy", ".npz") or (child.is_dir() and (child / "input_0.pb").exists()):
                    yield from _on_disk(child, names)
    elif path.suffix == ".npz":
        yield ZippedArrays(path, names)
    elif path.suffix == ".npy":
        yield ArrayFile(path, names)
    else:
        raise DataError(f"{path}: is neither .npy, .npz, a test_data_set folder nor script.py:function")


def _function(source: str) -> Callable[[], object] | None:
    script, colon, name = source.rpartition(":")
    if not colon or not script.endswith(".py"):
        return None
    spec = importlib.util.spec_from_file_location(Path(script).stem, script)
    if spec is None or spec.loader is None or not Path(script).is_file():
        raise DataError(f"{script}: no such file")
    module = importlib.util.module_from_spec(spec)
    sys.modules.setdefault(spec.name, module)
    writes_nothing, sys.dont_write_bytecode = sys.dont_write_bytecode, True  # beside a script of the user's
    try:
        spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:
        raise DataError(f"{script}: {type(error).__name__}: {error}") from error
    finally:
        sys.dont_write_bytecode = writes_nothing
    function = getattr(module, name, None)
    if not callable(function):
        raise DataError(f"{script}: has no function {name!r}")
    return function  # type: ignore[no-any-return]


def _rebatched(pieces: Iterable[Feed], size: int) -> Iterator[Feed]:
    """The same samples in batches of exactly ``size``, but for the last before a change of shape.

    Arrays without a common axis of samples are a batch by themselves.
    """
    held: list[Feed] = []
    count = 0
    for piece in pieces:
        rows = count_of(piece)
        if held and (count + rows > size or not _alike(held[-1], piece)):
            room = size - count if _alike(held[-1], piece) else 0
            if room > 0:
                held.append(rows_of(piece, slice(room)))
                piece = rows_of(piece, slice(room, None))  # noqa: PLW2901 -- what is left of it
                rows -= room
            yield _joined(held)
            held, count = [], 0
        held.append(piece)
        count += rows
    if held:
        yield _joined(held)


def _joined(feeds: Sequence[Feed]) -> Feed:
    if len(feeds) == 1:
        return feeds[0]
    return {name: np.concatenate([feed[name] for feed in feeds]) for name in feeds[0]}


def _alike(left: Feed, right: Feed) -> bool:
    return len(lengths(left)) == len(lengths(right)) == 1 and all(
        array.ndim > 0 and left[name].dtype == array.dtype and left[name].shape[1:] == array.shape[1:]
        for name, array in right.items()
    )
