"""Figures of a model before and after, as a table."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from bnfold.optimization.inventory import Change
from bnfold.page import Table

_COLUMNS = ("", "before", "after", "change")
_MOST_OPERATORS = 12  # types; the rest of them share a row


def summary(change: Change | None, nodes: tuple[int, int], size: tuple[int, int] | None = None) -> Table:
    """Operators of which there are more or fewer, and totals.

    Args:
        change: What the model was and is made of; without it, or where that is the same, there is no table.
        nodes: Before and after.
        size: In bytes.
    """
    if change is None or change.before is change.after:
        return Table()
    rows = [*_operators(change), _row("nodes", *nodes, str)]
    if size is not None:
        rows.append(_row("size", *size, _sized(size[0])))
    rows.append(_row("parameters", change.before.parameters, change.after.parameters, _grouped))
    if change.before.macs is not None and change.after.macs is not None:
        rows.append(_row("MACs", change.before.macs, change.after.macs, _grouped))
    return Table(_COLUMNS, tuple(rows), "lrrr")


def unit_of(size: int) -> tuple[float, str, int]:
    """What to divide sizes by beside one of so many bytes, how that is called, and the decimals that are told."""
    for power, unit in ((3, "GB"), (2, "MB"), (1, "KB")):
        if size >= 1000**power:
            return 1000**power, unit, 1
    return 1, "bytes", 0


def _sized(before: int) -> Callable[[int], str]:
    """Writes a size in the unit that suits the model as it was."""
    divisor, unit, decimals = unit_of(before)
    return lambda size: f"{size / divisor:.{decimals}f} {unit}"


def _operators(change: Change) -> Iterator[tuple[str, ...]]:
    changed = list(change.operators())
    for name, before, after in changed[:_MOST_OPERATORS]:
        yield name, str(before), str(after), f"{after - before:+d}"
    if rest := changed[_MOST_OPERATORS:]:
        before, after = sum(row[1] for row in rest), sum(row[2] for row in rest)
        yield f"{len(rest)} other types", str(before), str(after), f"{after - before:+d}"


def _row(name: str, before: int, after: int, shown: Callable[[int], str]) -> tuple[str, ...]:
    """A total, and how much of it is gone or has come."""
    change = f"{100 * after / before - 100:+.1f} %" if before else ""
    change = "" if change in ("+0.0 %", "-0.0 %") else change
    return name, shown(before), shown(after), change


def _grouped(count: int) -> str:
    return f"{count:,}"
