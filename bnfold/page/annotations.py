"""A report as a log of GitHub Actions: plain lines, and annotations that show on the pull request.

https://docs.github.com/en/actions/reference/workflows-and-actions/workflow-commands
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from bnfold.escape import line
from bnfold.page.cases import Case, Level, grouped
from bnfold.page.page import some

_MOST = 1000  # characters of an annotation


def github(headlines: Iterable[str], cases: Iterable[Case]) -> str:
    """A line for each result, and an annotation for each demand that a file does not meet.

    GitHub shows ten of each level and step, so one annotation stands for all cases of a file that are alike.
    """
    return "\n".join([*map(line, headlines), *map(_annotation, grouped(case for case in cases if case.is_open))])


def _annotation(group: list[Case]) -> str:
    first = group[0]
    kind = "error" if first.level is Level.ERROR else "warning"
    title = f"bnfold: {first.demand.name}"
    message = _data(line(f"{first.file}: {_told(group)}", _MOST))
    return f"::{kind} file={_property(first.file)},title={_property(title)}::{message}"


def _told(group: list[Case]) -> str:
    if len(group) == 1:
        return f"{group[0].name}: {group[0].message}"
    return f"{len(group)} {group[0].demand.broken}: {some([case.name for case in group])}"


def _data(text: str) -> str:
    return "".join(_spelt(text, "%\r\n"))


def _property(text: str) -> str:
    return "".join(_spelt(line(text), "%\r\n:,"))


def _spelt(text: str, special: str) -> Iterator[str]:
    for char in text:
        yield f"%{ord(char):02X}" if char in special else char
