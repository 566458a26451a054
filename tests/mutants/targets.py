"""What a fuzzer gives inputs to: each target says `ok: …`, or what is wrong."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from google.protobuf.message import DecodeError
from onnx import ModelProto

from bnfold.model_io import ModelError, load, to_proto
from bnfold.model_io.payload import Memory, Range
from bnfold.model_io.wire import Splicer
from mutants.examine import Depth, examine

FOUND = Path(__file__).with_name("found")
"""Inputs that were wrong once, in files called TARGET-…: tests/mutants/test_found.py tries them all."""


def wire(data: bytes) -> str:
    """What is cut out and put back is the model that protobuf reads; and what cannot be read is refused."""
    try:
        proto = ModelProto.FromString(data)
    except DecodeError:
        proto = None
    source = Memory(data)
    try:
        pieces = Splicer(source, 1, lambda start, stop: Range(source, start, stop - start)).splice()
    except ModelError:
        return "ok: refused"
    whole = b"".join(piece if isinstance(piece, bytes) else b"".join(piece.chunks()) for piece in pieces)
    if proto is not None and ModelProto.FromString(whole).SerializeToString() != proto.SerializeToString():
        return "put together again, it is another model"
    return _loaded(data, proto)


def _loaded(data: bytes, proto: ModelProto | None) -> str:
    try:
        model = load(data)
    except ModelError:
        return "ok: refused"
    if proto is None or to_proto(model).SerializeToString() != proto.SerializeToString():
        return "what was read is another model"
    return "ok: read"


TARGETS: dict[str, Callable[[bytes], str]] = {
    "wire": wire,
    "plan": examine,
    "verify": lambda data: examine(data, Depth.REGIONS),
}
