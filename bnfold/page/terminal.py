"""A report for a terminal, and the same for a log."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterator, Sequence

from bnfold.escape import line, shortened
from bnfold.page.page import Page, Row, Table, Tone
from bnfold.page.screen import LOG, Screen

_COLOURS = {Tone.GOOD: "32", Tone.DOUBTFUL: "33", Tone.BAD: "31"}  # green, yellow, red
_WORD = re.compile(r"\S+")
_LEAST_NAME = 12  # columns that are left of a name
_LEAST_CELL = 30  # columns in which sentences are wrapped beside others; below them, if there are fewer


def text(page: Page, screen: Screen = LOG) -> str:
    """The report as plain lines; the first of them says it all."""
    lines = [_title(page, screen)] if page.subject else wrapped(page.title, screen)
    for told in page.lines:
        lines += wrapped(told, screen, indent=2)
    headed = False
    for shown in filter(None, (page.summary, page.table, page.appendix)):
        lines += [""] if headed and shown.is_headed else []
        lines += (f"  {row}" for row in table(shown, _within(screen, 2)))
        headed = shown.is_headed
    for note in page.notes:
        lines += wrapped(note, screen)
    for warning in page.warnings:
        first, *more = wrapped(f"warning: {warning}", screen)
        lines += [first.replace("warning", _coloured("warning", Tone.DOUBTFUL, screen), 1), *more]
    return "\n".join(lines)


def wrapped(told: str, screen: Screen = LOG, *, indent: int = 0) -> list[str]:
    """A line, as several where it would be too long; names that are too long for any lose their middle."""
    blank = " " * indent
    told = line(told)
    if screen.width is None or indent + len(told) <= screen.width:
        return [line(blank + told)]
    room = max(screen.width - indent - 2, _LEAST_NAME)
    told = _WORD.sub(lambda word: shortened(word[0], room), told)
    parts = textwrap.wrap(told, room + 2, subsequent_indent="  ", break_long_words=False, break_on_hyphens=False)
    return [line(blank + part) for part in parts]  # once more: another word now stands at the beginning of a line


def table(shown: Table, screen: Screen = LOG) -> Iterator[str]:
    """Aligned columns. A last cell of one line stands in its column, one of several below its row."""
    if not shown:
        return
    rows = [*([shown.columns] if shown.is_headed else []), *shown.rows]
    cells = [[*map(line, _inline(row))] for row in rows]  # before it is aligned: what stands for a character is longer
    sides = shown.align or "l" * len(cells[0])
    widths = _fitted([max(map(len, column)) for column in zip(*cells, strict=True)], sides, screen)
    for row, printed in zip(rows, cells, strict=True):
        yield from _row(printed, widths, sides, screen)
        for note in _below(row):
            yield from wrapped(note, screen, indent=4)


def _fitted(widths: Sequence[int], sides: str, screen: Screen) -> list[int]:
    """The widths at which the columns fit: those of names give way, the widest first; figures do not, nor the last."""
    fitted = list(widths)
    if screen.width is None:
        return fitted
    needed = sum(fitted[:-1]) + min(fitted[-1], _LEAST_CELL) + 2 * (len(fitted) - 1)
    names = [index for index in range(len(fitted) - 1) if sides[index] == "l"]
    for index in sorted(names, key=lambda index: fitted[index], reverse=True):
        less = min(needed - screen.width, fitted[index] - _LEAST_NAME)
        if less > 0:
            fitted[index] -= less
            needed -= less
    return fitted


def _row(cells: Sequence[str], widths: Sequence[int], sides: str, screen: Screen) -> Iterator[str]:
    """The lines of a row: more than one where its last cell is a sentence that does not fit."""
    *first, last = (shortened(cell, width) for cell, width in zip(cells, widths, strict=True))
    aligned = [
        cell.rjust(width) if side == "r" else cell.ljust(width)
        for cell, width, side in zip(first, widths, sides, strict=False)
    ]
    begun = "".join(f"{cell}  " for cell in aligned)
    room = 0 if screen.width is None else screen.width - len(begun)
    if screen.width is None or len(last) <= room or sides[-1] == "r":
        yield (begun + (last.rjust(widths[-1]) if sides[-1] == "r" else last)).rstrip()
    elif room < _LEAST_CELL:
        yield begun.rstrip()
        yield from wrapped(last, screen, indent=4)
    else:
        for number, part in enumerate(wrapped(last, Screen(room))):
            yield (begun if not number else " " * len(begun)) + part


def _title(page: Page, screen: Screen) -> str:
    """The first line; what it is about is cut short, so that the line fits, but not beyond knowing."""
    subject = line(page.subject)
    if screen.width is not None and subject:
        rest = len(line(page.title)) - len(subject)
        subject = shortened(subject, max(screen.width - rest, _LEAST_NAME))
    word = _coloured(line(page.word), page.tone, screen) if page.word else ""
    return "  ".join(filter(None, (word, line("  ".join(filter(None, (subject, page.headline)))))))


def _coloured(word: str, tone: Tone, screen: Screen) -> str:
    colour = _COLOURS.get(tone) if screen.is_coloured else None
    return word if colour is None else f"\x1b[{colour}m{word}\x1b[0m"


def _within(screen: Screen, indent: int) -> Screen:
    return screen if screen.width is None else Screen(screen.width - indent, screen.is_coloured)


def _inline(row: Row) -> list[str]:
    """What stands in the row itself."""
    return [cell if isinstance(cell, str) else cell[0] if len(cell) == 1 else "" for cell in row]


def _below(row: Row) -> tuple[str, ...]:
    """What stands below it."""
    last = row[-1]
    return () if isinstance(last, str) or len(last) == 1 else last
