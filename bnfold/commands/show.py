"""Printing of reports."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from bnfold.report.results import Result


def show(
    results: Sequence[Result], report_format: str, *, verbose: bool = False, quiet: bool = False, stderr: bool = False
) -> None:
    """Prints what the verbs returned, in the form that was asked for."""
    from bnfold.report import FORMATS  # noqa: PLC0415 -- imports onnx, which --help must not

    if not quiet:
        click.echo(FORMATS[report_format](results, verbose), err=stderr)
