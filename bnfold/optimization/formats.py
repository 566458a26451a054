"""The forms that a report about some models can take.

A model that could not be read has its line on standard error, so the text for a terminal does not repeat it; the forms
that are kept and sent around do.
"""

from collections.abc import Sequence

from bnfold.optimization.results import Failed, Result
from bnfold.page import FORMS, LOG, Form, Screen, document


def _text(results: Sequence[Result], verbose: bool, screen: Screen = LOG) -> str:
    return FORMS["text"]([result for result in results if not isinstance(result, Failed)], verbose, screen)


def _json(results: Sequence[Result], _verbose: bool, _screen: Screen = LOG) -> str:
    return document("models", {"models": [result.to_dict() for result in results]})


FORMATS: dict[str, Form] = {**FORMS, "text": _text, "json": _json}
