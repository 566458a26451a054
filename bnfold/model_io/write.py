"""Writing a model to something open: inline, or with its large tensors in one data file."""

from __future__ import annotations

import errno
import hashlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

import onnx
from onnx import TensorProto

from bnfold.model_io.error import ModelError
from bnfold.model_io.external import ExternalRange
from bnfold.model_io.model import Model
from bnfold.model_io.payload import CHUNK, File, Payload, Range, exact_chunks
from bnfold.model_io.protobuf import LIMIT, parse
from bnfold.model_io.tensors import all_tensors, is_external
from bnfold.model_io.wire import Piece, size

_LEAST_OUTSIDE = 1 << 10
_ALIGNMENT = 1 << 12  # a page, so that a tensor can be mapped into memory
_LEAST_ALIGNED = 1 << 16  # bytes: pages that are not filled add a sixteenth to the file, at the most
_ALIGNMENT_OF_SMALL = 1 << 3
_SYSTEM_COPIES = hasattr(os, "copy_file_range")
_NO_SYSTEM_COPY = (errno.EXDEV, errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP, errno.EPERM, errno.EBADF)


def to_proto(model: Model) -> onnx.ModelProto:
    """The whole model in memory, its data files included.

    Raises:
        ModelError: it would be over 2 GiB, the limit of protobuf, or a tensor cannot be read, or a file was changed.
    """
    pieces = _inline(model).pieces()
    if size(pieces) > LIMIT:
        raise ModelError("the model is over 2 GiB, which is more than protobuf can hold in memory")
    proto = parse(b"".join(chunk for piece in pieces for chunk in _chunks(piece)))
    model.refuse_changed()
    return proto


def write_stream(model: Model, stream: BinaryIO) -> None:
    """Writes the whole model, its data files included, a piece at a time.

    Raises:
        ModelError: a tensor cannot be read, or a file was changed; what was written so far is worth nothing.
        OSError: the stream cannot be written to.
    """
    for piece in _inline(model).pieces():
        for chunk in _chunks(piece):
            stream.write(chunk)
    model.refuse_changed()


def write_file(pieces: list[Piece], stream: BinaryIO) -> None:
    """Writes the pieces to a regular file, where the system can copy long ranges of other files by itself."""
    for piece in pieces:
        left = piece
        if _SYSTEM_COPIES and isinstance(piece, Range) and isinstance(piece.source, File) and piece.nbytes >= CHUNK:
            stream.flush()
            left = _copied(piece, piece.source.descriptor, stream.fileno())
        for chunk in _chunks(left):
            stream.write(chunk)


def tensors_outside(model: Model) -> list[tuple[TensorProto, Payload]]:
    """The tensors that belong in a data file: those that were in one, and new ones of at least 1 KiB.

    What stood in the model file itself, and was not changed, stays there.
    """
    found = []
    for tensor in all_tensors(model.proto):
        payload = model.payload(tensor)
        if payload is not None and _belongs_outside(model, tensor, payload):
            found.append((tensor, payload))
    return found


def write_data(payloads: list[Payload], stream: BinaryIO) -> tuple[list[int], str]:
    """Writes a data file.

    Returns:
        Where each payload starts in it, and 16 hexadecimal digits that depend on its content alone.
    """
    digest = hashlib.sha256()  # the fastest of the strong ones where the processor helps
    starts: dict[ExternalRange | int, int] = {}
    offsets = []
    position = 0

    def put(chunk: bytes | memoryview) -> None:
        nonlocal position
        digest.update(chunk)
        stream.write(chunk)
        position += len(chunk)

    for payload in payloads:
        key = payload if isinstance(payload, ExternalRange) else id(payload)
        if key not in starts:  # tensors that share their bytes go on sharing them
            put(bytes(-position % (_ALIGNMENT if payload.nbytes >= _LEAST_ALIGNED else _ALIGNMENT_OF_SMALL)))
            starts[key] = position
            for chunk in exact_chunks(payload):
                put(chunk)
        offsets.append(starts[key])
    return offsets, digest.hexdigest()[:16]


def data_hash(path: Path) -> str:
    """The same digits, of a file that is there; none if it cannot be read."""
    try:
        file = File(path)
        digest = hashlib.sha256()
        for chunk in Range(file, 0, file.size).chunks():
            digest.update(chunk)
    except ModelError:
        return ""
    return digest.hexdigest()[:16]


def move_outside(tensor: TensorProto, location: str, offset: int, nbytes: int) -> None:
    """Says in the tensor where its bytes are; what else `external_data` says of them stays."""
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    entries = {"location": location, "offset": str(offset), "length": str(nbytes)}
    entries |= {entry.key: entry.value for entry in tensor.external_data if entry.key not in entries}
    del tensor.external_data[:]
    for key, value in entries.items():
        tensor.external_data.add(key=key, value=value)


def _belongs_outside(model: Model, tensor: TensorProto, payload: Payload) -> bool:
    untouched = isinstance(payload, Range) and payload.source is model.source
    return is_external(tensor) or (payload.nbytes >= _LEAST_OUTSIDE and not untouched)


def _inline(model: Model) -> Model:
    """The model without data files."""
    if not model.has_data_files:
        return model
    model = model.copy()
    for tensor in all_tensors(model.proto):
        if is_external(tensor) and (payload := model.payload(tensor)):
            model.attach(tensor, payload)
    return model


def _chunks(piece: Piece) -> Iterator[bytes | memoryview]:
    return iter((piece,)) if isinstance(piece, bytes) else exact_chunks(piece)


def _copied(piece: Range, source: int, target: int) -> Range:
    """Lets the system copy the range; returns what it left to do, which is all of it between some file systems."""
    offset, left = piece.offset, piece.nbytes
    try:
        while left and (done := os.copy_file_range(source, target, left, offset)):
            offset, left = offset + done, left - done
    except OSError as error:
        if error.errno not in _NO_SYSTEM_COPY:
            raise
    return Range(piece.source, offset, left)
