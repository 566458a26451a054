"""The command line: one click command per file, found and imported when it is asked for.

Exit codes: 0 done; 1 the answer is no; 2 usage or input error; 70 an error in bnfold; 130 interrupted; 141 nobody
reads the output; 143 terminated.
"""

from __future__ import annotations

import gc
import io
import os
import signal
import sys
import warnings
from importlib import import_module
from importlib.util import find_spec
from typing import Any

import click

from bnfold import __version__
from bnfold.commands.errors import complain, explained, forget, tell
from bnfold.commands.verbs import in_order, suggestion

_HELP = {
    "optimize": "Fold BatchNormalizations away and write the smaller model.",
    "check": "Tell which BatchNormalizations would fold, and why others stay.",
    "verify": "Compare two models numerically.",
    "calibrate": "Give training-mode BatchNormalizations the statistics of your data.",
    "drift": "Tell how far stored statistics are from your data.",
    "explain": "Tell what a reason means, and what can be done.",
    "schema": "Print the JSON Schema of a report.",
}


class _Terminated(KeyboardInterrupt):
    """The system, or another program, asks to end (SIGTERM): all that Ctrl-C would have cleaned up is, too."""


class Program(click.Group):
    """A group that imports a subcommand when it is used, and in which no error ends in a traceback."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 -- as click calls it
        """Those that this installation has."""
        return [name for name in _HELP if find_spec(f"{__name__}.{name}")]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """The click command `cmd_name` in the module of that name."""
        if cmd_name not in self.list_commands(ctx):
            return None
        command = getattr(import_module(f"{__name__}.{cmd_name}"), cmd_name)
        assert isinstance(command, click.Command)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Lists the commands without importing them."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, _HELP[name]) for name in self.list_commands(ctx)])

    def make_context(
        self, info_name: str | None, args: list[str], parent: click.Context | None = None, **extra: Any
    ) -> click.Context:
        """Reads the options before the subcommand; what is wrong with them is told in a line, too."""
        given = in_order(args, list(_HELP))
        args = list(given)
        try:
            return super().make_context(info_name, args, parent, **extra)
        except click.UsageError as error:
            if not given:  # then it is no error, but the help
                raise
            complain(f"{error.format_message()} (see {info_name} --help)")
            raise click.exceptions.Exit(2) from error

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Finds the command; for one that there is not, names the one that is like it."""
        try:
            return super().resolve_command(ctx, args)
        except click.UsageError as error:
            hint = suggestion(args[0], self.list_commands(ctx))
            raise click.UsageError(f"{error.format_message()} {hint}", ctx) from error

    def invoke(self, ctx: click.Context) -> object:
        """Runs the subcommand; what goes wrong becomes one line and an exit code."""
        from bnfold.malloc import keep_freed_memory  # noqa: PLC0415 -- imports ctypes, which --help need not

        keep_freed_memory()
        try:
            result = super().invoke(ctx)
            sys.stdout.flush()  # here, where a closed pipe can still be answered
            return result
        except BrokenPipeError:
            forget(sys.stdout)
            return ctx.exit(141)
        except KeyboardInterrupt as error:
            is_asked = isinstance(error, _Terminated)
            complain("terminated" if is_asked else "interrupted")
            return ctx.exit(143 if is_asked else 130)
        except click.UsageError as error:
            where = (error.ctx or ctx).command_path
            complain(f"{error.format_message()} (see {where} --help)")
            return ctx.exit(2)
        except Exception as error:
            if isinstance(error, click.exceptions.Exit | click.Abort):
                raise
            line, code = explained(error)
            tell(error, line)
            return ctx.exit(code)


@click.group(cls=Program, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, message="bnfold %(version)s")
@click.option("--debug", is_flag=True, help="Show the traceback of an error.")
def program(debug: bool) -> None:
    """Take every removable BatchNormalization out of ONNX models, and prove that nothing changed.

    Exit codes: 0 done; 1 the answer is no; 2 usage or input error.
    """


def main() -> None:
    """The entry point `bnfold`."""
    _open_closed_streams()
    # Starting a thread per core costs numpy more than the vectors of a fold could gain from them.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    for stream in (sys.stdout, sys.stderr):  # where the locale has no arrow, it is spelt out
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    signal.signal(signal.SIGTERM, _terminate)
    warnings.simplefilter("ignore", RuntimeWarning)  # numpy's, of numbers that a model holds: no news for a user
    gc.disable()  # a short process full of small objects, none of them in cycles
    program(prog_name="bnfold")


def _open_closed_streams() -> None:
    """Puts something in the place of streams that a shell closed (`>&-`), else a model would be opened as one of them.

    Reading finds nothing, errors go nowhere, and writing to standard output fails.
    """
    for number, (name, mode) in enumerate({"stdin": os.O_RDONLY, "stdout": os.O_RDONLY, "stderr": os.O_WRONLY}.items()):
        if getattr(sys, name) is None:
            os.dup2(os.open(os.devnull, mode), number)
            raw = io.FileIO(number, "w" if number else "r", closefd=False)  # no buffer, which would fail again at exit
            setattr(sys, name, io.TextIOWrapper(raw, encoding="utf-8", write_through=True))


def _terminate(_number: int, _frame: object) -> None:
    raise _Terminated
