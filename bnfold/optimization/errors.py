"""Why a folded model was not written."""

from __future__ import annotations

from bnfold import escape
from bnfold.optimization.results import Optimized

_SHOWN = 3  # names of nodes, in a line


class NotAllFolded(Exception):
    """A BatchNormalization stays, and none was to stay. Nothing was written.

    Attributes:
        result: What would have been written.
        left: The nodes that stay.
    """

    def __init__(self, result: Optimized) -> None:
        left = result.stopped
        count = f"{len(left)} BatchNormalization{'s stay' if len(left) > 1 else ' stays'}"
        names = ", ".join(entry.node for entry in left[:_SHOWN]) + (", …" if len(left) > _SHOWN else "")
        super().__init__(f"{result.source}: not written: {count}: {names}")
        self.result = result
        self.left = left


class NotVerified(Exception):
    """Verification was required, and it could not be told whether the two are equivalent. Nothing was written.

    Attributes:
        result: What would have been written, with the verification that says why not.
    """

    def __init__(self, result: Optimized) -> None:
        super().__init__(escape.line(f"{result.source}: not written: {result.verification}"))
        self.result = result


class NotEquivalent(NotVerified):
    """The folded model computes something else. Nothing was written."""
