"""What a report is printed on: how wide it is, and whether it shows colours."""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass
from typing import Protocol

_NARROWEST = 40  # columns that a report needs


class Stream(Protocol):
    """As much of an output as is asked."""

    def isatty(self) -> bool:
        """Whether a person looks at it."""
        ...


@dataclass(frozen=True)
class Screen:
    """What a report is printed on.

    Attributes:
        width: Columns that there are; None where lines may be as long as they are, so that a pipe can be searched.
        is_coloured: Whether colours are shown.
    """

    width: int | None = None
    is_coloured: bool = False

    @classmethod
    def of(cls, stream: Stream) -> Screen:
        """A terminal is as wide as it says, or as COLUMNS says; NO_COLOR or TERM=dumb takes its colours."""
        if not stream.isatty():
            return LOG
        is_coloured = not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"
        return cls(max(shutil.get_terminal_size().columns, _NARROWEST), is_coloured)


LOG = Screen()
"""A file, a pipe, a notebook."""
