"""An output exists whole or not at all.

The model is written beside its final place under a name of its own, and renamed last. A data file gets a name that
carries a hash of its content, so the data of the old model is never written over, and old and new never mix.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import re
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from bnfold.model_io.error import ModelError
from bnfold.model_io.model import Model, cut
from bnfold.model_io.payload import File, Range
from bnfold.model_io.wire import Piece
from bnfold.model_io.write import move_outside, tensors_outside, write_data, write_file

_PREFIX = f".bnfold-{os.uname().nodename}-"  # process numbers mean something on their own machine only
_numbers = itertools.count()


def check_output(out: Path, source: Path | None, *, in_place: bool, overwrite: bool) -> None:
    """Refuses what can be refused before any work is done.

    Args:
        out: where the model shall go; a symbolic link stands for what it points to.
        source: the file that the model came from, if any.
        in_place: `out` may be that very file.
        overwrite: `out` may exist.

    Raises:
        ModelError: nothing can, or shall, be written there.
    """
    target = Path(os.path.realpath(out))
    if not target.parent.is_dir():
        raise ModelError(f"{out}: there is no folder {target.parent}")
    if not os.access(target.parent, os.W_OK | os.X_OK):
        raise ModelError(f"{out}: the folder {target.parent} is not writable")
    if not target.exists():
        return
    if not target.is_file():
        raise ModelError(f"{out}: is a folder" if target.is_dir() else f"{out}: is not a regular file")
    if source is not None and source.exists() and target.samefile(source):
        if not in_place:
            raise ModelError(f"{out}: is the input itself, and was not to be changed in place")
    elif not overwrite:
        raise ModelError(f"{out}: already exists")


@contextmanager
def staged(model: Model, out: Path, *, unchanged: bool = False) -> Iterator[Path]:
    """Writes the model beside `out`, and moves it there when the `with` block ends well; else `out` stays as it was.

    If the model had data files, its large tensors go to one new data file, `<stem of out>-<hash>.data`. The data file
    of the model that was at `out` is removed if this function made it and no model in the folder uses it.

    Args:
        model: what to write.
        out: where to; replaced if it exists.
        unchanged: the model was not edited: the output is the same bytes, and keeps to the data files if it can.

    Yields:
        The path of the complete model, to be looked at before it counts. It ends in `.onnx`.

    Raises:
        ModelError: it cannot be written, or a tensor cannot be read.
    """
    check_output(out, None, in_place=False, overwrite=True)
    staging = _Staging(out, model)
    try:
        with _naming(out):
            staging.write(model, unchanged)
        yield staging.model
        with _naming(out):
            staging.publish()
    except BaseException:
        staging.discard()
        raise


class _Staging:
    """What stands in the folder of an output before it counts."""

    def __init__(self, out: Path, model: Model) -> None:
        self._target = Path(os.path.realpath(out))
        self._folder = self._target.parent
        if model.has_data_files and not out.parent.samefile(self._folder):
            raise ModelError(f"{out}: is a link into another folder, where its data files would not be found")
        _sweep(self._folder)
        name = f"{_PREFIX}{os.getpid()}-{next(_numbers)}"
        self.model = self._folder / f"{name}.onnx"
        self._data = self._folder / f"{name}.data"
        self._made = [self._data]
        self._mode = stat.S_IMODE(self._target.stat().st_mode) if self._target.exists() else None

    def write(self, model: Model, unchanged: bool) -> None:
        with self._create(self.model) as stream:  # exists before the data file does, and until it is `out`
            if unchanged and self._same_data(model):
                pieces: list[Piece] = [Range(model.source, 0, model.source.size)]
            elif model.has_data_files:
                pieces = self._with_data(model).pieces()
            else:
                pieces = model.pieces()
            write_file(pieces, stream)

    def publish(self) -> None:
        old = self._own_data()
        os.replace(self.model, self._target)
        self._sync_folder()
        for path in old:
            with contextlib.suppress(OSError, ModelError):  # what cannot be read may need the data: leave it
                if not any(_names(other, path) for other in self._folder.glob("*.onnx*")):
                    path.unlink()

    def discard(self) -> None:
        """Removes what was made, unless the output already counts."""
        if self.model.exists():
            for path in (*self._made, self.model):
                path.unlink(missing_ok=True)

    def _same_data(self, model: Model) -> bool:
        """Whether the output can name the same data files as the input."""
        return not model.has_data_files or (model.path is not None and model.path.parent.samefile(self._folder))

    def _with_data(self, model: Model) -> Model:
        """Writes the data file; returns the model that names it."""
        model = model.copy()
        outside = tensors_outside(model)
        with self._create(self._data) as stream:
            offsets, content = write_data([payload for _, payload in outside], stream)
        final = self._folder / f"{self._target.stem}-{content}.data"
        for (tensor, payload), offset in zip(outside, offsets, strict=True):
            move_outside(tensor, final.name, offset, payload.nbytes)
        if not final.exists():  # else it is the same, and not ours to discard
            self._made.append(final)
        os.replace(self._data, final)
        self._sync_folder()
        return model

    @contextmanager
    def _create(self, path: Path) -> Iterator[BinaryIO]:
        """A new file, which is on the disk when the block ends."""
        with open(path, "xb") as stream:
            if self._mode is not None:
                os.fchmod(stream.fileno(), self._mode)
            yield stream
            stream.flush()
            os.fsync(stream.fileno())

    def _sync_folder(self) -> None:
        with contextlib.suppress(OSError):  # some file systems cannot, and some folders may not be opened
            descriptor = os.open(self._folder, os.O_RDONLY | os.O_CLOEXEC)
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)

    def _own_data(self) -> list[Path]:
        """The data files that we made for the model that stands at the target now."""
        ours = re.compile(re.escape(self._target.stem) + r"-[0-9a-f]{16}\.data")
        found = [path for path in self._folder.glob("*.data") if ours.fullmatch(path.name)]
        with contextlib.suppress(OSError, ModelError):
            return [path for path in found if _names(self._target, path)]
        return []


def _names(model: Path, data: Path) -> bool:
    """Whether the model names that data file; errs on the side of yes."""
    return os.fsencode(data.name) in cut(File(model), {})


def _sweep(folder: Path) -> None:
    """Removes what a process of this machine left behind when it was killed."""
    ours = re.compile(re.escape(_PREFIX) + r"(\d+)-\d+\.(onnx|data)")
    for path in folder.glob(".bnfold-*"):
        if (match := ours.fullmatch(path.name)) and not _is_alive(int(match[1])):
            with contextlib.suppress(OSError):
                path.unlink()


def _is_alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        pass
    return True


@contextmanager
def _naming(out: Path) -> Iterator[None]:
    """An error of the system becomes one line that names the output."""
    try:
        yield
    except OSError as error:
        raise ModelError(f"{out}: cannot be written: {error.strerror}") from error
