"""The protobuf wire format, just far enough to exchange large byte strings inside a message for others.

A message is a row of fields; a field that holds a message or bytes starts with its length. To exchange the
`raw_data` of a tensor means to write it and the lengths of all messages around it anew; everything else is kept as
it stands. Nothing is merged or reordered on the way, so a field that occurs twice still does, and still means the same.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple, TypeAlias

from bnfold.model_io.error import ModelError
from bnfold.model_io.payload import Payload, Source

Message: TypeAlias = "Mapping[int, Message]"
"""The fields of a message that a tensor can lie in, by number."""

_RAW_DATA: Message = {}
_TENSOR: Message = {9: _RAW_DATA}
_SPARSE_TENSOR: Message = {1: _TENSOR, 2: _TENSOR}
_ATTRIBUTE: dict[int, Message] = {5: _TENSOR, 10: _TENSOR, 22: _SPARSE_TENSOR, 23: _SPARSE_TENSOR}
_NODE: Message = {5: _ATTRIBUTE}
_GRAPH: Message = {1: _NODE, 5: _TENSOR, 15: _SPARSE_TENSOR}
_ATTRIBUTE |= {6: _GRAPH, 11: _GRAPH}
_FUNCTION: Message = {7: _NODE, 11: _ATTRIBUTE}
_TRAINING: Message = {1: _GRAPH, 2: _GRAPH}
MODEL: Message = {7: _GRAPH, 20: _TRAINING, 25: _FUNCTION}

Piece: TypeAlias = bytes | Payload

_WINDOW = 1 << 16
_LONGEST_HEAD = 20  # a key and a length, ten bytes each
_DEEPEST = 100  # protobuf parses no deeper either
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5


class _Field(NamedTuple):
    number: int
    length_at: int
    start: int
    stop: int


def size(pieces: list[Piece]) -> int:
    """How many bytes the pieces are together."""
    return sum(len(piece) if isinstance(piece, bytes) else piece.nbytes for piece in pieces)


class Splicer:
    """Exchanges `raw_data` of tensors for something else.

    Args:
        source: a serialised ModelProto.
        least: fields shorter than this are skipped unseen, so that a million small nodes cost little.
        swap: is given the start and stop of a `raw_data`, and returns what stands there from now on, or None.
    """

    def __init__(self, source: Source, least: int, swap: Callable[[int, int], Piece | None]) -> None:
        self.seek = 0
        """Fields that end before this position are skipped unseen; `swap` may move it on."""
        self._source = source
        self._least = least
        self._swap = swap
        self._window = b""
        self._base = 0

    def splice(self) -> list[Piece]:
        """The whole source, as pieces, with what was to be swapped swapped.

        Raises:
            ModelError: these are no protobuf fields, or they are cut short or nested too deeply.
        """
        whole = self._splice(0, self._source.size, MODEL, 0)
        return whole or [self._bytes(0, self._source.size)]

    def _splice(self, start: int, stop: int, message: Message, depth: int) -> list[Piece]:
        """The message between the two positions; nothing at all if nothing was swapped in it."""
        if depth > _DEEPEST:
            raise ModelError(f"messages are nested more than {_DEEPEST} deep")
        pieces: list[Piece] = []
        kept = position = start
        while field := self._next(position, stop, message):
            if new := self._spliced(field, message[field.number], depth):
                pieces += [self._bytes(kept, field.length_at) + varint(size(new)), *new]
                kept = field.stop
            position = field.stop
        if pieces and kept < stop:
            pieces.append(self._bytes(kept, stop))
        return pieces

    def _spliced(self, field: _Field, inside: Message, depth: int) -> list[Piece]:
        if inside is not _RAW_DATA:
            return self._splice(field.start, field.stop, inside, depth + 1)
        piece = self._swap(field.start, field.stop)
        return [] if piece is None else [piece]

    def _bytes(self, start: int, stop: int) -> bytes:
        return bytes(self._source.read(start, stop - start))

    def _next(self, position: int, stop: int, message: Message) -> _Field | None:
        """The next field from `position` on that is long enough, not before `seek`, and can hold a tensor."""
        try:
            while position < stop:
                at = position - self._base
                if not 0 <= at <= len(self._window) - _LONGEST_HEAD:
                    self._move_window(position)
                    at = 0
                key, at = _varint(self._window, at)
                kind = key & 7
                if kind == _BYTES:
                    length_at = at
                    length, at = _varint(self._window, at)
                    start = self._base + at
                    position = start + length
                    if length >= self._least and position > self.seek and key >> 3 in message and position <= stop:
                        return _Field(key >> 3, self._base + length_at, start, position)
                elif kind == _VARINT and key:  # else a hole of exabytes would be walked through, zero by zero
                    position = self._base + _varint(self._window, at)[1]
                elif kind in (_FIXED64, _FIXED32):
                    position = self._base + at + (8 if kind == _FIXED64 else 4)
                else:
                    raise ModelError("is damaged, or is not an ONNX model: unknown wire type")
        except IndexError:
            position = stop + 1
        if position > stop:
            raise ModelError("is truncated, or is not an ONNX model")
        return None

    def _move_window(self, position: int) -> None:
        count = min(_WINDOW, self._source.size - position)
        self._window = self._bytes(position, position + count)
        self._base = position


def varint(value: int) -> bytes:
    """The number in protobuf's variable-length form."""
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def _varint(data: bytes, at: int) -> tuple[int, int]:
    """The number that starts at `at`, and where it ends."""
    value = data[at]
    if value < 0x80:
        return value, at + 1
    value &= 0x7F
    for count in range(1, 10):
        byte = data[at + count]
        value |= (byte & 0x7F) << 7 * count
        if byte < 0x80:
            return value, at + count + 1
    raise ModelError("is damaged, or is not an ONNX model: a number has more than ten bytes")
