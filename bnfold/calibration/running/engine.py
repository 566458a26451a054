"""Runs programs over batches, on whatever executor there is, and gives the results back in the order of the batches.

Statistics are merged from the results of single batches in that order, so they are the same bits on every engine.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import BrokenExecutor, Executor, Future
from pathlib import Path
from types import TracebackType

from bnfold.calibration.error import CalibrationError
from bnfold.calibration.running import worker
from bnfold.calibration.running.children import Children, WorkerDied
from bnfold.calibration.running.program import Batch, Cache, Outcome, Program
from bnfold.limits import NEVER, Deadline

_TRIES = 3
_BATCHES_AHEAD = 4
"""Batches in a task, for each thread of the worker: enough to hide what a task costs, few enough to show progress."""

Advance = Callable[[int], None]


class Engine:
    """Where programs run.

    Args:
        folder: for files that workers share.
        memory: bytes of activations that may stay in memory, if there is one worker of our own.
        workers: child processes, if there is no executor.
        threads: batches at a time, in all.
        executor: anything with `submit`; it stays open.
        limit: bytes that each process of our own may have, None for what there is.
        deadline: when all has to be done.
    """

    def __init__(
        self,
        folder: Path,
        *,
        memory: int = 0,
        workers: int = 1,
        threads: int = 1,
        executor: Executor | None = None,
        limit: int | None = None,
        deadline: Deadline = NEVER,
    ) -> None:
        self._executor = executor or Children(workers, limit)
        self.deadline = deadline
        self._is_ours = executor is None
        self._stays = self._is_ours and workers == 1  # tasks meet what earlier ones left in memory
        self._threads = max(1, threads // workers) if self._is_ours else 1
        self._ahead = workers + 1 if self._is_ours else 64
        self.cache = Cache(str(folder), memory if self._stays else 0)
        self.folder = folder

    def __enter__(self) -> Engine:
        return self

    def __exit__(
        self, _kind: type[BaseException] | None, error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        if self._is_ours:
            self._executor.shutdown(wait=error is None, cancel_futures=error is not None)

    def run(self, program: Program, batches: Sequence[Batch], advance: Advance | None = None) -> Iterator[Outcome]:
        """The outcome of every batch, in order.

        Raises:
            CalibrationError: ONNX Runtime refuses or crashes.
            TimeoutError: the time is over.
            MemoryError: there was not enough for ONNX Runtime.
        """
        size = self._threads * _BATCHES_AHEAD if self._threads > 1 else _BATCHES_AHEAD
        tasks = [batches[at : at + size] for at in range(0, len(batches), size)]
        futures: dict[int, Future[list[Outcome]]] = {}
        try:
            for number, task in enumerate(tasks):
                for ahead in range(number, min(number + self._ahead, len(tasks))):
                    if ahead not in futures:
                        futures[ahead] = self._submit(program, tasks[ahead])
                outcomes = self._result(futures.pop(number), program, task)
                if advance is not None:
                    advance(sum(outcome.rows for outcome in outcomes))
                yield from outcomes
        finally:
            for future in futures.values():
                future.cancel()

    def forget(self, names: Sequence[str], batches: Sequence[Batch]) -> None:
        """Removes activations that no task needs any more. (A worker of our own does so itself, as it goes.)"""
        if not self.cache.memory:
            for batch in batches:
                for name in names:
                    with contextlib.suppress(OSError):
                        worker.path(self.cache, batch, name).unlink(missing_ok=True)

    def _submit(self, program: Program, batches: Sequence[Batch]) -> Future[list[Outcome]]:
        return self._executor.submit(worker.run, program, batches, self.cache, self._threads)

    def _result(self, future: Future[list[Outcome]], program: Program, batches: Sequence[Batch]) -> list[Outcome]:
        for _ in range(_TRIES - 1):
            try:
                return self._awaited(future)
            except WorkerDied:
                if self._stays:  # and with it what it held in memory
                    break
                future = self._submit(program, batches)
            except BrokenExecutor as error:
                raise CalibrationError(f"the executor broke: {error}") from error
        try:
            return self._awaited(future)
        except WorkerDied as died:
            if died.is_for_memory:
                raise MemoryError(str(died)) from died
            raise CalibrationError(f"the process that ran ONNX Runtime died: {died}") from died

    def _awaited(self, future: Future[list[Outcome]]) -> list[Outcome]:
        self.deadline.heed()
        return future.result(None if self.deadline == NEVER else max(self.deadline.left, 0.0))
