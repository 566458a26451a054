"""Which samples a run measures, and where: what `calibrate` and `drift` have in common."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from concurrent.futures import Executor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypedDict

from bnfold.calibration.error import CalibrationError
from bnfold.calibration.measuring.batches import Data, Input, Samples, inputs_of, prepare
from bnfold.calibration.measuring.cuts import Budget, default_budget
from bnfold.calibration.measuring.measure import CPU, Report, Running, Subject
from bnfold.calibration.measuring.targets import ALL, Selection, Survey, survey
from bnfold.calibration.running.dask import dask_executor
from bnfold.calibration.running.engine import Engine
from bnfold.graph import Graph
from bnfold.limits import Deadline, Limits
from bnfold.model_io import Model, temporary_folder


class RunArguments(TypedDict, total=False):
    """The attributes of `RunOptions` as keyword arguments, which every verb that measures takes."""

    batch_size: int | None
    max_samples: int | None
    seed: int | None
    workers: int
    threads: int | None
    executor: Executor | None
    dask: str | None
    work_dir: str | os.PathLike[str] | None
    provider: str
    arithmetic: bool
    timeout: float
    memory: int | None
    progress: Report | None


@dataclass(frozen=True)
class RunOptions:
    """Which samples are measured, and where.

    Attributes:
        batch_size: Samples in a batch; 32 if neither this nor the model says.
        max_samples: Measure no more samples than this, spread evenly over the data.
        seed: Draw them at random instead.
        workers: Child processes that ONNX Runtime runs in. With one, activations stay in its memory.
        threads: Batches at a time, in all; by default as many as there are cores for this process.
        executor: Runs tasks instead of child processes; its workers need `work_dir` under the same path.
        dask: The address of a Dask scheduler, to run on that cluster.
        work_dir: For files; a temporary folder in it is removed at the end.
        provider: An execution provider of ONNX Runtime; off the CPU, statistics are measured in arithmetic.
        arithmetic: Do that on the CPU too.
        timeout: Seconds for all of it, from here on.
        memory: Bytes for each process that ONNX Runtime runs in; by default what there is.
        progress: Called with what is being done, samples done and samples in all.
        deadline: When the time is over.
    """

    batch_size: int | None = None
    max_samples: int | None = None
    seed: int | None = None
    workers: int = 1
    threads: int | None = None
    executor: Executor | None = None
    dask: str | None = None
    work_dir: str | os.PathLike[str] | None = None
    provider: str = CPU
    arithmetic: bool = False
    timeout: float = 3600.0
    memory: int | None = None
    progress: Report | None = None
    deadline: Deadline = field(init=False, compare=False)

    def __post_init__(self) -> None:
        """Checks the numbers, and looks at the clock.

        Raises:
            CalibrationError: one of them is too small.
        """
        refuse_less(0, seed=self.seed)
        refuse_less(1, batch_size=self.batch_size, max_samples=self.max_samples)
        refuse_less(1, workers=self.workers, threads=self.threads)
        object.__setattr__(self, "deadline", Deadline.after(self.timeout))

    @property
    def running(self) -> Running:
        """How programs are run."""
        return Running(self.provider, self.arithmetic, self.progress)


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
    model: Model,
    data: Data,
    options: RunOptions,
    selection: Selection = ALL,
    memory: int | None = None,
    disk: int | None = None,
) -> Iterator[tuple[Subject, Budget]]:
    """A model on its data, its BatchNormalizations ready to be measured; see `workplace`."""
    options.deadline.heed()
    graph = Graph(model, assume_constant=True)
    with workplace(inputs_of(graph), data, options, memory, disk) as found:
        yield found.subject(model, graph, survey(graph, selection)), found.budget


@contextmanager
def workplace(
    inputs: Sequence[Input], data: Data, options: RunOptions, memory: int | None = None, disk: int | None = None
) -> Iterator[Workplace]:
    """The data of a model, checked, and where programs run; files and processes are gone at the end.

    Args:
        inputs: of the model.
        data: in any form.
        options: which samples, and where programs run.
        memory: bytes of activations that may be held; a share of what is free by default.
        disk: bytes beyond that in files.

    Raises:
        ModelError: data and model do not fit, or there is nothing to measure, or nothing to run on.
        TimeoutError, MemoryError: there was not enough.
    """
    deadline, limits = options.deadline, Limits(options.timeout, options.memory)
    refuse_less(0, cache_memory=memory, cache_disk=disk)
    deadline.heed()  # of a million outputs, the index takes seconds as well
    with ExitStack() as stack:
        folder = stack.enter_context(_folder(options.work_dir))
        executor = options.executor if options.dask is None else stack.enter_context(dask_executor(options.dask))
        samples = prepare(data, inputs, folder, options.batch_size, options.max_samples, options.seed, deadline)
        free = default_budget(folder, limits)
        budget = Budget(free.memory if memory is None else memory, free.disk if disk is None else disk)
        engine = Engine(
            folder,
            memory=budget.memory,
            workers=options.workers,
            threads=options.threads or usable_cores(),
            executor=executor,
            limit=limits.allowed if options.provider == CPU else limits.memory,
            deadline=deadline,
        )
        yield Workplace(samples, stack.enter_context(engine), budget, options.running)


def refuse_less(least: int, **numbers: int | None) -> None:
    """Checks numbers that a user gave.

    Raises:
        CalibrationError: one of them is less.
    """
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
