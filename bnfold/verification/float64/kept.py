"""What was made once and may be asked for again, as much of it as there is room for."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import TypeVar, cast

_Made = TypeVar("_Made")

_MOST = 1 << 28  # bytes
_SHARE = 8  # of the memory that there is, one in so many bytes


class Kept:
    """Things by what they were made of; those that nobody asked for longest go first.

    Args:
        most: Bytes of all of them together.
    """

    def __init__(self, most: int = _MOST) -> None:
        self._most = most
        self._held = 0
        self._entries: OrderedDict[Hashable, tuple[object, int]] = OrderedDict()

    @classmethod
    def within(cls, memory: int | None) -> Kept:
        """For a process that has so many bytes, or as many as it asks for."""
        return cls() if memory is None else cls(min(_MOST, memory // _SHARE))

    def get(self, key: Hashable, make: Callable[[], _Made], size: Callable[[_Made], int]) -> _Made:
        """What belongs to a key, made if it is not there; ``size`` says how many bytes it takes."""
        if key in self._entries:
            self._entries.move_to_end(key)
            return cast("_Made", self._entries[key][0])
        made = make()
        self._entries[key] = made, size(made)
        self._held += self._entries[key][1]
        while self._held > self._most:
            self._held -= self._entries.popitem(last=False)[1][1]
        return made
