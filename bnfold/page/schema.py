"""A report as JSON. docs/json.md describes it."""

from __future__ import annotations

from collections.abc import Mapping

from bnfold.escape import as_json
from bnfold.version import __version__

SCHEMA = {"models": 3, "verification": 3, "calibration": 1, "reference": 1, "drift": 1, "certificate": 1}
"""A change that breaks a reader raises the number."""


def document(kind: str, content: Mapping[str, object]) -> str:
    """The JSON document, with the versions of its schema and of bnfold."""
    return as_json({"schema": SCHEMA[kind], "bnfold": __version__, **content}, default=plain)


def plain(value: object) -> object:
    """A fact that JSON has no type for."""
    if hasattr(value, "tolist"):  # numpy's
        return value.tolist()
    return sorted(value) if isinstance(value, set | frozenset) else str(value)
