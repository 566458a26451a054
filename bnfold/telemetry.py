"""ONNX Runtime's telemetry, off.

From 1.32 on, ONNX Runtime gives the user an id in a file of the home folder and sends events to Microsoft. It reads the
variable when it is loaded; `onnxruntime.disable_telemetry_events()` would come too late for either.
"""

from __future__ import annotations

import os

_OFF = {"ORT_DISABLE_TELEMETRY": "1"}


def environment() -> dict[str, str]:
    """For a process that is to be started."""
    return {**os.environ, **_OFF}


def turn_off() -> None:
    """The same for this process; to be called before it imports ONNX Runtime."""
    os.environ.update(_OFF)
