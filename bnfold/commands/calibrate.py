"""`bnfold calibrate`."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import click

import bnfold
from bnfold.commands import options
from bnfold.commands.samples import arguments, method, samples
from bnfold.commands.show import deliver
from bnfold.limits import held_to


@click.command
@click.argument("model", type=options.path)
@samples
@click.option(
    "-o",
    "--output",
    type=options.path,
    metavar="OUT",
    help="Where to write.  [default: MODEL.calibrated.onnx, if free]",
)
@click.option("--in-place", is_flag=True, help="Write over MODEL.")
@click.option("--force", is_flag=True, help="Replace the default output if it exists.")
@click.option("--only", multiple=True, metavar="GLOB", help="Calibrate BatchNormalizations of these names, no others.")
@click.option("--keep", multiple=True, metavar="GLOB", help="BatchNormalizations that stay as they are, by name.")
@method
@options.timeout(3600.0, "measuring")
@options.memory
@options.report_format("github")
@options.verbose
@options.quiet
def calibrate(
    model: str,
    output: str | None,
    in_place: bool,
    force: bool,
    report_format: str,
    also: Sequence[tuple[str, str]],
    verbose: bool,
    quiet: bool,
    **given: Any,
) -> None:
    """Give the BatchNormalizations of MODEL the statistics of some data, in inference mode, ready to fold.

    `-` reads standard input, and writes to standard output; the report is then on standard error.

    Exit codes: 0 done; 1 time or memory did not suffice, 2 usage or input error: nothing is written.
    """
    from bnfold.page import render  # noqa: PLC0415 -- what only this needs

    piped = output == "-" or (model == "-" and output is None)
    with held_to(given["memory"]), arguments(given, quiet=quiet) as resolved:
        result = bnfold.calibrate(
            sys.stdin.buffer.read() if model == "-" else model,
            output=sys.stdout.buffer if piped else _target(model, output, in_place=in_place, force=force),
            in_place=in_place,
            **resolved,
        )
    told = partial(render, result, "calibration", verbose=verbose)
    deliver(told, report_format, also, quiet=quiet, stderr=piped)


def _target(model: str, output: str | None, *, in_place: bool, force: bool) -> str | None:
    if output is not None or in_place:
        return output
    target = Path(model).with_suffix(".calibrated.onnx")
    if target.exists() and not force:
        raise click.UsageError(f"{target}: already exists; --force replaces it, and -o OUT writes to another place")
    return str(target)
