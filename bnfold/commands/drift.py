"""`bnfold drift`."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import click

import bnfold
from bnfold.commands import options
from bnfold.commands.samples import arguments, samples
from bnfold.commands.sections import Sectioned
from bnfold.commands.show import deliver, refuse_taken, report_to
from bnfold.limits import held_to


def _score(_ctx: click.Context, _param: click.Parameter, score: float | None) -> float | None:
    if score is not None and not score >= 0:  # NaN would let everything pass
        raise click.BadParameter(f"{score} is no score")
    return score


@click.command(
    cls=Sectioned,
    sections={
        "data": "Data",
        "batch_size": "Running",
        "fail_above": "What fails",
        "timeout": "Limits",
        "plot": "Report",
    },
)
@click.argument("model", type=options.path)
@samples
@click.option(
    "--fail-above",
    type=float,
    metavar="SCORE",
    callback=_score,
    help="Exit 1 if the score is higher by more than sampling explains.",
)
@options.timeout(3600.0, "measuring")
@options.memory
@click.option("--plot", metavar="FILE.svg", type=options.Written(dir_okay=False, path_type=Path), help="Draw it.")
@options.report
@options.report_format("github", "junit")
@options.verbose
@options.quiet
def drift(
    model: str,
    fail_above: float | None,
    plot: Path | None,
    report: str | None,
    report_format: str,
    also: Sequence[tuple[str, str]],
    verbose: bool,
    quiet: bool,
    **given: Any,
) -> None:
    """Tell how far the statistics that MODEL holds are from some data, layer by layer.

    Exit codes: 0 done; 1 the score is above --fail-above, or time or memory did not suffice; 2 usage or input error.
    """
    from bnfold.calibration.picture import drift_svg  # noqa: PLC0415 -- imports onnx, which --help must not
    from bnfold.model_io import write_text  # noqa: PLC0415
    from bnfold.page import render  # noqa: PLC0415

    if plot is not None:
        refuse_taken(plot, model, *given["data"])
    write_report = report_to(report, also, model, *([str(plot)] if plot is not None else []), *given["data"])
    with held_to(given["memory"]), arguments(given, quiet=quiet) as resolved:
        result = bnfold.drift(sys.stdin.buffer.read() if model == "-" else model, **resolved)
    if plot is not None:
        write_text(plot, drift_svg(result))
    write_report(result)
    result = replace(result, limit=fail_above)
    deliver(partial(render, result, "drift", verbose=verbose), report_format, also, quiet=quiet)
    raise click.exceptions.Exit(int(result.is_above_limit))
