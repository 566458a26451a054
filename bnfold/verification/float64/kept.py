"""What operators made of values, and the values: regions that overlap ask for it again."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, field

import numpy as np

from bnfold.memo import Memo
from bnfold.verification.float64.carried import Num
from bnfold.verification.float64.how import Coverage
from bnfold.verification.float64.kernel import Array

_MOST = 1 << 28  # bytes
_AROUND = 1500  # bytes of what tells an entry from others and holds its arrays, which may be short
_SHARE = 8  # of the memory that there is, one in so many bytes
_SERIALS = itertools.count()


@dataclass(frozen=True)
class Made:
    """What an operator made.

    Attributes:
        nums: Its results.
        coverage: What was met on the way.
        serial: A number that nothing else has, neither what is made nor what is given.
    """

    nums: Sequence[Num]
    coverage: Coverage
    serial: int = field(default_factory=lambda: next(_SERIALS))

    @property
    def nbytes(self) -> int:
        """As if a part of an array were all of it, which it keeps in memory."""
        arrays = (array for num in self.nums for array in (num.value, num.error) if isinstance(array, np.ndarray))
        return sum(getattr(array.base, "nbytes", array.nbytes) for array in arrays)


class Kept:
    """Arrays, and what operators made of them.

    Args:
        most: Bytes of all of them together.
    """

    def __init__(self, most: int = _MOST) -> None:
        self._memo = Memo(most, _AROUND)

    @classmethod
    def within(cls, memory: int | None) -> Kept:
        """For a process that has so many bytes, or as many as it asks for."""
        return cls() if memory is None else cls(min(_MOST, memory // _SHARE))

    def array(self, key: Hashable, make: Callable[[], Array]) -> Array:
        """The array that belongs to a key, made if it is not there."""
        return self._memo.get(key, make, lambda array: array.nbytes)

    def made(self, key: Hashable, make: Callable[[], Made]) -> Made:
        """What an operator made, likewise."""
        return self._memo.get(key, make, lambda made: made.nbytes)

    def serial(self, array: Array) -> int:
        """The number of an array that is given. As long as it is kept it has the same, and no other has."""
        return self._memo.get(id(array), lambda: (next(_SERIALS), array), lambda _: array.nbytes)[0]
