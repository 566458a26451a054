"""`bnfold check`."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import click

import bnfold
from bnfold.commands import options
from bnfold.commands.errors import complain, failed
from bnfold.commands.settings import Settled
from bnfold.commands.show import report_to, show_checked
from bnfold.limits import held_to

if TYPE_CHECKING:
    from bnfold.optimization.results import Checked, Failed


@click.command(
    cls=Settled,
    sections={
        "keep": "What to fold",
        "fail_on": "What fails",
        "timeout": "Limits",
        "node": "Report",
    },
)
@click.argument("models", metavar="MODEL...", nargs=-1, required=True, type=options.path)
@options.keep
@options.assume_constant
@options.max_growth
@options.inside_patterns
@options.fail_on
@options.allow
@options.timeout(300.0, "each model; what is not decided by then stays")
@options.memory
@click.option(
    "--node",
    metavar="GLOB",
    help="Tell each operator that nodes of this name came to, what it said, and its equation.",
)
@options.report
@options.report_format("github", "junit", "sarif")
@options.verbose
@options.quiet
def check(
    models: Sequence[str],
    memory: int | None,
    report: str | None,
    report_format: str,
    also: Sequence[tuple[str, str]],
    verbose: bool,
    quiet: bool,
    **asked: Any,
) -> None:
    """Tell which BatchNormalizations of each MODEL would fold, and why others stay.

    Defaults may stand in [tool.bnfold] of a pyproject.toml here or in a folder above.

    Exit codes: 0 there is nothing of what --fail-on says; 1 there is, or time or memory did not suffice to find out;
    2 a model cannot be read, which does not keep the others from being checked.
    """
    from bnfold.page import Progress  # noqa: PLC0415 -- what only this needs

    if report is not None and len(models) > 1:
        raise click.UsageError("--report is for one model")
    write_report = report_to(report, also, *models)
    results = []
    with held_to(memory), Progress(shown=not quiet, noun="models") as progress:
        for number, model in enumerate(models):
            progress("checking", number, len(models))
            results.append(_checked(model, asked))
    for result in results:
        if not isinstance(result, bnfold.Checked):
            complain(result.error)
    if isinstance(results[0], bnfold.Checked):
        write_report(results[0])
    show_checked(results, report_format, also, verbose=verbose, quiet=quiet)
    raise click.exceptions.Exit(max(_exit_code(result) for result in results))


def _checked(model: str, asked: dict[str, Any]) -> Checked | Failed:
    source = sys.stdin.buffer.read() if model == "-" else model
    try:
        return bnfold.check(source, **asked)
    except Exception as error:  # even one in bnfold itself does not keep the others from being checked
        return failed(model, error)


def _exit_code(result: Checked | Failed) -> int:
    return int(not result.ok) if isinstance(result, bnfold.Checked) else result.exit_code
