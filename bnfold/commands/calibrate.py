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
from bnfold.commands.samples import arguments, matching_method, refuse_data_as_output, samples
from bnfold.commands.sections import Sectioned
from bnfold.commands.show import deliver, report_to
from bnfold.limits import held_to


@click.command(
    cls=Sectioned,
    sections={
        "data": "Data",
        "batch_size": "Running",
        "output": "Output",
        "only": "What to calibrate",
        "method": "How",
        "timeout": "Limits",
        "report": "Report",
    },
)
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
@click.option(
    "--reference",
    type=options.path,
    metavar="FLOAT.onnx",
    help="For a model without BatchNormalizations that was quantized or pruned: its layers get the means that those of "
    "this model have (--method mean, or mean-variance).",
)
@matching_method
@options.timeout(3600.0, "measuring")
@options.memory
@options.report
@options.report_format("github")
@options.verbose
@options.quiet
def calibrate(
    model: str,
    output: str | None,
    in_place: bool,
    force: bool,
    report: str | None,
    report_format: str,
    also: Sequence[tuple[str, str]],
    verbose: bool,
    quiet: bool,
    **given: Any,
) -> None:
    """Give the BatchNormalizations of MODEL the statistics of some data, in inference mode, ready to fold.

    With --reference, layers without one get what one would give them: the means of the float model's layers.

    `-` reads standard input, and writes to standard output; the report is then on standard error.

    Exit codes: 0 done; 1 time or memory did not suffice, 2 usage or input error: nothing is written.
    """
    from bnfold.model_io import beside  # noqa: PLC0415 -- imports onnx, which --help must not
    from bnfold.page import render  # noqa: PLC0415

    piped = output == "-" or (model == "-" and output is None)
    if output is None and not (piped or in_place):
        output = str(beside(Path(model), ".calibrated.onnx", overwrite=force))
    refuse_data_as_output(output, given["data"])
    write_report = report_to(report, also, model, output, given["reference"], *given["data"])
    with held_to(given["memory"]), arguments(given, quiet=quiet) as resolved:
        result = bnfold.calibrate(
            sys.stdin.buffer.read() if model == "-" else model,
            output=sys.stdout.buffer if piped else output,
            in_place=in_place,
            **resolved,
        )
    write_report(result)
    kind = "reference" if given["reference"] is not None else "calibration"
    deliver(partial(render, result, kind, verbose=verbose), report_format, also, quiet=quiet, stderr=piped)
