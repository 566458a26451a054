"""Options that several commands share."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import click

path = click.Path(readable=False)  # for the completion of a shell; what is there, and may be read, is told later


class Written(click.Path):
    """A file that is written beside what is printed."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """The path; a `-` is meant for standard output, and would be a file of that name."""
        if value == "-":
            self.fail("'-' stands for no file here.", param, ctx)
        return super().convert(value, param, ctx)


written = Written(readable=False)
_Command = TypeVar("_Command", bound=Callable[..., Any] | click.Command)


_MOST = 2**31 - 1  # of a size


class Number(click.FloatRange):
    """A number that can be reckoned with: not infinite, and not NaN, which lies in every range."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """The number."""
        try:
            number: float = super().convert(value, param, ctx)
        except OverflowError:  # an integer of a pyproject.toml
            number = math.inf
        if not math.isfinite(number):
            self.fail(f"{value!r} is not a finite number.", param, ctx)
        return number


class Growth(click.ParamType[int | str]):
    """A number of bytes, or a percentage."""

    name = "growth"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int | str:
        """The number, or the percentage as it stands."""
        text = str(value)
        if not re.fullmatch(r"\d{1,18}((\.\d+)?%)?", text):
            self.fail(f"{text!r} is neither a number of bytes nor a percentage such as 10%.", param, ctx)
        return text if text.endswith("%") else int(text)


def _size(text: str) -> int:
    size = int(text)
    if not 0 <= size <= _MOST:
        raise ValueError("a size is not negative, and no tensor is that large")
    return size


def _shape(text: str) -> tuple[int, ...]:
    return tuple(map(_size, text.split(","))) if text else ()


def once(pairs: Sequence[tuple[str, object]]) -> dict[str, Any]:
    """The pairs as a dict; to give one name two values is a mistake."""
    by_name = dict(pairs)
    if len(by_name) < len(pairs):
        names = [name for name, _ in pairs]
        raise click.BadParameter(f"{next(name for name in names if names.count(name) > 1)!r} is given twice.")
    return by_name


def _named(flag: str, form: str, convert: Callable[[str], object], text: str) -> Callable[[_Command], _Command]:
    """An option `NAME=VALUE` that may be given several times; the command receives a dict."""

    def pairs(_ctx: click.Context, _param: click.Parameter, values: Sequence[str]) -> dict[str, object]:
        return once([pair(value) for value in values])

    def pair(value: str) -> tuple[str, object]:
        name, _, given = value.rpartition("=")  # the name may hold equal signs itself
        try:
            if name:
                return name, convert(given)
        except ValueError:
            pass
        raise click.BadParameter(f"{value!r} is not of the form {form}")

    return click.option(flag, f"{flag[2:]}s", metavar=form, multiple=True, callback=pairs, help=text)


shapes = _named(
    "--shape",
    "NAME=1,3,224,224",
    _shape,
    "Shape of an input, where the model leaves it open; the answer is for this shape.",
)
dims = _named("--dim", "NAME=4", _size, "Size of a named dimension, likewise.")


def timeout(default: float, what: str) -> Callable[[_Command], _Command]:
    """The option `--timeout`, in seconds for what it says."""
    return click.option(
        "--timeout",
        type=Number(min=0, min_open=True, max=1e6),
        default=default,
        show_default=True,
        metavar="SECONDS",
        help=f"Seconds for {what}.",
    )


def _held(_ctx: click.Context, _param: click.Parameter, gigabytes: float | None) -> int | None:
    return None if gigabytes is None else max(1, int(gigabytes * 2**30))


memory = click.option(
    "--memory",
    type=Number(min=0, min_open=True, max=1e6),
    callback=_held,
    metavar="GB",
    help="Gigabytes for each process.  [default: what there is]",
)
keep = click.option("--keep", multiple=True, metavar="GLOB", help="Nodes that must stay, by name.")
assume_constant = click.option(
    "--assume-constant", is_flag=True, help="Fold also initializers that a caller could override as inputs."
)
leftover = click.option(
    "--leftover",
    type=click.Choice(["keep", "affine", "conv"]),
    default="keep",
    show_default=True,
    help="What to do with a BatchNormalization that stays, for compilers that know none: keep it, or put a Mul and an "
    "Add (affine) or a depthwise Conv (conv) in its place.",
)


class _List(click.ParamType[tuple[str, ...]]):
    """Some of a few words, with commas between them."""

    name = "list"

    def __init__(self, words: Sequence[str]) -> None:
        self._words = words

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[str, ...]:
        """The words."""
        given = tuple(value.split(",")) if isinstance(value, str) else tuple(map(str, value))
        if unknown := [word for word in given if word not in self._words]:
            self.fail(f"{unknown[0]!r} is none of {', '.join(self._words)}.", param, ctx)
        return given


fail_on = click.option(
    "--fail-on",
    type=_List(("foldable", "training", "affines", "any")),
    default="foldable,training",
    show_default=True,
    metavar="WHAT,...",
    help="What there may not be: `foldable` BatchNormalizations, those in `training` mode, other `affines` that could "
    "fold, or `any` BatchNormalization.",
)
allow = click.option(
    "--allow",
    multiple=True,
    metavar="GLOB|REASON",
    help="Exceptions: nodes by name, and all that stay for a reason such as TRAINING_MODE.",
)
max_growth = click.option(
    "--max-growth",
    type=Growth(),
    default="10%",
    show_default=True,
    metavar="BYTES|PERCENT%",
    help="How much larger the model may become: a weight that operators share is copied for those that change.",
)
inside_patterns = click.option(
    "--fold-inside-patterns",
    "inside_patterns",
    is_flag=True,
    help="Fold also affines that are part of what runtimes compute as one operator: a Gelu that is spelt out, …",
)
fold_norms = click.option(
    "--fold-norms",
    is_flag=True,
    help="Fold scale and bias of a LayerNormalization and its kin into all that reads it, as before a rotation of the "
    "data; the norm stays.",
)
counterexample = click.option(
    "--counterexample",
    metavar="DIR",
    help="If the two are different, write what shows it there: two small models, inputs, and a script.",
)
report = click.option(
    "--report",
    type=path,
    metavar="FILE.html",
    help="Write a web page as well that shows all of it, with drawings: one file, which needs nothing else.",
)


class _Also(click.ParamType[tuple[str, str]]):
    """A form, and a file for it."""

    name = "also"

    def __init__(self, forms: Sequence[str]) -> None:
        self._forms = forms

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[str, str]:
        """Both."""
        form, _, path = str(value).partition("=")
        if form not in self._forms or not path:
            self.fail(f"{value!r} is not of the form {'|'.join(self._forms)}=FILE.", param, ctx)
        return form, written.convert(path, param, ctx)


def report_format(*more: str) -> Callable[[_Command], _Command]:
    """The options `--format` and `--also`, with the forms that a verb has beside those that each has."""
    forms = ("text", "json", "markdown", "html", *more)

    def decorate(command: _Command) -> _Command:
        one = click.option(
            "--format",
            "report_format",
            type=click.Choice(forms),
            default="text",
            show_default=True,
            help="Form of the report.",
        )
        others = click.option(
            "--also",
            type=_Also(forms),
            multiple=True,
            metavar="FORM=FILE",
            help="Write the report to a file too, in another form perhaps.",
        )
        return one(others(command))

    return decorate


verbose = click.option("-v", "--verbose", is_flag=True, help="Tell of every node.")
quiet = click.option("-q", "--quiet", is_flag=True, help="Print nothing but errors.")
