"""The models that mutants are made from: models/*.onnx and those of tests/cases."""

from __future__ import annotations

import re
from pathlib import Path

from helpers import model_of

_TESTS = Path(__file__).parents[1]
_TYPES = re.compile(r"^# types: (\w+)", re.MULTILINE)
_NOTES = re.compile(r"^#.*\n", re.MULTILINE)


def originals() -> list[bytes]:
    """All of them, serialised, in the order of their names."""
    cases = [path.read_text(encoding="utf-8") for path in sorted((_TESTS / "cases").glob("*/*.txt"))]
    models = [path.read_bytes() for path in sorted((_TESTS.parent / "models").glob("*.onnx"))]
    return [*models, *(_model(text) for text in cases)]


def _model(case: str) -> bytes:
    types = _TYPES.search(case)
    return bytes(model_of(_NOTES.sub("", case), types[1] if types else "float").SerializeToString())
