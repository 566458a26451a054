"""The line that says how far long work is."""

import io
from types import SimpleNamespace

import pytest

from bnfold.page import Progress, progress


class Terminal(io.StringIO):
    """What standard error is for somebody who watches."""

    def isatty(self) -> bool:
        return True


@pytest.fixture
def terminal(monkeypatch):
    stream = Terminal()
    monkeypatch.setattr(progress, "sys", SimpleNamespace(stderr=stream))
    monkeypatch.setattr(progress, "_EVERY", 0.0)
    return stream


def test_a_line_is_written_over_and_goes(terminal):
    """With what is counted, and names as they can be shown."""
    with Progress(noun="samples") as show:
        show("measuring\x1b[31m", 1, 4)
        first = terminal.getvalue()
        show("measuring\x1b[31m", 4, 4)
    assert first.startswith("\r\x1b[K" + r"measuring\x1b[31m: 1 of 4 samples")
    assert terminal.getvalue().removeprefix(first) == "\r\x1b[K" * 2


def test_without_a_noun_numbers_are_enough(terminal):
    Progress()("comparing", 1, 2)
    assert "comparing: 1 of 2" in terminal.getvalue()
    assert "samples" not in terminal.getvalue()


def test_one_piece_of_work_is_just_named(terminal):
    """`0 of 1` would say nothing."""
    Progress(noun="models")("deciding what folds", 0, 1)
    assert terminal.getvalue() == "\r\x1b[Kdeciding what folds …"


@pytest.mark.parametrize("shown", [True, False])
def test_where_there_is_no_terminal_nothing_is_shown(shown, terminal, monkeypatch):
    """Nor where nothing is wanted."""
    if shown:
        monkeypatch.setattr(terminal, "isatty", lambda: False)
    Progress(shown=shown)("comparing", 1, 2)
    assert terminal.getvalue() == ""
