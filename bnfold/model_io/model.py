"""A model in two parts: the protobuf without its large tensors, and where the bytes of those are."""

from __future__ import annotations

import itertools
import os
import re
from itertools import chain
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, numpy_helper

from bnfold.model_io.error import ModelError
from bnfold.model_io.external import DataFiles, ExternalRange, external_range
from bnfold.model_io.forms import ModelLike, plain
from bnfold.model_io.payload import File, Memory, Payload, Range, Source, exact_chunks
from bnfold.model_io.protobuf import copied, parse, serialize, size_of
from bnfold.model_io.tensors import DATA_FIELDS, all_tensors, is_external, is_packed
from bnfold.model_io.validate import check_model
from bnfold.model_io.wire import Piece, Splicer

_LEAST_CUT = 1 << 12

# What stands in the place of a tensor's bytes. It is drawn anew for each run, so no file can hold one.
_MARKER = os.urandom(16)
_MARKER_SIZE = len(_MARKER) + 8
_numbers = itertools.count()

_HANDED_OVER = re.compile(r"/dev/(stdin|fd/(\d{1,9}))")  # as `<(zcat model.onnx.gz)` is called
_LFS_POINTER = b"version https://git-lfs"


class Model:
    """A model whose large tensors stay where they are until their bytes are asked for.

    Attributes:
        proto: the model, to be edited freely. The `raw_data` of a large tensor is a marker in it, which may be copied
            to other tensors of this model; so read tensors through `array` or `payload`.
        source: what it was read from.
        path: the file that it was read from, absolute; None if it came from memory or a pipe.
        has_data_files: whether tensors stood in data files when it was read.
    """

    def __init__(self, proto: onnx.ModelProto, source: Source, payloads: dict[int, Payload]) -> None:
        """For `load`."""
        self._proto: onnx.ModelProto | None = proto
        self._packed = b""
        self.source = source
        self.path = source.path if isinstance(source, File) else None
        self.has_data_files = False
        self._data_files = None if self.path is None else DataFiles(self.path)
        self._payloads = payloads

    @property
    def proto(self) -> onnx.ModelProto:
        if self._proto is None:
            self._proto, self._packed = parse(self._packed), b""
        return self._proto

    @proto.setter
    def proto(self, proto: onnx.ModelProto) -> None:
        self._proto, self._packed = proto, b""

    def pack(self) -> None:
        """Keeps the protobuf as bytes, a fifth of its size, until it is asked for; who holds it holds another then."""
        if self._proto is not None:
            self._packed = serialize(self._proto)
            self._proto = None

    def data_files(self) -> set[str]:
        """The data files that it was read from, absolute, with links followed; an output may not take their place.

        Raises:
            ModelError: what a tensor says of its data makes no sense.
        """
        if self.path is None or not self.has_data_files:
            return set()
        payloads = map(self.payload, all_tensors(self.proto))
        locations = {payload.location for payload in payloads if isinstance(payload, ExternalRange)}
        return {os.path.realpath(self.path.parent / location) for location in locations}

    @property
    def nbytes(self) -> int:
        """About how many bytes it takes, data files included."""
        graph = self.proto.graph
        parts = chain(graph.node, graph.initializer, graph.sparse_initializer, graph.value_info, self.proto.functions)
        own = sum(size_of(part) for part in parts)  # one by one: of a whole it makes all bytes to count them
        payloads = map(self.payload, all_tensors(self.proto))
        return own + sum(payload.nbytes for payload in payloads if payload is not None)

    def payload(self, tensor: TensorProto) -> Payload | None:
        """Where the tensor's bytes come from; None if its values stand in the proto.

        Raises:
            ModelError: it is external, and what it says of its data makes no sense; or its bytes are another model's.
        """
        if is_external(tensor):
            return external_range(self._data_files, tensor)
        raw = tensor.raw_data
        return self._marked(raw) if len(raw) == _MARKER_SIZE and raw.startswith(_MARKER) else None

    def array(self, tensor: TensorProto) -> npt.NDArray[np.generic]:
        """The tensor's values in its own dtype (of ml_dtypes where numpy has none), in an array of the caller's own.

        Raises:
            ModelError: its bytes cannot be read, or make no array of its type and dims.
        """
        payload = self.payload(tensor)
        try:
            if payload is None:
                return numpy_helper.to_array(tensor).copy()
            if is_packed(tensor):
                data = b"".join(exact_chunks(payload))
                return numpy_helper.to_array(TensorProto(data_type=tensor.data_type, dims=tensor.dims, raw_data=data))
            array = np.empty(tensor.dims, onnx.helper.tensor_dtype_to_np_dtype(tensor.data_type))
            _fill(array, payload)
        except ModelError:
            raise
        except (KeyError, TypeError, ValueError) as error:
            raise ModelError(f"tensor {tensor.name!r}: {error}") from error
        return array

    def rows(self, tensor: TensorProto, start: int, stop: int) -> npt.NDArray[np.generic]:
        """Some rows of a tensor that has any, as `array` would give them; those of a file are read alone.

        Raises:
            ModelError: as for `array`.
        """
        payload = self.payload(tensor)
        if isinstance(payload, ExternalRange):
            payload = payload.open()
        if not isinstance(payload, Range) or is_packed(tensor):
            return self.array(tensor)[start:stop]
        size = payload.nbytes // tensor.dims[0]
        array = np.empty((stop - start, *tensor.dims[1:]), onnx.helper.tensor_dtype_to_np_dtype(tensor.data_type))
        _fill(array, payload.part(start * size, stop * size))
        return array

    def attach(self, tensor: TensorProto, payload: Payload) -> None:
        """From now on the tensor's bytes are the payload's; its `data_type` and `dims` are the caller's to set."""
        for field in (*DATA_FIELDS, "external_data", "data_location"):
            tensor.ClearField(field)
        tensor.raw_data = _mark(self._payloads, payload)

    def exchange(self, tensor: TensorProto, payload: Payload) -> None:
        """The same, and what was attached to it before is forgotten: no other tensor may be a copy of it."""
        del self._payloads[_number(tensor.raw_data)]
        self.attach(tensor, payload)

    def copy(self) -> Model:
        """The same model once more; what is done to one does not show in the other."""
        return self.around(copied(self.proto))

    def around(self, proto: onnx.ModelProto) -> Model:
        """A model of its own; the tensors in `proto` may be copies of this one's."""
        model = Model(proto, self.source, dict(self._payloads))
        model.has_data_files, model._data_files = self.has_data_files, self._data_files
        return model

    def refuse_changed(self, *, at_its_path: bool = False) -> None:
        """Refuses a model whose files were written to since it was loaded.

        Args:
            at_its_path: and one that another file has taken the place of, which does not change what was read.

        Raises:
            ModelError: one was; it says which.
        """
        if isinstance(self.source, File):
            self.source.refuse_changed(at_its_path=at_its_path)
        if self._data_files is not None:
            self._data_files.refuse_changed()

    def pieces(self) -> list[Piece]:
        """The serialised model, with the bytes of cut and attached tensors in their places.

        Raises:
            ModelError: even without those it is over 2 GiB.
        """
        data = serialize(self.proto)
        swapped = 0

        def swap(start: int, stop: int) -> Piece | None:
            nonlocal swapped
            if start != splicer.seek:
                return None
            splicer.seek = _find_marker(data, stop)
            swapped += 1
            return self._marked(data[start:stop])

        splicer = Splicer(Memory(data), _MARKER_SIZE, swap)
        splicer.seek = _find_marker(data, 0)
        pieces = splicer.splice()
        if swapped != data.count(_MARKER):
            raise ModelError("the bytes of a tensor stand where no tensor's bytes can")
        return pieces

    def _marked(self, marker: bytes) -> Payload:
        payload = self._payloads.get(_number(marker))
        if payload is None:
            raise ModelError("the bytes of a tensor belong to another model")
        return payload


