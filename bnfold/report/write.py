"""Writing a report: what can be refused is refused before the work, and the file is there whole or not at all."""

from __future__ import annotations

import os
from collections.abc import Collection
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from bnfold.model_io import ModelError, check_text, write_text

if TYPE_CHECKING:
    from bnfold.report.contents import Reported

_SUFFIXES = (".html", ".htm")


class ReportError(ModelError):
    """No report can be written."""


class Draft:
    """A report in the making."""

    def __init__(self, path: str | os.PathLike[str], apart_from: Collection[str] = ()) -> None:
        """Refuses what can be refused before any work is done.

        Args:
            path: Where the report will be.
            apart_from: Files that are read, or written, for something else.

        Raises:
            ReportError: Jinja2 is not installed, or the file is not called like a page.
            ModelError: It is one of those, or nothing can be written there.
        """
        self._path = Path(path)
        if find_spec("jinja2") is None:
            raise ReportError(f"{self._path}: a report needs Jinja2: pip install 'bnfold[report]'")
        # so that no model or data is written over by mistake
        if Path(os.path.realpath(self._path)).suffix.lower() not in _SUFFIXES:
            raise ReportError(f"{self._path}: a report is a web page, whose name ends in .html")
        check_text(self._path, apart_from)

    def write(self, result: Reported, source: str = "") -> None:
        """Writes it; what was there is replaced at once or not at all.

        Args:
            result: What a verb has returned.
            source: What it is about, where the result does not say so itself.

        Raises:
            ModelError: It cannot be written.
        """
        from bnfold.report.contents import contents  # noqa: PLC0415 -- imports all verbs
        from bnfold.report.render import rendered  # noqa: PLC0415 -- an extra

        write_text(self._path, rendered(contents(result, source)))


def save_report(result: Reported, path: str | os.PathLike[str], *, source: str = "") -> None:
    """Writes what a verb has returned as one HTML file that needs nothing else; replaced if it exists.

    Args:
        result: An `Optimized`, a `Checked`, a `Verification`, a `Calibration` or a `Drift`.
        path: Where to; it ends in `.html`.
        source: What a `Verification` is about, to stand at the top: it does not know the names of its models.

    Raises:
        ModelError: Jinja2 is not installed (the extra `bnfold[report]`), or the file cannot be written.
    """
    Draft(path).write(result, source)
