"""A report as Markdown (pull requests, job summaries) and as HTML (notebooks)."""

from __future__ import annotations

import re
from html import escape

from bnfold.report.summary import Summary

_COLUMNS = ("outcome", "which", "operator", "how or why")
_MARKUP = re.compile(r"([\\`*_|\[\]])")


def markdown(summary: Summary) -> str:
    """The summary as GitHub-flavoured Markdown."""
    lines = [f"**{plain(summary.headline)}**"]
    if summary.rows:
        lines += ["", _line(_COLUMNS), _line(("---",) * len(_COLUMNS))]
        for row in summary.rows:
            notes = "<br>".join(plain(note) for note in row.notes)
            lines.append(_line((plain(row.outcome), plain(row.what), plain(row.op_type), notes)))
    for note in summary.notes:
        lines += ["", plain(note)]
    return "\n".join(lines)


def html(summary: Summary) -> str:
    """The summary as an HTML fragment."""
    head = "".join(f"<th>{column}</th>" for column in _COLUMNS)
    body = ""
    for row in summary.rows:
        notes = "<br>".join(escape(note) for note in row.notes)
        cells = (escape(row.outcome), escape(row.what), escape(row.op_type), notes)
        body += f"<tr>{''.join(f'<td>{cell}</td>' for cell in cells)}</tr>"
    table = f"<table><tr>{head}</tr>{body}</table>" if body else ""
    notes = "".join(f"<p>{escape(note)}</p>" for note in summary.notes)
    return f"<p><b>{escape(summary.headline)}</b></p>{table}{notes}"


def _line(cells: tuple[str, ...]) -> str:
    return f"| {' | '.join(cells)} |"


def plain(text: str) -> str:
    """Text in which a node's name cannot turn into markup."""
    return _MARKUP.sub(r"\\\1", escape(text, quote=False))
