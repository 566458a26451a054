"""Whether a file holds what folding makes: every tensor bit for bit, and the graph around them."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from onnx import TensorProto

from bnfold.model_io import Model
from bnfold.model_io.payload import exact_chunks
from bnfold.model_io.protobuf import copied, encoded, serialize
from bnfold.model_io.tensors import DATA_FIELDS, all_tensors


def differences(folded: Model, written: Model) -> Iterator[str]:
    """What the two differ in; one tensor at a time is in memory.

    Args:
        folded: A model as it was folded just now.
        written: A model as it was read from a file.
    """
    wanted, found = list(all_tensors(folded.proto)), list(all_tensors(written.proto))
    if [_kind(tensor) for tensor in wanted] != [_kind(tensor) for tensor in found]:
        yield "AFTER has other tensors than folding makes of BEFORE"
        return
    if _without_data(folded) != _without_data(written):
        yield "the graph of AFTER is not the one that folding makes of BEFORE"
    for tensor, other in zip(wanted, found, strict=True):
        left, right = _content(folded, tensor), _content(written, other)
        if left != right:
            yield f"tensor {tensor.name!r} is not what folding makes of it: {_how_far(left, right, tensor)}"


def _kind(tensor: TensorProto) -> tuple[str, int, tuple[int, ...]]:
    return tensor.name, tensor.data_type, tuple(tensor.dims)


def _without_data(model: Model) -> bytes:
    proto = copied(model.proto)
    for tensor in all_tensors(proto):
        for field in (*DATA_FIELDS, "raw_data", "external_data", "data_location"):
            tensor.ClearField(field)
    return serialize(proto)


def _content(model: Model, tensor: TensorProto) -> bytes:
    payload = model.payload(tensor)
    if payload is not None:
        return b"".join(exact_chunks(payload))
    return tensor.raw_data if tensor.HasField("raw_data") else encoded(tensor, deterministic=True)


def _how_far(left: bytes, right: bytes, tensor: TensorProto) -> str:
    if len(left) != len(right):
        return "it has another size"
    wrong = np.frombuffer(left, np.uint8) != np.frombuffer(right, np.uint8)
    numbers = max(1, int(np.prod(tensor.dims)))
    width = max(1, len(left) // numbers)
    places = np.unique(np.flatnonzero(wrong) // width)
    return f"{len(places)} of {numbers} numbers differ, the first at {int(places[0])}"
