"""Lets every test import `helpers`, `networks` and `strategies`, wherever pytest was started."""

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))
from networks import MODELS, ROOT


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Tells what was tested, where that is not what is there."""
    if MODELS != ROOT / "models":
        terminalreporter.write_line("files in models/ have changed: the tests used them as committed")
