"""Errors as a line on standard error, and an exit code."""

from __future__ import annotations

import os
import sys
import traceback
from typing import TYPE_CHECKING, TextIO

import click

from bnfold import escape

if TYPE_CHECKING:
    from bnfold.optimization.results import Failed

_MOST = 1000  # characters of a line


def complain(what: str) -> None:
    """Prints a line that says what went wrong."""
    _print(escape.line(f"bnfold: {' '.join(what.split())}", _MOST))


def tell(error: Exception, line: str) -> None:
    """Prints the line, and with --debug the traceback before it."""
    trace(error)
    complain(line)


def trace(error: Exception) -> None:
    """Prints the traceback, if --debug is given."""
    context = click.get_current_context(silent=True)
    if context is not None and context.find_root().params.get("debug"):
        lines = "".join(traceback.format_exception(error)).splitlines()
        _print("\n".join(map(escape.printable, lines)))


def _print(text: str) -> None:
    """Prints on standard error; where that cannot be written to, the exit code has to say it."""
    try:
        click.echo(text, err=True)
    except OSError:
        forget(sys.stderr)


def forget(stream: TextIO) -> None:
    """Lets Python flush a stream at its end without an error, which would be another exit code."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def failed(model: str, error: Exception, output: object = None) -> Failed:
    """What becomes of one model of several that an error ended: its line names it, once. With --debug, shows more."""
    from bnfold.optimization.results import Failed  # noqa: PLC0415 -- imports onnx, which --help must not

    line, code = explained(error)
    places = [model, os.path.abspath(model), *([str(output)] if output else [])]
    named = [form for place in places for form in (place, escape.line(place), escape.line(f"{place}:"))]
    if not line.startswith(tuple(named)) and not (isinstance(error, OSError) and error.filename):
        line = f"{model}: {line}"
    trace(error)
    return Failed(model, line, code)


def explained(error: Exception) -> tuple[str, int]:
    """What to say of an error, and the exit code."""
    from bnfold.model_io import ModelError  # noqa: PLC0415 -- imports onnx, which --help must not

    if isinstance(error, click.ClickException):
        return error.format_message(), error.exit_code
    if isinstance(error, ModelError):
        return str(error), 2
    if isinstance(error, TimeoutError) and error.errno is None:  # ours, and not of a file system
        return "not enough time (--timeout)", 1
    if isinstance(error, OSError):
        return f"{error.filename or 'input or output'}: {error.strerror or error}", 2
    if isinstance(error, MemoryError):
        return "not enough memory", 1
    return f"internal error: {type(error).__name__}: {error}; please report it with what --debug shows", 70
