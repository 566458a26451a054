"""Bytes to protobuf and back, with one kind of error."""

from __future__ import annotations

import onnx
from google.protobuf.message import DecodeError, EncodeError, Message

from bnfold.model_io.error import ModelError
from bnfold.model_io.tensors import all_tensors

LIMIT = (1 << 31) - 1
"""The most bytes that protobuf parses or serialises at once."""


def parse(data: bytes) -> onnx.ModelProto:
    """The model that was serialised to `data`.

    Raises:
        ModelError: it is no model.
        MemoryError: there was not enough.
    """
    proto = onnx.ModelProto()
    try:
        proto.ParseFromString(data)
    except DecodeError as error:
        if "alloc failed" in str(error):
            raise MemoryError(str(error)) from error
        raise ModelError("is damaged, or is not an ONNX model") from error
    return proto


def copied(proto: onnx.ModelProto) -> onnx.ModelProto:
    """The same once more. protobuf's own CopyFrom takes the process along where memory ends; what is parsed does not.

    Raises:
        MemoryError: there was not enough.
    """
    return parse(encoded(proto))


def encoded(message: Message, *, deterministic: bool = False) -> bytes:
    """A message, serialised; where memory ends, protobuf says only that it failed.

    Raises:
        MemoryError: there was not enough.
    """
    try:
        return bytes(message.SerializeToString(deterministic=deterministic))
    except EncodeError as error:
        raise MemoryError(str(error)) from error


def size_of(message: Message) -> int:
    """How many bytes that would be; protobuf makes them all to count them.

    Raises:
        MemoryError: there was not enough.
    """
    try:
        return int(message.ByteSize())
    except EncodeError as error:
        raise MemoryError(str(error)) from error


def serialize(proto: onnx.ModelProto) -> bytes:
    """The serialised model.

    Raises:
        ModelError: it is over 2 GiB.
        MemoryError: there was not enough.
    """
    try:
        return bytes(proto.SerializeToString())
    except (EncodeError, ValueError) as error:
        if sum(len(tensor.raw_data) for tensor in all_tensors(proto)) < LIMIT // 2:  # protobuf does not say which it is
            raise MemoryError(str(error)) from error
        raise ModelError("is over 2 GiB, the limit of protobuf") from error
