"""Data files: tensors whose bytes stand outside the model file.

A model may come from a stranger, and must not make us read what it likes. A data file must lie under the model's own
folder; or under the folder that the model file itself lies in after its symbolic links are followed, which is how the
Hugging Face cache lays out a model and its data. It must be a regular file, and is checked and read through the same
descriptor.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from onnx import TensorProto

from bnfold.model_io.error import ModelError
from bnfold.model_io.payload import File, Range
from bnfold.model_io.tensors import raw_size

_NO_SURPRISES = os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOFOLLOW
_MOST_DIGITS = 19


@dataclass(frozen=True)
class ExternalRange:
    """The payload that stands in a data file. The file is opened, and checked, each time it is read.

    So a model in hundreds of data files needs no more descriptors than any other.
    """

    model: Path
    tensor: str = field(compare=False)
    location: str
    offset: int
    nbytes: int

    def chunks(self) -> Iterator[bytes | memoryview]:
        return self.open().chunks()

    def open(self) -> Range:
        """The range of the file that it is, opened now.

        Raises:
            ModelError: there is no such file, it may not be read, is not a regular file, or is too short.
        """
        what = f"tensor {self.tensor!r}: data file {self.location!r}"
        path = self._path()
        if path is None:
            raise ModelError(f"{what} is not a path inside the model's folder")
        try:
            descriptor = os.open(path, _NO_SURPRISES)
        except OSError as error:
            raise ModelError(f"{what}: {error.strerror}") from error
        file = File(path, descriptor)
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise ModelError(f"{what} is not a regular file")
        stop = self.offset + self.nbytes
        if stop > file.size:
            raise ModelError(f"{what} is too short: bytes {self.offset} to {stop} are wanted, it has {file.size}")
        return Range(file, self.offset, self.nbytes)

    def _path(self) -> Path | None:
        """The file, with symbolic links followed, if it lies where it may."""
        if not self.location or "\0" in self.location or os.path.isabs(self.location):
            return None
        path = Path(os.path.realpath(self.model.parent / self.location))
        roots = os.path.realpath(self.model.parent), os.path.dirname(os.path.realpath(self.model))
        return path if any(path.is_relative_to(root) for root in roots) else None


def external_range(model: Path | None, tensor: TensorProto) -> ExternalRange:
    """Where the bytes of an external tensor stand. Opens nothing.

    Args:
        model: the model file, by the name that it was asked for; None if it was none.
        tensor: a tensor with `data_location` EXTERNAL.

    Raises:
        ModelError: what the tensor says of its data makes no sense, or does not fit its type and dims.
    """
    where = f"tensor {tensor.name!r}"
    entries = {entry.key: entry.value for entry in tensor.external_data}
    location = entries.get("location", "")
    if model is None:
        raise ModelError(f"{where}: is in data file {location!r} of a folder unknown here: load the model by its path")
    expected = raw_size(tensor)
    offset, length = _number(entries.get("offset"), 0), _number(entries.get("length"), expected)
    if offset is None or length is None:
        raise ModelError(f"{where}: offset or length in data file {location!r} is not a number of bytes")
    if expected not in (None, length):
        raise ModelError(f"{where}: has {length} bytes in a data file, but its type and dims ask for {expected}")
    return ExternalRange(model, tensor.name, location, offset, length)


def _number(text: str | None, default: int | None) -> int | None:
    """The number that is written there; None if it is none."""
    if text is None:
        return default
    return int(text) if text.isascii() and text.isdigit() and len(text) <= _MOST_DIGITS else None
