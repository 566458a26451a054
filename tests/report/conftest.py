"""Reports to look at."""

from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from bnfold.report import save_report


class Page(HTMLParser):
    """A page as a browser would read it: its elements, and the text of each section.

    Attributes:
        tags: Every element with its attributes.
        sections: The text of each section, by its id; of what is above them by "".
        drawings: How many boxes each drawing of a graph has.
    """

    _EMPTY = ("meta", "link", "br", "rect", "path", "line", "polyline")

    def __init__(self, text: str) -> None:
        super().__init__()
        self.text = text
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.sections: dict[str, str] = {"": ""}
        self.drawings: list[int] = []
        self.open: list[str] = []
        self._section = ""
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        self.tags.append((tag, given))
        if tag not in self._EMPTY:
            self.open.append(tag)
        if tag == "section":
            self._section = str(given["id"])
            self.sections[self._section] = ""
        if tag == "svg" and given.get("class") == "graph":
            self.drawings.append(0)
        if tag == "g":
            self.drawings[-1] += 1

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag
        if tag == "section":
            self._section = ""

    def handle_data(self, data: str) -> None:
        if not {"style", "title"} & set(self.open[-1:]):
            self.sections[self._section] += data


@pytest.fixture
def page(tmp_path: Path) -> Callable[..., Page]:
    """What becomes of a result."""

    def made(result: Any, **more: Any) -> Page:
        path = Path(tmp_path, "report.html")
        save_report(result, path, **more)
        return Page(path.read_text(encoding="utf-8"))

    return made
