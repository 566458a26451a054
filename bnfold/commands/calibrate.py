"""`bnfold calibrate`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import click

import bnfold
from bnfold.commands import options
from bnfold.commands.samples import arguments, samples

_UNITS = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30, "T": 1 << 40}


def _bytes(_ctx: click.Context, _param: click.Parameter, text: str | None) -> int | None:
    if text is None:
        return None
    number, unit = (text[:-1], text[-1].upper()) if text[-1:].isalpha() else (text, "")
    try:
        size = int(float(number) * _UNITS[unit])
    except (KeyError, ValueError, OverflowError):
        size = -1
    if size < 0:
        raise click.BadParameter(f"{text!r} is no size: 500M and 2G are")
    return size


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
@click.option(
    "--method",
    type=click.Choice(["sequential", "paper", "pooled", "ema"]),
    default="sequential",
    show_default=True,
    help="How statistics are found.",
)
@click.option("--momentum", type=float, default=0.9, show_default=True, help="Of ema: the share of the old value.")
@click.option("--unbiased", is_flag=True, help="Of ema: m/(m-1)·var, as PyTorch has it.")
@click.option("--prior", type=float, default=0.0, metavar="N", help="Blend in the stored statistics as N samples.")
@click.option("--reset", is_flag=True, help="Forget the stored statistics: mean 0, variance 1.")
@click.option("--check/--no-check", default=True, show_default=True, help="Measure the residual afterwards.")
@click.option("--cache-memory", metavar="SIZE", callback=_bytes, help="For activations.  [default: 1/4 of the free]")
@click.option("--cache-disk", metavar="SIZE", callback=_bytes, help="Beyond that.  [default: 1/4 of the free]")
@options.report_format
@options.verbose
@options.quiet
def calibrate(
    model: str,
    output: str | None,
    in_place: bool,
    force: bool,
    report_format: str,
    verbose: bool,
    quiet: bool,
    **given: Any,
) -> None:
    """Give the BatchNormalizations of MODEL the statistics of some data, in inference mode, ready to fold.

    `-` reads standard input, and writes to standard output; the report is then on standard error.

    Exit codes: 0 done; 2 usage or input error, nothing is written.
    """
    from bnfold.report.calibration import render  # noqa: PLC0415 -- imports onnx, which --help must not

    piped = output == "-" or (model == "-" and output is None)
    with arguments(given, quiet=quiet) as resolved:
        result = bnfold.calibrate(
            sys.stdin.buffer.read() if model == "-" else model,
            output=sys.stdout.buffer if piped else _target(model, output, in_place=in_place, force=force),
            in_place=in_place,
            **resolved,
        )
    if not quiet:
        click.echo(render(result, report_format, verbose=verbose), err=piped)


def _target(model: str, output: str | None, *, in_place: bool, force: bool) -> str | None:
    if output is not None or in_place:
        return output
    target = Path(model).with_suffix(".calibrated.onnx")
    if target.exists() and not force:
        raise click.UsageError(f"{target}: already exists; --force replaces it, and -o OUT writes to another place")
    return str(target)
