"""What each reason means and what can be done about it: docs/reasons.md, as it stands in a checkout or in a package."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from bnfold.reasons import Reason

_HERE = Path(__file__).parent
_PAGES = (_HERE / "reasons.md", _HERE.parent / "docs" / "reasons.md")
"""pyproject.toml puts a copy of the page beside this file when a wheel is built."""
_SECTION = re.compile(r"^### (\w+)\n(.*?)(?=^##|\Z)", re.MULTILINE | re.DOTALL)
_LINK = re.compile(r"\[([^\]]*)\]\([^)]*\)")
_LABEL = re.compile(r"^\*([^*]+:)\*")
_SENTENCE = re.compile(r".*?\.(?=\s|$)")


@dataclass(frozen=True)
class Explanation:
    """A reason in words.

    Attributes:
        reason: The reason.
        paragraphs: What it means, an example, and what can be done, as plain text.
    """

    reason: Reason
    paragraphs: tuple[str, ...]

    @property
    def gist(self) -> str:
        """Its first sentence."""
        found = _SENTENCE.match(self.paragraphs[0])
        return self.paragraphs[0] if found is None else found[0]


def explanations() -> dict[str, Explanation]:
    """The explanation of each reason, by its name."""
    page = next(path for path in _PAGES if path.is_file()).read_text(encoding="utf-8")
    sections = {name: tuple(_paragraphs(content)) for name, content in _SECTION.findall(page)}
    return {reason.name: Explanation(reason, sections[reason.name]) for reason in Reason}


def _paragraphs(content: str) -> Iterator[str]:
    """The paragraphs without marks and links, each in one line."""
    for paragraph in content.strip().split("\n\n"):
        yield _LABEL.sub(r"\1", _LINK.sub(r"\1", " ".join(paragraph.split())))
