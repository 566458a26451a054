"""Data files: tensors whose bytes stand outside the model file.

A model may come from a stranger, and must not make us read what it likes. A data file must lie under the model's own
folder; or under the folder that the model file itself lies in after its symbolic links are followed, which is how the
Hugging Face cache lays out a model and its data. It must be a regular file, and is checked and read through the same
descriptor. As long as the model is in use, it must stay the same.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from onnx import TensorProto

from bnfold.model_io.error import ModelError
from bnfold.model_io.payload import File, Range, Stamp
from bnfold.model_io.tensors import raw_size

_MOST_DIGITS = 19


class DataFiles:
    """The data files of a model. A file is opened, and checked, each time it is read.

    So a model in hundreds of data files needs no more descriptors than any other.

    Args:
        model: the model file, by the name that it was asked for.
    """

    def __init__(self, model: Path) -> None:
        self._folder = model.parent
        self._roots = os.path.realpath(model.parent), os.path.dirname(os.path.realpath(model))
        self._stamps: dict[str, Stamp] = {}

    def open(self, location: str) -> File:
        """One of them, as it was when it was first opened.

        Raises:
            ModelError: there is no such file, it may not be read, is not a regular file, or was changed.
        """
        path = self._path(location)
        if path is None:
            raise ModelError("is not a path inside the model's folder")
        file = File(path, os.O_NOFOLLOW)
        if file.stamp != self._stamps.setdefault(location, file.stamp):
            raise ModelError("was changed while it was in use")
        return file

    def refuse_changed(self) -> None:
        """Refuses data files that are no longer what they were.

        Raises:
            ModelError: one is not.
        """
        for location in self._stamps:
            try:
                self.open(location)
            except ModelError as error:
                raise ModelError(f"data file {location!r}: {error}") from error

    def _path(self, location: str) -> Path | None:
        """The file, with symbolic links followed, if it lies where it may."""
        if not location or "\0" in location or os.path.isabs(location):
            return None
        path = Path(os.path.realpath(self._folder / location))
        return path if any(path.is_relative_to(root) for root in self._roots) else None


@dataclass(frozen=True)
class ExternalRange:
    """The payload that stands in a data file."""

    files: DataFiles
    tensor: str = field(compare=False)
    location: str
    offset: int
    nbytes: int

    def chunks(self) -> Iterator[bytes | memoryview]:
        return self.open().chunks()

    def open(self) -> Range:
        """The range of the file that it is, opened now.

        Raises:
            ModelError: there is no such file, it may not be read, is not a regular file, was changed, or is too
                short.
        """
        what = f"tensor {self.tensor!r}: data file {self.location!r}"
        try:
            file = self.files.open(self.location)
        except ModelError as error:
            raise ModelError(f"{what}: {error}") from error
        stop = self.offset + self.nbytes
        if stop > file.size:
            raise ModelError(f"{what} is too short: bytes {self.offset} to {stop} are wanted, it has {file.size}")
        return Range(file, self.offset, self.nbytes)


def external_range(files: DataFiles | None, tensor: TensorProto) -> ExternalRange:
    """Where the bytes of an external tensor stand. Opens nothing.

    Args:
        files: the data files of its model; None if the model was no file.
        tensor: a tensor with `data_location` EXTERNAL.

    Raises:
        ModelError: what the tensor says of its data makes no sense, or does not fit its type and dims.
    """
    where = f"tensor {tensor.name!r}"
    entries = {entry.key: entry.value for entry in tensor.external_data}
    location = entries.get("location", "")
    if files is None:
        raise ModelError(f"{where}: is in data file {location!r} of a folder unknown here: load the model by its path")
    expected = raw_size(tensor)
    offset, length = _number(entries.get("offset"), 0), _number(entries.get("length"), expected)
    if offset is None or length is None:
        raise ModelError(f"{where}: offset or length in data file {location!r} is not a number of bytes")
    if expected not in (None, length):
        raise ModelError(f"{where}: has {length} bytes in a data file, but its type and dims ask for {expected}")
    return ExternalRange(files, tensor.name, location, offset, length)


def _number(text: str | None, default: int | None) -> int | None:
    """The number that is written there; None if it is none."""
    if text is None:
        return default
    return int(text) if text.isascii() and text.isdigit() and len(text) <= _MOST_DIGITS else None
