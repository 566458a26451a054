"""A report as Markdown (pull requests, job summaries) and as HTML (notebooks)."""

from __future__ import annotations

from bnfold import escape
from bnfold.report.summary import Summary

_COLUMNS = ("outcome", "which", "operator", "how or why")


def markdown(summary: Summary) -> str:
    """The summary as GitHub-flavoured Markdown."""
    lines = [f"**{escape.markdown(summary.headline)}**"]
    if summary.rows:
        lines += ["", _line(_COLUMNS), _line(("---",) * len(_COLUMNS))]
        for row in summary.rows:
            notes = "<br>".join(escape.markdown(note) for note in row.notes)
            cells = map(escape.markdown, (row.outcome, row.what, row.op_type))
            lines.append(_line((*cells, notes)))
    for note in summary.notes:
        lines += ["", escape.markdown(note)]
    return "\n".join(lines)


def html(summary: Summary) -> str:
    """The summary as an HTML fragment."""
    head = "".join(f"<th>{column}</th>" for column in _COLUMNS)
    body = ""
    for row in summary.rows:
        notes = "<br>".join(escape.html(note) for note in row.notes)
        cells = (escape.html(row.outcome), escape.html(row.what), escape.html(row.op_type), notes)
        body += f"<tr>{''.join(f'<td>{cell}</td>' for cell in cells)}</tr>"
    table = f"<table><tr>{head}</tr>{body}</table>" if body else ""
    notes = "".join(f"<p>{escape.html(note)}</p>" for note in summary.notes)
    return f"<p><b>{escape.html(summary.headline)}</b></p>{table}{notes}"


def _line(cells: tuple[str, ...]) -> str:
    return f"| {' | '.join(cells)} |"
