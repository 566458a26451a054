"""`bnfold verify`."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import NoReturn

import click

import bnfold
from bnfold.commands import options
from bnfold.commands.sections import Sectioned
from bnfold.commands.show import deliver, report_to
from bnfold.limits import held_to

_OF_RUNNING = {"data": "--data", "rtol": "--rtol", "atol": "--atol", "providers": "--provider"}


def _renamed(_ctx: click.Context, _param: click.Parameter, pairs: Sequence[str]) -> dict[str, str]:
    split = [pair.partition("=") for pair in pairs]
    if wrong := ["".join(parts) for parts in split if not (parts[0] and parts[2])]:
        raise click.BadParameter(f"{wrong[0]!r} is not of the form A=B")
    return options.once([(left, right) for left, _, right in split])


@click.command(
    cls=Sectioned,
    sections={
        "map_output": "What to compare",
        "run": "Running the models",
        "timeout": "Limits",
        "layers": "Report",
    },
)
@click.argument("before", required=False, type=options.path)
@click.argument("after", required=False, type=options.path)
@click.option("--map-output", multiple=True, metavar="A=B", callback=_renamed, help="Output A is called B in AFTER.")
@click.option(
    "--certificate",
    type=options.path,
    metavar="FILE",
    help="Check again what `bnfold optimize --certificate` recorded.",
)
@click.option("--static", is_flag=True, help="Of a certificate: fold again and compare, but run nothing.")
@click.option("--run/--no-run", default=True, help="Run the models as a whole too.  [default: run]")
@click.option(
    "--data",
    multiple=True,
    metavar="DATA",
    help="Inputs to run on: .npy, .npz with input names as keys, ONNX test_data_set folders, folders and globs of "
    "these, or script.py:function.  [default: made up]",
)
@options.shapes
@options.dims
@click.option(
    "--rtol",
    type=options.Number(min=0),
    metavar="X",
    help="Accepted difference of outputs, relative to max |y|.  [default: measured]",
)
@click.option("--atol", type=options.Number(min=0), metavar="X", help="Accepted absolute difference of outputs.")
@click.option("--provider", "providers", multiple=True, metavar="NAME", help="Execution provider of ONNX Runtime.")
@click.option(
    "--seed",
    type=click.IntRange(min=0),
    default=0,
    show_default=True,
    metavar="N",
    help="Of the inputs that are made up.",
)
@options.timeout(1800.0, "comparing region by region, and as many for running the models")
@options.memory
@click.option("--layers", is_flag=True, help="Show every region that was changed, and its operators.")
@options.counterexample
@click.option("--force", is_flag=True, help="Replace the counterexample that is there.")
@options.report
@options.report_format("github", "junit")
@options.quiet
@click.pass_context
def verify(
    ctx: click.Context,
    before: str | None,
    after: str | None,
    certificate: str | None,
    static: bool,
    data: Sequence[str],
    shapes: Mapping[str, Sequence[int]],
    dims: Mapping[str, int],
    rtol: float | None,
    atol: float | None,
    map_output: Mapping[str, str],
    providers: Sequence[str],
    layers: bool,
    run: bool,
    seed: int,
    counterexample: str | None,
    force: bool,
    timeout: float,
    memory: int | None,
    report: str | None,
    report_format: str,
    also: Sequence[tuple[str, str]],
    quiet: bool,
) -> None:
    """Find out whether the models BEFORE and AFTER compute the same.

    Every part of the graph that differs is evaluated alone in float64; what remains must be explained by one rounding
    of the changed weights. Beside that, both models run under ONNX Runtime.

    With --certificate, BEFORE and AFTER are those of the record unless they are given. It is refused if a file has
    changed; BEFORE is folded once more and compared with AFTER bit for bit, and the verification is repeated.

    Exit codes: 0 equivalent; 1 different or not verified; 2 usage or input error.
    """
    if certificate is not None:
        _check_certificate(ctx, certificate, before, after, static, timeout, memory, report_format, also, quiet)
    if before is None or after is None:
        missing = "BEFORE and AFTER are" if before is None else "AFTER is"
        raise click.UsageError(f"{missing} missing, or --certificate FILE")
    if static:
        raise click.UsageError("--static is for a certificate; --no-run compares region by region only")
    if not run and (unused := [flag for name, flag in _OF_RUNNING.items() if ctx.params[name] not in (None, ())]):
        raise click.UsageError(f"{unused[0]} is for running the models, which --no-run forbids")
    from bnfold.page import render  # noqa: PLC0415 -- imports onnx, which --help must not
    from bnfold.verification.told import Compared  # noqa: PLC0415

    write_report = report_to(report, also, before, after, *data)
    with held_to(memory):
        result = bnfold.verify(
            before,
            after,
            shapes=shapes,
            dims=dims,
            data=data or None,
            rtol=rtol,
            atol=atol,
            providers=providers or ("CPUExecutionProvider",),
            map_output=map_output,
            seed=seed,
            thorough=True,
            timeout=timeout,
            memory=memory,
            run=run,
            counterexample=counterexample,
            overwrite=force,
            progress=None if quiet else _progress(),
        )
    write_report(result, f"{before} and {after}")
    told = Compared(result, before, after, layers=layers)
    deliver(partial(render, told, "verification"), report_format, also, quiet=quiet)
    raise click.exceptions.Exit(0 if result.verdict is bnfold.Verdict.EQUIVALENT else 1)


def _check_certificate(
    ctx: click.Context,
    certificate: str,
    before: str | None,
    after: str | None,
    static: bool,
    timeout: float,
    memory: int | None,
    report_format: str,
    also: Sequence[tuple[str, str]],
    quiet: bool,
) -> NoReturn:
    allowed = {"before", "after", "certificate", "static", "timeout", "memory", "report_format", "also", "quiet"}
    default = click.core.ParameterSource.DEFAULT
    given = [name for name in ctx.params if name not in allowed and ctx.get_parameter_source(name) is not default]
    if given:
        raise click.UsageError(f"a certificate says itself what was done: {given[0]} cannot be given")
    from bnfold.page import render  # noqa: PLC0415 -- what only this needs

    report_to(None, also, certificate, before, after)
    with held_to(memory):
        result = bnfold.verify_certificate(
            certificate,
            before,
            after,
            static=static,
            timeout=timeout,
            memory=memory,
            progress=None if quiet else _progress(),
        )
    deliver(partial(render, result, "certificate"), report_format, also, quiet=quiet)
    raise click.exceptions.Exit(0 if result.holds else 1)


def _progress() -> Callable[[str, int, int], None] | None:
    """A line that is written over, on a terminal only."""
    from bnfold.page import Progress  # noqa: PLC0415 -- what only this needs

    return Progress()
