"""A report for a terminal, and the same for a log."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from bnfold.escape import line
from bnfold.report.summary import Row, Summary


def text(summary: Summary) -> str:
    """The summary as plain lines; the first of them says it all."""
    table = _table([_escaped(row) for row in summary.rows]) if summary.rows else ()
    return "\n".join(map(line, [summary.headline, *(f"  {row}" for row in table), *summary.notes]))


def _escaped(row: Row) -> Row:
    """Before anything is aligned: what stands for a character is longer."""
    return Row(row.outcome, line(row.what), line(row.op_type), row.notes)


def _table(rows: Sequence[Row]) -> Iterator[str]:
    """Aligned columns. One note stands in the last of them, several stand below."""
    counted = all(row.what.isdigit() for row in rows)
    outcome, what, op_type = (
        max(map(len, column)) for column in zip(*((row.outcome, row.what, row.op_type) for row in rows), strict=True)
    )
    for row in rows:
        which = row.what.rjust(what) if counted else row.what.ljust(what)
        inline, below = (row.notes, ()) if len(row.notes) == 1 else ((), row.notes)
        yield "  ".join((row.outcome.ljust(outcome), which, row.op_type.ljust(op_type), *inline)).rstrip()
        yield from (f"    {note}" for note in below)
