"""The forms that a report about some models can take.

A model that could not be read has its line on standard error, so the text for a terminal does not repeat it; the forms
that are kept and sent around do.
"""

from collections.abc import Callable, Sequence

from bnfold.optimization.results import Failed, Result
from bnfold.page import LOG, Screen, document, markdown, text


def texts(results: Sequence[Result], verbose: bool, screen: Screen = LOG) -> str:
    """The reports as text, one below the other."""
    shown = (result for result in results if not isinstance(result, Failed))
    return "\n\n".join(text(result.page(verbose=verbose), screen) for result in shown)


def _markdown(results: Sequence[Result], verbose: bool) -> str:
    return "\n\n".join(markdown(result.page(verbose=verbose)) for result in results)


def _json(results: Sequence[Result], _verbose: bool) -> str:
    return document("models", {"models": [result.to_dict() for result in results]})


FORMATS: dict[str, Callable[[Sequence[Result], bool], str]] = {"text": texts, "markdown": _markdown, "json": _json}
