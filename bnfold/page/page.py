"""A report: what every verb has to tell, before it takes a form."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum

Row = tuple[str | tuple[str, ...], ...]
"""Cells. One of several lines is a tuple of them, and the last of its row."""


@dataclass(frozen=True)
class Table:
    """Rows under columns.

    Attributes:
        columns: Their heads, which are the program's own words.
        rows: Each with a cell for each column.
        align: A letter for each column: `l` for names and words, `r` for figures.
        is_headed: Whether a terminal shows the heads too; where every cell speaks for itself it need not.
    """

    columns: tuple[str, ...] = ()
    rows: tuple[Row, ...] = ()
    align: str = ""
    is_headed: bool = True

    def __bool__(self) -> bool:
        return bool(self.rows)


class Tone(Enum):
    """What a reader makes of a report's first word."""

    GOOD = "good"
    DOUBTFUL = "doubtful"
    BAD = "bad"
    PLAIN = "plain"


@dataclass(frozen=True)
class Page:
    """A report.

    Attributes:
        headline: One line that says it all.
        lines: What else is worth a sentence.
        table: The particulars.
        notes: What follows from it: where a file is, what to do next.
        warnings: What speaks against trusting it.
        subject: What it is about, a path mostly; it stands before the headline.
        word: What it comes to, in a word that never changes; it stands before the subject.
        tone: Whether that is good.
        summary: Figures before and after; they stand before the particulars.
        appendix: Every single thing; it stands after them.
    """

    headline: str
    lines: tuple[str, ...] = ()
    table: Table = Table()
    notes: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    subject: str = ""
    word: str = ""
    tone: Tone = Tone.PLAIN
    summary: Table = Table()
    appendix: Table = Table()

    @property
    def title(self) -> str:
        """The first line: word, subject and headline."""
        return "  ".join(filter(None, (self.word, self.subject, self.headline)))


def some(names: Sequence[str], shown: int = 3) -> str:
    """The first of the names, and how many more there are."""
    more = len(names) - shown
    return ", ".join(names[:shown]) + (f" and {more} more" if more > 0 else "")


def plural(count: int, noun: str) -> str:
    """`1 node`, `2 nodes`."""
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"
