"""Asks this ONNX Runtime what it knows, in a process of its own: ``python probe.py``. Imports nothing of this package.

Standard input holds the question as JSON, the last line of standard output the answer.
"""

from __future__ import annotations

import json
import sys
from base64 import b64decode
from collections.abc import Sequence
from typing import Any

import onnxruntime as ort


def main() -> None:
    """Tries every model of the question."""
    question = json.load(sys.stdin)
    ort.set_default_logger_severity(4)
    available = ort.get_available_providers()
    if any(name not in available for name in question["providers"]):
        answer: dict[str, Any] = {"available": available}
    else:
        tried = [_tried(b64decode(model), question["providers"]) for model in question["models"]]
        answer = {"available": available, "models": tried, "domains": _domains()}
    print(f"\n{json.dumps(answer)}")  # on a line of its own, whatever was printed before


def _tried(model: bytes, providers: Sequence[str]) -> dict[str, Any]:
    try:
        session = ort.InferenceSession(model, providers=providers, enable_fallback=0)
    except Exception as error:
        return {"error": " ".join(str(error).split())}
    return {"providers": session.get_providers()}


def _domains() -> list[str] | None:
    """Those of all operators, None if this version does not tell."""
    try:
        from onnxruntime.capi.onnxruntime_pybind11_state import get_all_operator_schema  # noqa: PLC0415
    except ImportError:
        return None
    return sorted({schema.domain for schema in get_all_operator_schema()})


if __name__ == "__main__":
    main()
