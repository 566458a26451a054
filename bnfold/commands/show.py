"""Printing of reports."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import click

from bnfold.commands.errors import complain

if TYPE_CHECKING:
    from bnfold.optimization.results import Checked, Failed, Result, Told
    from bnfold.page import Screen


def report_to(path: str | None, also: Sequence[tuple[str, str]], *others: str | None) -> Callable[..., None]:
    """What writes a result to the file of `--report`, if one is given. What can be refused is refused now.

    Args:
        path: The file.
        also: The forms and files of `--also`.
        others: Files that are read, or written, for something else.

    Raises:
        ModelError: One of the files cannot be written, or is one of the others.
    """
    if path is None and not also:
        return lambda *_: None
    from bnfold.model_io import check_text  # noqa: PLC0415 -- imports onnx, which --help must not

    taken = _taken(others)
    pages = [path] if path is not None else []
    for number, (_, file) in enumerate(also):
        written = (other for _, other in also[:number] if os.path.isfile(other) or not os.path.exists(other))
        check_text(Path(file), [*taken, *pages, *written])
    if path is None:
        return lambda *_: None
    from bnfold.report import Draft  # noqa: PLC0415

    return Draft(path, taken).write


def refuse_taken(path: Path, *others: str) -> None:
    """Refuses, before any work is done, a file that cannot be written, or stands for one of the others.

    Raises:
        ModelError: It is one of these.
    """
    from bnfold.model_io import check_text  # noqa: PLC0415 -- imports onnx, which --help must not

    check_text(path, _taken(others))


def _taken(others: Sequence[str | None]) -> list[str]:
    from bnfold.model_io import files_of  # noqa: PLC0415 -- imports onnx, which --help must not

    return [file for other in others if other is not None and other != "-" for file in files_of(other)]


def show(
    results: Sequence[Result],
    report_format: str,
    also: Sequence[tuple[str, str]] = (),
    *,
    verbose: bool = False,
    quiet: bool = False,
    stderr: bool = False,
) -> None:
    """Prints what the verbs returned, in the form that was asked for, and writes it in others."""
    from bnfold.optimization.formats import FORMATS  # noqa: PLC0415 -- imports onnx, which --help must not

    deliver(
        lambda form, screen: FORMATS[form](results, verbose, screen), report_format, also, quiet=quiet, stderr=stderr
    )


def deliver(
    told: Callable[[str, Screen], str],
    form: str,
    also: Sequence[tuple[str, str]],
    *,
    quiet: bool,
    stderr: bool = False,
) -> None:
    """Prints a report, and then writes it to the files of `--also`, each in its own form and none as for a terminal.

    Raises:
        ModelError: One of them cannot be written.
    """
    from bnfold.model_io import write_text  # noqa: PLC0415 -- imports onnx, which --help must not
    from bnfold.page import LOG  # noqa: PLC0415

    if not quiet and (report := told(form, screen_of(stderr=stderr))):
        click.echo(report, err=stderr)
    for other, path in also:
        write_text(Path(path), f"{told(other, LOG)}\n")


def screen_of(*, stderr: bool = False) -> Screen:
    """What the report is printed on."""
    from bnfold.page import Screen  # noqa: PLC0415 -- what only a report needs

    return Screen.of(sys.stderr if stderr else sys.stdout)


def show_checked(
    results: Sequence[Checked | Failed],
    report_format: str,
    also: Sequence[tuple[str, str]],
    *,
    verbose: bool,
    quiet: bool,
) -> None:
    """Prints several; on a terminal those that have findings, or all if verbose, and how many there are."""
    from bnfold.optimization import total  # noqa: PLC0415 -- imports onnx, which --help must not
    from bnfold.optimization.results import Failed  # noqa: PLC0415 -- imports onnx, which --help must not

    if report_format != "text" or len(results) == 1:
        show(results, report_format, also, verbose=verbose, quiet=quiet)
        return
    told = [result for result in results if not isinstance(result, Failed) and (verbose or not result.ok)]
    show(told, report_format, verbose=verbose, quiet=quiet)
    if not quiet:
        click.echo(f"\n{total.checked(results)}" if told else total.checked(results))
    show(results, report_format, also, verbose=verbose, quiet=True)


def show_lines(
    results: Iterable[Told | Failed],
    report_format: str,
    also: Sequence[tuple[str, str]],
    *,
    verbose: bool,
    quiet: bool,
) -> list[Told | Failed]:
    """Prints a line for each result as it comes, and one for all; other forms than text, once all are there."""
    from bnfold.optimization import total  # noqa: PLC0415 -- imports onnx, which --help must not
    from bnfold.optimization.results import Failed  # noqa: PLC0415
    from bnfold.page import Table, text  # noqa: PLC0415

    come = []
    screen = screen_of()
    for result in results:
        come.append(result)
        if report_format == "text" and not quiet and not isinstance(result, Failed):
            page = result.page()
            brief = replace(page, lines=(), summary=Table(), table=Table(), notes=())
            click.echo(text(page if verbose else brief, screen))
        if result.error:
            complain(result.error)
    if report_format == "text" and not quiet:
        click.echo(total.optimized(come))
    show(come, report_format, also, verbose=verbose, quiet=quiet or report_format == "text")
    return come
