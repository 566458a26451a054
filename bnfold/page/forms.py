"""The forms that a verb prints one result in."""

from __future__ import annotations

from typing import Protocol

from bnfold.page.markup import markdown
from bnfold.page.page import Page
from bnfold.page.schema import document
from bnfold.page.screen import LOG, Screen
from bnfold.page.terminal import text


class Telling(Protocol):
    """What a verb returns."""

    def page(self, *, verbose: bool = False) -> Page:
        """What there is to say."""
        ...

    def to_dict(self) -> dict[str, object]:
        """The same for programs."""
        ...


def render(result: Telling, kind: str, form: str, *, verbose: bool = False, screen: Screen = LOG) -> str:
    """The result in a form: text, markdown or json, whose schema is that of its kind."""
    if form == "json":
        return document(kind, result.to_dict())
    page = result.page(verbose=verbose or form == "markdown")
    return markdown(page) if form == "markdown" else text(page, screen)
