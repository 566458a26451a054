"""`bnfold optimize`."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import click

import bnfold
from bnfold.commands import options
from bnfold.commands.errors import complain
from bnfold.commands.samples import calibrating, refuse_data_as_output, refuse_given
from bnfold.commands.settings import Settled
from bnfold.commands.show import report_to, show, show_lines
from bnfold.limits import held_to

_MODES = ("auto", "require", "off")
_OF_THE_FOLD = (
    "allow",
    "assume_constant",
    "certificate",
    "counterexample",
    "diff",
    "dims",
    "dry_run",
    "fold_norms",
    "inside_patterns",
    "keep",
    "leftover",
    "max_growth",
    "memory",
    "require_none",
    "shapes",
    "timeout",
    "verify",
)
"""Options that `bnfold.optimize` takes as they are; all others are for the calibration before it."""


class _Verifying(Settled):
    """Takes `--verify` without a value, for which click would take MODEL, and `--no-verify`."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Spells the option out."""
        return super().parse_args(ctx, list(_spelt_out(args)))


def _spelt_out(args: list[str]) -> Iterator[str]:
    for arg, following in zip(args, [*args[1:], ""], strict=False):
        if arg == "--no-verify":
            yield "--verify=off"
        elif arg == "--verify" and following not in _MODES:
            yield "--verify=auto"
        else:
            yield arg


@click.command(
    cls=_Verifying,
    sections={
        "output": "Output",
        "keep": "What to fold",
        "verify": "Verification",
        "calibrate": "Calibration before the fold",
        "timeout": "Limits",
        "diff": "Report",
    },
)
@click.argument("models", metavar="MODEL...", nargs=-1, required=True, type=options.path)
@click.option(
    "-o",
    "--output",
    type=options.path,
    metavar="OUT",
    help="Where to write.  [default: MODEL.folded.onnx, if that is free]",
)
@click.option(
    "--output-dir", type=options.path, metavar="DIR", help="Where to write several models, under their own names."
)
@click.option("--in-place", is_flag=True, help="Write over MODEL.")
@click.option(
    "--force", is_flag=True, help="Replace the default output, a counterexample, or what is in DIR, if it exists."
)
@click.option("--jobs", type=click.IntRange(1), default=1, show_default=True, metavar="N", help="Models at a time.")
@click.option("--dry-run", is_flag=True, help="Do all of it and report, but write nothing.")
@click.option("--require-none", is_flag=True, help="Write nothing if an operator BatchNormalization stays.")
@options.allow
@options.keep
@options.assume_constant
@options.leftover
@options.max_growth
@options.inside_patterns
@options.fold_norms
@options.shapes
@options.dims
@click.option(
    "--verify",
    type=click.Choice(_MODES),
    default="auto",
    show_default=True,
    help="Compare with the original before anything is written. `require`: and write nothing that is not verified. "
    "`--no-verify` stands for off.",
)
@click.option(
    "--certificate",
    type=options.written,
    metavar="FILE",
    help="Write a record that `bnfold verify --certificate` can check.",
)
@options.counterexample
@click.option(
    "--calibrate",
    multiple=True,
    metavar="DATA",
    help="First take the statistics from this data (.npy, .npz, a folder, script.py:function), as bnfold calibrate "
    "does; the options below are for that.",
)
@click.option("--calibrate-only", multiple=True, metavar="GLOB", help="BatchNormalizations to calibrate, no others.")
@click.option("--calibrate-keep", multiple=True, metavar="GLOB", help="Those that keep their statistics.")
@calibrating
@options.timeout(
    300.0, "calibrating, as many for deciding what to fold, for comparing region by region and for running the models"
)
@options.memory
@click.option("--diff", is_flag=True, help="Tell of each node whether it is gone, has changed, or has come.")
@options.report
@options.report_format("github", "junit")
@options.verbose
@options.quiet
def optimize(
    models: Sequence[str],
    output: str | None,
    output_dir: str | None,
    in_place: bool,
    force: bool,
    jobs: int,
    calibrate: Sequence[str],
    report: str | None,
    report_format: str,
    also: Sequence[tuple[str, str]],
    verbose: bool,
    quiet: bool,
    **given: Any,
) -> None:
    """Fold the BatchNormalizations of MODEL away, verify the result and write it.

    `-` reads standard input, and writes to standard output; the report is then on standard error.

    Several models go to --output-dir, each under its own name. One that fails does not keep the others from being done,
    and the worst exit code counts.

    Exit codes: 0 done, also if there is nothing to fold; 1 the folded model is not equivalent, or a BatchNormalization
    stays and --require-none is given, nothing is written; 2 usage or input error.
    """
    calibration = {name: value for name, value in given.items() if name not in _OF_THE_FOLD}
    if not calibrate:
        refuse_given(click.get_current_context(), calibration, "--calibrate")
    asked = {
        **{name: given[name] for name in _OF_THE_FOLD},
        "in_place": in_place,
        "overwrite": force,
        "calibrate": list(calibrate) or None,
        "calibration": {name.removeprefix("calibrate_"): value for name, value in calibration.items()}
        if calibrate
        else None,
    }
    if given["dry_run"] and given["certificate"]:
        raise click.UsageError("--certificate is a record of two files, and --dry-run writes none")
    if output_dir is not None and (output is not None or in_place or "-" in models):
        raise click.UsageError("--output-dir names the outputs: -o, --in-place and standard input do not go with it")
    if len(models) == 1 and output_dir is None:
        refuse_data_as_output(output, calibrate)
        from bnfold.model_io import beside  # noqa: PLC0415 -- imports onnx, which --help must not

        place = output or str(beside(Path(models[0]), ".folded.onnx", overwrite=True))
        write_report = report_to(report, also, models[0], place, asked["certificate"], *calibrate)
        _optimize_one(models[0], output, asked, write_report, report_format, also, verbose=verbose, quiet=quiet)
        return
    _refuse_many(
        models,
        output_dir,
        in_place,
        {
            "-o": output,
            "--certificate": asked["certificate"],
            "--counterexample": asked["counterexample"],
            "--report": report,
        },
    )
    from bnfold.commands.many import Job, done, outputs  # noqa: PLC0415 -- needs multiprocessing

    places = outputs(models, output_dir, make=not given["dry_run"])
    if output_dir is not None and None in places:
        asked["overwrite"] = True  # a dry run into a folder that is not there finds nothing in its place
    report_to(None, also, *models, *(str(place) for place in places if place is not None), *calibrate)
    work = [Job(*pair, asked, verbose) for pair in zip(models, places, strict=True)]
    results = show_lines(done(work, jobs), report_format, also, verbose=verbose, quiet=quiet)
    raise click.exceptions.Exit(max(result.exit_code for result in results))


