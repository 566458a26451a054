"""Several models in one run: none of them keeps the others from being done."""

from __future__ import annotations

import signal
import warnings
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

import bnfold
from bnfold.commands.errors import failed
from bnfold.confined import not_started
from bnfold.limits import held_to

if TYPE_CHECKING:
    from bnfold.optimization.results import Failed, Told

_INTERRUPTED = 130


@dataclass(frozen=True)
class Job:
    """A model to optimize.

    Attributes:
        model: Its path.
        output: Where to write; None for the default.
        options: Further arguments of `bnfold.optimize`.
        verbose: Whether to tell of every node.
    """

    model: str
    output: Path | None
    options: dict[str, Any]
    verbose: bool

    def done(self) -> Told | Failed:
        """What became of it, as plain data."""
        from bnfold.optimization.results import Told  # noqa: PLC0415 -- imports onnx, which --help must not

        try:
            with held_to(self.options["memory"]):
                return Told.of(self._optimized(), verbose=self.verbose)
        except (bnfold.NotAllFolded, bnfold.NotVerified) as error:
            return Told.of(error.result, verbose=self.verbose, error=str(error))
        except Exception as error:  # even one in bnfold itself
            return failed(self.model, error, self.output)

    def _optimized(self) -> bnfold.Optimized:
        if self.output is not None and self.output.exists() and not self.options["overwrite"]:
            raise bnfold.ModelError(f"{self.output}: already exists; --force replaces it")
        return bnfold.optimize(self.model, self.output, **self.options)


def outputs(models: Sequence[str], folder: str | None, *, make: bool = True) -> list[Path | None]:
    """Where each model goes: into the folder, under its own name; nowhere, if it is not there and not to be made.

    Raises:
        UsageError: Two would go to the same place.
    """
    if folder is None:
        return [None] * len(models)
    taken: dict[str, str] = {}
    for model in models:
        if other := taken.get(name := Path(model).name):
            raise click.UsageError(f"{other} and {model} would both be written to {Path(folder, name)}")
        taken[name] = model
    if make:
        Path(folder).mkdir(parents=True, exist_ok=True)
    elif not Path(folder).exists():
        return [None] * len(models)
    return [Path(folder, name) for name in taken]


def done(jobs: Sequence[Job], at_once: int) -> Iterator[Told | Failed]:
    """What became of each, in order, as soon as it is known."""
    if at_once == 1:
        yield from (job.done() for job in jobs)
        return
    children = _Children()
    with ThreadPoolExecutor(at_once) as threads:
        try:
            yield from _begun(threads, children, jobs)
        except BaseException:  # an interruption: each child removes what it has begun to write
            children.stop()
            raise


def _begun(threads: ThreadPoolExecutor, children: _Children, jobs: Sequence[Job]) -> Iterator[Told | Failed]:
    try:
        return threads.map(children.done, jobs)
    except RuntimeError as error:  # Python has no other for a thread that does not start
        raise bnfold.ModelError("--jobs: the system does not let so many start") from error


class _Children:
    """A process for each job, so that one that is killed does not take others with it."""

    def __init__(self) -> None:
        self._context = get_context("spawn")  # a copy of this process would have the locks of its threads
        self._running: dict[BaseProcess, None] = {}
        self._is_stopped = False

    def done(self, job: Job) -> Told | Failed:
        from bnfold.optimization.results import Failed  # noqa: PLC0415 -- imports onnx, which --help must not

        if self._is_stopped:
            return Failed(job.model, f"{job.model}: interrupted", _INTERRUPTED)
        try:
            ours, theirs = self._context.Pipe(duplex=False)
            child = self._context.Process(target=_serve, args=(job, theirs))
            child.start()
        except OSError as error:
            return failed(job.model, bnfold.ModelError(not_started(error)), job.output)
        self._running[child] = None
        theirs.close()
        try:
            result: Told | Failed = ours.recv()
        except EOFError:
            result = Failed(job.model, f"{job.model}: its process was killed, for want of memory perhaps", 1)
        child.join()
        del self._running[child]
        return result

    def stop(self) -> None:
        """Interrupts those that run, and lets none begin."""
        self._is_stopped = True
        for child in list(self._running):
            child.terminate()


def _serve(job: Job, pipe: Connection) -> None:
    """The life of a child."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    warnings.simplefilter("ignore", RuntimeWarning)  # as `main` has it
    try:
        pipe.send(job.done())
    except KeyboardInterrupt:
        raise SystemExit(_INTERRUPTED) from None
