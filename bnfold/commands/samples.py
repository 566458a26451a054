"""Options of commands that run a model over data, and what becomes of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click

import bnfold

_OPTIONS = (
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
    click.option("--batch-size", type=click.IntRange(1), metavar="N", help="Samples in a batch.  [default: 32]"),
    click.option("--max-samples", type=click.IntRange(1), metavar="N", help="No more than these, evenly spread."),
    click.option("--seed", type=click.IntRange(0), metavar="N", help="Draw --max-samples at random instead."),
    click.option("--workers", type=click.IntRange(1), default=1, show_default=True, help="Processes."),
    click.option("--threads", type=click.IntRange(1), metavar="N", help="Batches at a time.  [default: all cores]"),
    click.option("--dask", metavar="ADDRESS", help="Scheduler of a Dask cluster to run on."),
    click.option("--work-dir", metavar="DIR", help="For temporary files; the workers of a cluster have to see it."),
    click.option("--provider", default="CPUExecutionProvider", show_default=True, help="Of ONNX Runtime."),
    click.option("--arithmetic", is_flag=True, help="Measure without training-mode nodes, as off the CPU."),
)
_IMAGES = ("images", "size", "mean", "std", "layout", "rgb")


def samples(command: Callable[..., None]) -> Callable[..., None]:
    """Adds the options."""
    for option in reversed(_OPTIONS):
        command = option(command)
    return command


@contextmanager
def arguments(given: dict[str, Any], *, quiet: bool) -> Iterator[dict[str, Any]]:
    """What the verb takes for the options; progress is shown meanwhile."""
    from bnfold.report.progress import Progress  # noqa: PLC0415 -- what only this needs

    images = {name: given.pop(name) for name in _IMAGES}
    paths = given.pop("data")
    if bool(paths) == bool(images["images"]):
        raise click.UsageError("give --data, or --images")
    data = list(paths) if paths else _images(**images)
    with Progress(shown=not quiet) as progress:
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