def load(model: ModelLike | Model) -> Model:
    """Reads a model, all but its large tensors, and checks that it holds together.

    Args:
        model: in any form. One in memory is copied, and cannot have data files as its folder is unknown; one that was
            loaded before is returned as it is.

    Raises:
        ModelError: it cannot be read, is no ONNX model, or contradicts itself.
        TypeError: it is no model at all.
    """
    if isinstance(model, Model):
        return model
    source = plain(model)
    name = "the model"
    try:
        if isinstance(source, onnx.ModelProto):
            return _parsed(Memory(serialize(source)))
        if isinstance(source, bytes):
            return _parsed(Memory(source))
        name = os.fspath(source)
        return _parsed(_open(Path(os.path.abspath(source))))
    except ModelError as error:
        raise ModelError(f"{name}: {error}") from error


def cut(source: Source, payloads: dict[int, Payload]) -> bytes:
    """The serialised model without its large tensors, which are added to `payloads`."""

    def swap(start: int, stop: int) -> bytes:
        return _mark(payloads, Range(source, start, stop - start))

    pieces = Splicer(source, _LEAST_CUT, swap).splice()
    return b"".join(piece for piece in pieces if isinstance(piece, bytes))


def _open(path: Path) -> Source:
    """The file; of a descriptor that we were handed, all that comes from it."""
    if not (handed := _HANDED_OVER.fullmatch(str(path))):
        return File(path)
    try:
        with open(int(handed[2] or 0), "rb", closefd=False) as stream:
            return Memory(stream.read())
    except OSError as error:
        raise ModelError(error.strerror) from error


def _parsed(source: Source) -> Model:
    if not source.size:
        raise ModelError("is empty")
    if source.size > len(_LFS_POINTER) and source.read(0, len(_LFS_POINTER)) == _LFS_POINTER:
        raise ModelError("is only a Git LFS pointer; `git lfs pull` fetches the model")
    payloads: dict[int, Payload] = {}
    skeleton = cut(source, payloads)
    model = Model(parse(skeleton), source, payloads)
    check_model(model.proto, model.payload)
    if b"location" in skeleton:  # else a million nodes need not be asked
        model.has_data_files = any(map(is_external, all_tensors(model.proto)))
    return model


def _mark(payloads: dict[int, Payload], payload: Payload) -> bytes:
    number = next(_numbers)
    payloads[number] = payload
    return _MARKER + number.to_bytes(8, "little")


def _number(marker: bytes) -> int:
    return int.from_bytes(marker[len(_MARKER) :], "little")


def _find_marker(data: bytes, start: int) -> int:
    """Where the next marker is; the end if there is none."""
    found = data.find(_MARKER, start)
    return len(data) if found < 0 else found


def _fill(array: npt.NDArray[np.generic], payload: Payload) -> None:
    if payload.nbytes != array.nbytes:
        raise ValueError(f"{payload.nbytes} bytes do not make its type and dims")
    target = array.reshape(-1).view(np.uint8).data
    if isinstance(payload, ExternalRange):
        payload = payload.open()
    if isinstance(payload, Range):
        payload.read_into(target)
        return
    at = 0
    for chunk in exact_chunks(payload):
        target[at : at + len(chunk)] = chunk
        at += len(chunk)
