"""A report as Markdown (pull requests, job summaries) and as HTML (notebooks)."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

from bnfold import escape
from bnfold.page.page import Page, Row, Table


def markdown(page: Page) -> str:
    """The report as GitHub-flavoured Markdown."""
    lines = [f"**{escape.markdown(page.title)}**"]
    if page.lines:
        lines += ["", *(f"- {escape.markdown(told)}" for told in page.lines)]
    for table in filter(None, (page.summary, page.table)):
        lines += ["", *markdown_table(table)]
    for note in page.notes:
        lines += ["", escape.markdown(note)]
    for warning in page.warnings:
        lines += ["", f"> {escape.markdown(warning)}"]
    return "\n".join(lines)


def markdown_table(table: Table) -> Iterator[str]:
    """The lines of a table."""
    sides = table.align or "l" * len(table.columns)
    rule = ["---:" if side == "r" else "---" for side in sides]
    for cells in (table.columns, rule, *(_cells(row, escape.markdown) for row in table.rows)):
        yield f"| {' | '.join(cells)} |"


_STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; margin: 2em auto; max-width: 75em; padding: 0 1em }
td, p { overflow-wrap: anywhere }
table { border-collapse: collapse; margin: 1em 0; font-variant-numeric: tabular-nums }
th, td { border: 1px solid #8886; padding: 0.25em 0.6em; text-align: left; vertical-align: top }
section + section { border-top: 1px solid #8886 }
"""


def html(page: Page) -> str:
    """The report as an HTML fragment."""
    above = "".join(f"<p>{escape.html(told)}</p>" for told in (*page.lines, *page.warnings))
    notes = "".join(f"<p>{escape.html(note)}</p>" for note in page.notes)
    tables = html_table(page.summary) + html_table(page.table)
    return f"<p><b>{escape.html(page.title)}</b></p>{above}{tables}{notes}"


def html_document(fragments: Iterable[str]) -> str:
    """A page for a browser, which needs nothing else: no network, no script."""
    sections = "\n".join(f"<section>{fragment}</section>" for fragment in fragments)
    told = (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n<title>bnfold</title>\n'
        '<meta name="viewport" content="width=device-width">\n<meta name="color-scheme" content="light dark">\n'
        f"<style>{_STYLE}</style>\n</head>\n<body>\n{sections}\n</body>\n</html>"
    )
    return told.encode("ascii", "xmlcharrefreplace").decode()  # which any output can take


def html_table(table: Table) -> str:
    """The table as HTML; nothing if it has no rows."""
    if not table:
        return ""
    head = "".join(f"<th>{column}</th>" for column in table.columns)
    rows = (_cells(row, escape.html) for row in table.rows)
    body = "".join(f"<tr>{''.join(f'<td>{cell}</td>' for cell in row)}</tr>" for row in rows)
    return f"<table><tr>{head}</tr>{body}</table>"


def _cells(row: Row, escaped: Callable[[str], str]) -> list[str]:
    """Both languages have `<br>` between the lines of a cell."""
    return ["<br>".join(map(escaped, cell)) if isinstance(cell, tuple) else escaped(cell) for cell in row]
