"""Options of commands that run a model over data, and what becomes of them."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click

import bnfold

_DATA = (
    click.option(
        "--data",
        multiple=True,
        metavar="PATH",
        help=".npy, .npz with input names as keys, folders and globs of them, test_data_set folders, URLs, or "
        "script.py:function (load_data by default). May be repeated.",
    ),
    click.option("--images", metavar="DIR", help="A folder of images; needs --size, --mean and --std."),
    click.option("--size", metavar="H,W", help="Size that images are resized to."),
    click.option("--mean", metavar="R,G,B", help="Subtracted from pixels between 0 and 1."),
    click.option("--std", metavar="R,G,B", help="What pixels are divided by after that."),
    click.option(
        "--layout", type=click.Choice(["NCHW", "NHWC"]), default="NCHW", show_default=True, help="Of the input."
    ),
    click.option("--rgb/--bgr", default=True, show_default=True, help="Order of colours."),
)
_RUNNING = (
    click.option("--batch-size", type=click.IntRange(1), metavar="N", help="Samples in a batch.  [default: 32]"),
    click.option("--max-samples", type=click.IntRange(1), metavar="N", help="No more than these, evenly spread."),
    click.option("--seed", type=click.IntRange(0), metavar="N", help="Draw --max-samples at random instead."),
    click.option("--workers", type=click.IntRange(1), default=1, show_default=True, metavar="N", help="Processes."),
    click.option("--threads", type=click.IntRange(1), metavar="N", help="Batches at a time.  [default: all cores]"),
    click.option("--dask", metavar="ADDRESS", help="Scheduler of a Dask cluster to run on."),
    click.option("--work-dir", metavar="DIR", help="For temporary files; the workers of a cluster have to see it."),
    click.option(
        "--provider", default="CPUExecutionProvider", show_default=True, metavar="NAME", help="Of ONNX Runtime."
    ),
    click.option("--arithmetic", is_flag=True, help="Measure without training-mode nodes, as off the CPU."),
)


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


_UNITS = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30, "T": 1 << 40}
_METHODS = ["sequential", "paper", "pooled", "ema"]
_BY_METHOD = click.option(
    "--method", type=click.Choice(_METHODS), default="sequential", show_default=True, help="How statistics are found."
)
_BY_MATCHING_METHOD = click.option(
    "--method",
    type=click.Choice([*_METHODS, "mean", "mean-variance"]),
    help="How statistics are found, or with --reference matched.  [default: sequential; mean]",
)
_METHOD = (
    click.option(
        "--momentum",
        type=float,
        default=0.9,
        show_default=True,
        metavar="X",
        help="Of ema: the share of the old value.",
    ),
    click.option("--unbiased", is_flag=True, help="Of ema: m/(m-1)·var, as PyTorch has it."),
    click.option("--prior", type=float, default=0.0, metavar="N", help="Blend in the stored statistics as N samples."),
    click.option("--reset", is_flag=True, help="Forget the stored statistics: mean 0, variance 1."),
    click.option("--check/--no-check", default=True, show_default=True, help="Measure the residual afterwards."),
    click.option(
        "--cache-memory", metavar="SIZE", callback=_bytes, help="For activations.  [default: 1/4 of the free]"
    ),
    click.option("--cache-disk", metavar="SIZE", callback=_bytes, help="Beyond that.  [default: 1/4 of the free]"),
)
_IMAGES = ("images", "size", "mean", "std", "layout", "rgb")


def samples(command: Callable[..., None]) -> Callable[..., None]:
    """Adds the options."""
    return _with((*_DATA, *_RUNNING), command)


def matching_method(command: Callable[..., None]) -> Callable[..., None]:
    """Adds those that say how statistics are found, or matched."""
    return _with((_BY_MATCHING_METHOD, *_METHOD), command)


def calibrating(command: Callable[..., None]) -> Callable[..., None]:
    """Adds what `calibrate` takes beside its data, for a command of which calibration is but one step."""
    return _with((_BY_METHOD, *_METHOD, *_RUNNING), command)


def _with(made: Sequence[Callable[..., Callable[..., None]]], command: Callable[..., None]) -> Callable[..., None]:
    for option in reversed(made):
        command = option(command)
    return command


def refuse_given(context: click.Context, names: Iterable[str], needed: str) -> None:
    """Options of a step that is not asked for are a mistake.

    Raises:
        UsageError: one of them was given.
    """
    for param in context.command.params:
        source = context.get_parameter_source(param.name or "")
        if param.name in names and source is not click.core.ParameterSource.DEFAULT:
            raise click.UsageError(f"{param.opts[0]} is for {needed}, which is not given")


def refuse_data_as_output(output: str | None, data: Iterable[str]) -> None:
    """A model may not be written over the data that it is measured on.

    Raises:
        UsageError: it would be.
    """
    if output is not None and os.path.realpath(output) in map(os.path.realpath, data):
        raise click.UsageError(f"{output}: is the data")


@contextmanager
def arguments(given: dict[str, Any], *, quiet: bool) -> Iterator[dict[str, Any]]:
    """What the verb takes for the options; progress is shown meanwhile."""
    from bnfold.page import Progress  # noqa: PLC0415 -- what only this needs

    images = {name: given.pop(name) for name in _IMAGES}
    paths = given.pop("data")
    if bool(paths) == bool(images["images"]):
        raise click.UsageError("give --data, or --images")
    data = list(paths) if paths else _images(**images)
    with Progress(shown=not quiet, noun="samples") as progress:
        yield {**given, "data": data, "progress": progress}


def _images(images: str, size: str | None, mean: str | None, std: str | None, layout: str, rgb: bool) -> object:
    missing = [flag for flag, value in (("--size", size), ("--mean", mean), ("--std", std)) if value is None]
    if missing:
        raise click.UsageError(f"--images needs {' and '.join(missing)}: how a network wants its input is not guessed")
    height, width = _numbers(size, "--size", int, 2)
    means, deviations = _numbers(mean, "--mean", float), _numbers(std, "--std", float)
    return bnfold.Images(Path(images), (height, width), means, deviations, layout, bgr=not rgb)


def _numbers(text: str | None, flag: str, kind: Callable[[str], Any], count: int | None = None) -> list[Any]:
    try:
        numbers = [kind(part) for part in (text or "").split(",")]
    except ValueError:
        numbers = []
    if not numbers or (count and len(numbers) != count):
        raise click.BadParameter(
            f"{text!r} is not of the form {'224,224' if count else '0.5,0.5,0.5'}", param_hint=flag
        )
    return numbers
