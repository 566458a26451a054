"""`bnfold optimize`."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Sequence

import click

import bnfold
from bnfold.commands import options
from bnfold.commands.errors import complain
from bnfold.commands.settings import Settled
from bnfold.commands.show import show
from bnfold.limits import held_to

_MODES = ("auto", "require", "off")


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


@click.command(cls=_Verifying)
@click.argument("model")
@click.option("-o", "--output", metavar="OUT", help="Where to write.  [default: MODEL.folded.onnx, if that is free]")
@click.option("--in-place", is_flag=True, help="Write over MODEL.")
@click.option("--force", is_flag=True, help="Replace the default output if it exists.")
@click.option(
    "--verify",
    type=click.Choice(_MODES),
    default="auto",
    show_default=True,
    help="Compare with the original before anything is written. `require`: and write nothing that is not verified. "
    "`--no-verify` stands for off.",
)
@click.option("--certificate", metavar="FILE", help="Write a record that `bnfold verify --certificate` can check.")
@options.shapes
@options.dims
@options.timeout(300.0, "deciding what to fold, as many for comparing region by region and for running the models")
@options.memory
@click.option(
    "--calibrate",
    multiple=True,
    metavar="DATA",
    help="First take the statistics from this data (.npy, .npz, a folder, script.py:function); see bnfold calibrate.",
)
@click.option("--require-none", is_flag=True, help="Write nothing if an operator BatchNormalization stays.")
@options.allow
@options.keep
@options.assume_constant
@options.leftover
@options.max_growth
@options.inside_patterns
@options.report_format
@options.verbose
@options.quiet
def optimize(
    model: str,
    output: str | None,
    in_place: bool,
    force: bool,
    verify: str,
    certificate: str | None,
    shapes: Mapping[str, Sequence[int]],
    dims: Mapping[str, int],
    timeout: float,
    memory: int | None,
    calibrate: Sequence[str],
    require_none: bool,
    allow: Sequence[str],
    keep: Sequence[str],
    assume_constant: bool,
    leftover: str,
    max_growth: int | str,
    inside_patterns: bool,
    report_format: str,
    verbose: bool,
    quiet: bool,
) -> None:
    """Fold the BatchNormalizations of MODEL away, verify the result and write it.

    `-` reads standard input, and writes to standard output; the report is then on standard error.

    Exit codes: 0 done, also if there is nothing to fold; 1 the folded model is not equivalent, or a BatchNormalization
    stays and --require-none is given, nothing is written;
    2 usage or input error.
    """
    from bnfold.report.progress import Progress  # noqa: PLC0415 -- imports onnx, which --help must not

    piped = output == "-" or (model == "-" and output is None and not in_place)
    try:
        with held_to(memory), Progress(shown=not quiet) as progress:
            result = bnfold.optimize(
                sys.stdin.buffer.read() if model == "-" else model,
                sys.stdout.buffer if piped else output,
                in_place=in_place,
                overwrite=force,
                keep=keep,
                assume_constant=assume_constant,
                leftover=leftover,
                max_growth=max_growth,
                inside_patterns=inside_patterns,
                verify=verify,
                shapes=shapes,
                dims=dims,
                timeout=timeout,
                memory=memory,
                calibrate=list(calibrate) or None,
                certificate=certificate,
                require_none=require_none,
                allow=allow,
                progress=progress,
            )
    except (bnfold.NotAllFolded, bnfold.NotVerified) as error:
        show([error.result], report_format, verbose=verbose, quiet=quiet, stderr=piped)
        complain(str(error))
        raise click.exceptions.Exit(1) from error
    show([result], report_format, verbose=verbose, quiet=quiet, stderr=piped)
