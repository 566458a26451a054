"""How much of a large model a report shows: it has to open quickly."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

MOST_DRAWINGS = 60
"""Folds that are drawn."""
MOST_WEIGHTS = 1 << 28
"""Elements of weights that are read for their ranges."""
_SHOWN = 25
MOST_SHOWN = 400
"""Rows of a table, names in a list, and ways that folds went."""
_Item = TypeVar("_Item")


@dataclass(frozen=True)
class Bounded(Generic[_Item]):
    """Some of many.

    Attributes:
        shown: The first few.
        folded: More of them, to be shown when asked for.
        left_out: How many others there are.
    """

    shown: Sequence[_Item] = ()
    folded: Sequence[_Item] = ()
    left_out: int = 0

    def __bool__(self) -> bool:
        return bool(self.shown)

    @property
    def all(self) -> Sequence[_Item]:
        """Those that are there."""
        return [*self.shown, *self.folded]

    @property
    def count(self) -> int:
        return len(self.shown) + len(self.folded) + self.left_out


def bounded(items: Sequence[_Item], shown: int = _SHOWN) -> Bounded[_Item]:
    """The items, as many as a report shows."""
    return Bounded(items[:shown], items[shown:MOST_SHOWN], max(0, len(items) - MOST_SHOWN))
