"""A line on standard error that says how far long work is; none where that is no terminal."""

from __future__ import annotations

import sys
import time
from types import TracebackType

from bnfold import escape

_EVERY = 0.1  # seconds between two lines


class Progress:
    """Call it with what is being done, how much of it is done and how much there is. What is done goes from the line.

    Args:
        shown: whether to show anything, even on a terminal.
        noun: what is counted, if it is always the same.
    """

    def __init__(self, *, shown: bool = True, noun: str = "") -> None:
        self._noun = noun and f" {noun}"
        self._shown = shown and sys.stderr.isatty()
        self._what = ""
        self._since = self._last = 0.0

    def __enter__(self) -> Progress:
        return self

    def __exit__(
        self, _kind: type[BaseException] | None, _error: BaseException | None, _t: TracebackType | None
    ) -> None:
        if self._shown and self._what:
            sys.stderr.write("\r\x1b[K")
            sys.stderr.flush()

    def __call__(self, what: str, done: int, total: int) -> None:
        now = time.monotonic()
        if what != self._what:
            self._what, self._since = what, now
        if not self._shown or (now - self._last < _EVERY and done < total):
            return
        self._last = now
        line = "" if done >= total else f"{escape.line(what)}{self._far(done, total, now - self._since)}"
        sys.stderr.write(f"\r\x1b[K{line}")
        sys.stderr.flush()

    def _far(self, done: int, total: int, seconds: float) -> str:
        """How far it is; what is one piece of work is being done, and no more can be said."""
        if total == 1:
            return " …"
        rate = done / seconds if seconds > 0 else 0.0
        rest = f", {rate:.1f}/s, {(total - done) / rate:.0f} s left" if rate else ""
        return f": {done} of {total}{self._noun}{rest}"
