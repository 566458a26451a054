"""Where and on what a run measures: what `calibrate` and `drift` have in common."""

from __future__ import annotations

import os
from collections.abc import Iterator
from concurrent.futures import Executor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from bnfold.calibration.error import CalibrationError
from bnfold.calibration.measuring.batches import Data, Samples, inputs_of, prepare
from bnfold.calibration.measuring.cuts import Budget, default_budget
from bnfold.calibration.measuring.measure import CPU, Running, Subject
from bnfold.calibration.measuring.targets import ALL, Selection, Survey, survey
from bnfold.calibration.running.dask import dask_executor
from bnfold.calibration.running.engine import Engine
from bnfold.graph import Graph
from bnfold.limits import Deadline, Limits
from bnfold.model_io import Model, temporary_folder


@dataclass(frozen=True)
class Choice:
    """Which samples, in batches of what size, and which BatchNormalizations; see `calibrate`."""

    batch_size: int | None = None
    max_samples: int | None = None
    seed: int | None = None
    selection: Selection = ALL


@dataclass(frozen=True)
class Place:
    """Where programs run; see `calibrate`."""

    workers: int
    threads: int | None
    executor: Executor | None
    dask: str | None
    work_dir: str | os.PathLike[str] | None
    running: Running
    limits: Limits = field(default_factory=Limits)


@dataclass(frozen=True)
class Workplace:
    """What models are measured with: data, and where programs run."""

    samples: Samples
    engine: Engine
    budget: Budget
    running: Running

    def subject(self, model: Model, graph: Graph, survey: Survey) -> Subject:
        """A model, with its index, ready for what is to be measured of it."""
        return Subject(model, graph, self.samples, self.engine, self.running, survey)


@contextmanager
def measuring(
    model: Model, data: Data, choice: Choice, place: Place, memory: int | None = None, disk: int | None = None
) -> Iterator[tuple[Subject, Budget]]:
    """A model on its data, its BatchNormalizations ready to be measured; see `workplace`."""
    graph = Graph(model, assume_constant=True)
    with workplace(graph, data, choice, place, memory, disk) as found:
        yield found.subject(model, graph, survey(graph, choice.selection)), found.budget


@contextmanager
def workplace(
    graph: Graph, data: Data, choice: Choice, place: Place, memory: int | None = None, disk: int | None = None
) -> Iterator[Workplace]:
    """The data of a model, checked, and where programs run; files and processes are gone at the end.

    Args:
        graph: the model's.
        data: in any form.
        choice: which samples.
        place: where programs run.
        memory: bytes of activations that may be held; a share of what is free by default.
        disk: bytes beyond that in files.

    Raises:
        ModelError: data and model do not fit, or there is nothing to measure, or nothing to run on.
        TimeoutError, MemoryError: there was not enough.
    """
    deadline = Deadline.after(place.limits.seconds)
    _refuse_less(0, seed=choice.seed, cache_memory=memory, cache_disk=disk)
    _refuse_less(1, batch_size=choice.batch_size, max_samples=choice.max_samples)
    _refuse_less(1, workers=place.workers, threads=place.threads)
    with ExitStack() as stack:
        folder = stack.enter_context(_folder(place.work_dir))
        executor = place.executor if place.dask is None else stack.enter_context(dask_executor(place.dask))
        samples = prepare(data, inputs_of(graph), folder, choice.batch_size, choice.max_samples, choice.seed, deadline)
        free = default_budget(folder, place.limits)
        budget = Budget(free.memory if memory is None else memory, free.disk if disk is None else disk)
        engine = Engine(
            folder,
            memory=budget.memory,
            workers=place.workers,
            threads=place.threads or usable_cores(),
            executor=executor,
            limit=place.limits.allowed if place.running.provider == CPU else place.limits.memory,
            deadline=deadline,
        )
        yield Workplace(samples, stack.enter_context(engine), budget, place.running)


def _refuse_less(least: int, **numbers: int | None) -> None:
    for name, number in numbers.items():
        if number is not None and number < least:
            raise CalibrationError(f"{name} is {number}: it has to be {least} or more")


@contextmanager
def _folder(parent: str | os.PathLike[str] | None) -> Iterator[Path]:
    """A folder for files of one run, gone at its end."""
    with ExitStack() as stack:
        try:
            folder = stack.enter_context(temporary_folder(parent))
        except OSError as error:
            raise CalibrationError(f"no folder for temporary files: {error.strerror}: {parent}") from error
        yield folder


def usable_cores() -> int:
    """Cores that this process may use."""
    affinity = getattr(os, "sched_getaffinity", None)
    return len(affinity(0)) if affinity else os.cpu_count() or 1


def named(model: object, otherwise: str = "the model") -> str:
    """What to call a model in a report."""
    return os.fspath(model) if isinstance(model, str | os.PathLike) else otherwise
