"""The forms that results are printed in. docs/cli.md says which verb has which, and what for."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, Protocol

from bnfold.page.annotations import github
from bnfold.page.cases import Case
from bnfold.page.findings import sarif
from bnfold.page.markup import html, html_document, markdown
from bnfold.page.page import Page
from bnfold.page.schema import document
from bnfold.page.screen import LOG, Screen
from bnfold.page.suites import junit
from bnfold.page.terminal import text


class Telling(Protocol):
    """What a verb returns."""

    def page(self, *, verbose: bool = False) -> Page:
        """What there is to say."""
        ...

    def to_dict(self) -> dict[str, object]:
        """The same for programs."""
        ...

    def cases(self) -> Sequence[Case]:
        """The same as answers, one by one."""
        ...


Form = Callable[[Sequence[Any], bool, Screen], str]
"""Makes one text of several results, in detail or not."""


def _cases(results: Sequence[Telling]) -> Iterator[Case]:
    for result in results:
        yield from result.cases()


def _pages(results: Sequence[Telling], verbose: bool) -> list[Page]:
    return [result.page(verbose=verbose) for result in results]


def _text(results: Sequence[Telling], verbose: bool, screen: Screen) -> str:
    return "\n\n".join(text(page, screen) for page in _pages(results, verbose))


FORMS: dict[str, Form] = {
    "text": _text,
    "markdown": lambda results, verbose, _: "\n\n".join(map(markdown, _pages(results, verbose))),
    "html": lambda results, verbose, _: html_document(map(html, _pages(results, verbose))),
    "github": lambda results, verbose, _: github([page.title for page in _pages(results, verbose)], _cases(results)),
    "junit": lambda results, *_: junit(_cases(results)),
    "sarif": lambda results, *_: sarif(_cases(results)),
}
"""Several results in one; JSON is not among them, since each kind of document has a shape of its own."""


def render(result: Telling, kind: str, form: str, *, verbose: bool = False, screen: Screen = LOG) -> str:
    """One result in a form; as JSON, its schema is that of its kind."""
    if form == "json":
        return document(kind, result.to_dict())
    return FORMS[form]([result], verbose or form in ("markdown", "html"), screen)
