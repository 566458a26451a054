"""What was made once and may be asked for again, as much of it as there is room for."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import TypeVar, cast

_Made = TypeVar("_Made")


class Memo:
    """Things by what they were made of; those that nobody asked for longest go first.

    Args:
        most: Bytes of all of them together; what is larger is not kept.
        around: Bytes of what tells an entry from others and holds its arrays, which may be short.
    """

    def __init__(self, most: int, around: int = 0) -> None:
        self._most, self._around = most, around
        self._held = 0
        self._entries: OrderedDict[Hashable, tuple[object, int]] = OrderedDict()

    def get(self, key: Hashable, make: Callable[[], _Made], size: Callable[[_Made], int]) -> _Made:
        """What belongs to a key, made if it is not there."""
        if key in self._entries:
            self._entries.move_to_end(key)
            return cast("_Made", self._entries[key][0])
        made = make()
        if (taken := size(made) + self._around) > self._most:
            return made
        self._entries[key] = made, taken
        self._held += taken
        while self._held > self._most:
            self._held -= self._entries.popitem(last=False)[1][1]
        return made

    def clear(self) -> None:
        """Lets go of all."""
        self._entries.clear()
        self._held = 0
