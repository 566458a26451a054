"""A report for a terminal, and the same for a log."""

from __future__ import annotations

from collections.abc import Iterator

from bnfold.escape import line
from bnfold.page.page import Page, Row, Table


def text(page: Page) -> str:
    """The report as plain lines; the first of them says it all."""
    below = (f"  {row}" for row in (*page.lines, *table(page.table)))
    return "\n".join(map(line, [page.headline, *below, *page.notes, *(f"warning: {note}" for note in page.warnings)]))


def table(shown: Table) -> Iterator[str]:
    """Aligned columns. A last cell of one line stands in its column, one of several below its row."""
    if not shown:
        return
    rows = [*([shown.columns] if shown.is_headed else []), *shown.rows]
    cells = [[*map(line, _inline(row))] for row in rows]  # before it is aligned: what stands for a character is longer
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    sides = shown.align or "l" * len(widths)
    for row, printed in zip(rows, cells, strict=True):
        aligned = (
            cell.rjust(width) if side == "r" else cell.ljust(width)
            for cell, width, side in zip(printed, widths, sides, strict=True)
        )
        yield "  ".join(aligned).rstrip()
        yield from (f"    {note}" for note in _below(row))


def _inline(row: Row) -> list[str]:
    """What stands in the row itself."""
    return [cell if isinstance(cell, str) else cell[0] if len(cell) == 1 else "" for cell in row]


def _below(row: Row) -> tuple[str, ...]:
    """What stands below it."""
    last = row[-1]
    return () if isinstance(last, str) or len(last) == 1 else last
