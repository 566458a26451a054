"""An output exists whole or not at all.

The model is written beside its final place under a name of its own, and renamed last. A data file gets a name that
carries a hash of its content, so the data of the old model is never written over, and old and new never mix.
"""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from bnfold.model_io.error import ModelError
from bnfold.model_io.lock import alone
from bnfold.model_io.model import Model
from bnfold.model_io.payload import Range
from bnfold.model_io.temporary import Temporary
from bnfold.model_io.unnamed import data_of
from bnfold.model_io.wire import Piece
from bnfold.model_io.write import data_hash, move_outside, tensors_outside, write_data, write_file


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
            raise ModelError(f"{out}: is the input itself; --in-place (in_place=True) writes over it")
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
        ModelError: it cannot be written, or a tensor cannot be read, or a file that it was read from has changed.
    """
    check_output(out, None, in_place=False, overwrite=True)
    with _naming(out):
        staging = _Staging(out, model)
    try:
        with _naming(out):
            staging.write(unchanged)
        with staging.in_use():
            yield staging.model
        with _naming(out):
            staging.publish()
    finally:
        staging.close()


class _Staging:
    """What stands in the folder of an output before it counts."""

    def __init__(self, out: Path, model: Model) -> None:
        self._source = model
        self._target = Path(os.path.realpath(out))
        self._folder = self._target.parent
        if model.has_data_files and not out.parent.samefile(self._folder):
            raise ModelError(f"{out}: is a link into another folder, where its data files would not be found")
        self._mode = stat.S_IMODE(self._target.stat().st_mode) if self._target.exists() else None
        self._temporary = Temporary(self._folder)
        self.model, self._data = self._temporary.path(".onnx"), self._temporary.path(".data")
        self.close = self._temporary.close

    def write(self, unchanged: bool) -> None:
        model, content = self._source, ""
        with self._create(self.model) as stream:  # exists before the data file does, and until it is `out`
            if unchanged and self._same_data():
                pieces: list[Piece] = [Range(model.source, 0, model.source.size)]
            elif model.has_data_files:
                model, content = self._with_data()
                pieces = model.pieces()
            else:
                pieces = model.pieces()
            write_file(pieces, stream)
        if content:  # not before the model that names the data is complete: whoever removes data looks for that
            self._place(content)
        self._source.refuse_changed()

    @contextmanager
    def in_use(self) -> Iterator[None]:
        """While the model is looked at: what is found out means nothing if a file did not stay what it was."""
        try:
            yield
        except Exception:
            self._refuse_changed()
            raise
        self._refuse_changed()

    def publish(self) -> None:
        for path in data_of(self._target):
            self._temporary.note_old(path)
        os.replace(self.model, self._target)
        self._sync_folder()

    def _refuse_changed(self) -> None:
        self._source.refuse_changed(at_its_path=True)
        if not self.model.exists():
            raise ModelError(f"{self.model}: was removed while it was in use")

    def _same_data(self) -> bool:
        """Whether the output can name the same data files as the input."""
        path = self._source.path
        return not self._source.has_data_files or (path is not None and path.parent.samefile(self._folder))

    def _with_data(self) -> tuple[Model, str]:
        """Writes the data file; returns the model that names it, and the hash of its content."""
        model = self._source.copy()
        outside = tensors_outside(model)
        if not outside:  # what stood there has become small, or is gone
            return model, ""
        with self._create(self._data) as stream:
            offsets, content = write_data([payload for _, payload in outside], stream)
        name = self._final(content).name
        for (tensor, payload), offset in zip(outside, offsets, strict=True):
            move_outside(tensor, name, offset, payload.nbytes)
        return model, content

    def _final(self, content: str) -> Path:
        return self._folder / f"{self._target.stem}-{content}.data"

    def _place(self, content: str) -> None:
        """Gives the data file its name, unless a file of that name and content is there: a model may be using it."""
        final = self._final(content)
        is_there = data_hash(final) == content
        with alone(self._folder):
            if is_there and final.exists():
                return
            if not final.exists():  # else it is not ours to remove
                self._temporary.note_new(final)
            os.replace(self._data, final)
        self._sync_folder()

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


@contextmanager
def _naming(out: Path) -> Iterator[None]:
    """An error of the system becomes one line that names the output."""
    try:
        yield
    except OSError as error:
        raise ModelError(f"{out}: cannot be written: {error.strerror}") from error