def _refuse_many(models: Sequence[str], folder: str | None, in_place: bool, for_one: dict[str, str | None]) -> None:
    """Refuses what several models cannot have."""
    if unfit := [flag for flag, value in for_one.items() if value is not None]:
        raise click.UsageError(f"{unfit[0]} is for one model, whose output -o names")
    if "-" in models:
        raise click.UsageError("standard input is one model, and there are others")
    if folder is None and not in_place:
        raise click.UsageError(
            "several models need --output-dir DIR, or --in-place; the output of one is given by -o OUT"
        )


def _optimize_one(
    model: str,
    output: str | None,
    asked: dict[str, Any],
    write_report: Callable[..., None],
    report_format: str,
    also: Sequence[tuple[str, str]],
    *,
    verbose: bool,
    quiet: bool,
) -> None:
    from bnfold.optimization.results import Told  # noqa: PLC0415 -- imports onnx, which --help must not
    from bnfold.page import Progress  # noqa: PLC0415

    piped = output == "-" or (model == "-" and output is None and not asked["in_place"])
    try:
        with held_to(asked["memory"]), Progress(shown=not quiet) as progress:
            result = bnfold.optimize(
                sys.stdin.buffer.read() if model == "-" else model,
                sys.stdout.buffer if piped else output,
                progress=progress,
                **asked,
            )
    except (bnfold.NotAllFolded, bnfold.NotVerified) as error:
        write_report(error.result)
        told = Told.of(error.result, verbose=verbose, error=str(error))
        show([told], report_format, also, verbose=verbose, quiet=quiet, stderr=piped)
        complain(str(error))
        raise click.exceptions.Exit(1) from error
    write_report(result)
    show([result], report_format, also, verbose=verbose, quiet=quiet, stderr=piped)
