"""A report for a terminal, and the same for a log."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from bnfold.report.summary import Row, Summary


def text(summary: Summary) -> str:
    """The summary as plain lines; the first of them says it all."""
    table = _table(summary.rows) if summary.rows else ()
    return "\n".join([summary.headline, *(f"  {line}" for line in table), *summary.notes])


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
