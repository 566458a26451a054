"""An executor over child processes that may die: ONNX Runtime crashes take a child along, and nothing else.

`ProcessPoolExecutor` would do, but for two things: it imports the caller's main module again, which a script without
`if __name__ == "__main__"` does not survive, and one dead process breaks it for good.
"""

from __future__ import annotations

import contextlib
import os
import pickle
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from concurrent.futures import Executor, Future
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import onnxruntime as ort

from bnfold import malloc, telemetry
from bnfold.calibration.error import CalibrationError
from bnfold.confined import not_started
from bnfold.limits import held_to

_FATAL = 4


class WorkerDied(Exception):
    """The process that ran a task ended without an answer; the text says how.

    Attributes:
        is_for_memory: whether it may have been for want of memory: the system killed it.
    """

    def __init__(self, code: int) -> None:
        super().__init__(_how(code))
        self.is_for_memory = code == -signal.SIGKILL


class Children(Executor):
    """Child processes, each started at its first task, and again after it has died.

    Args:
        count: how many.
        memory: bytes that each of them may have, None for what there is.
    """

    def __init__(self, count: int, memory: int | None = None) -> None:
        self._tasks: SimpleQueue[tuple[Future[Any], bytes] | None] = SimpleQueue()
        self._children = [_Child(memory) for _ in range(count)]
        self._threads = [threading.Thread(target=self._serve, args=(child,), daemon=True) for child in self._children]
        try:
            for thread in self._threads:
                thread.start()
        except RuntimeError as error:
            self._threads = [thread for thread in self._threads if thread.is_alive()]
            self.shutdown()
            raise CalibrationError(f"the system does not let {count} workers start") from error

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        """Runs `fn`, which has to be importable by name, in a child."""
        future: Future[Any] = Future()
        self._tasks.put((future, pickle.dumps((fn, args, kwargs))))
        return future

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Ends the children: after their tasks if `wait`, at once if not."""
        while cancel_futures and not self._tasks.empty():
            if task := self._tasks.get():
                task[0].cancel()
        for _ in self._threads:
            self._tasks.put(None)
        if not wait:
            for child in self._children:
                child.end()
        for thread in self._threads:
            thread.join()

    def processes(self) -> list[int]:
        """The ids of the living children."""
        return [child.process.pid for child in self._children if child.process is not None]

    def _serve(self, child: _Child) -> None:
        while task := self._tasks.get():
            future, call = task
            if not future.set_running_or_notify_cancel():
                continue
            try:
                result, error = child.ask(call)
            except Exception as failed:  # whatever it is, somebody waits for it
                child.end()
                result, error = None, failed
            if error is not None:
                future.set_exception(error)
            else:
                future.set_result(result)
        child.end()


class _Child:
    def __init__(self, memory: int | None) -> None:
        self._memory = memory
        self.process: subprocess.Popen[bytes] | None = None

    def ask(self, call: bytes) -> tuple[Any, BaseException | None]:
        if self.process is None:
            self.process = _start(self._memory)
        process = self.process
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            pickle.dump(call, process.stdin)  # bytes in bytes: see serve
            process.stdin.flush()
            answer: tuple[Any, BaseException | None] = pickle.load(process.stdout)
        except (EOFError, OSError, pickle.UnpicklingError, ValueError):
            code = process.wait()
            self.end()
            raise WorkerDied(code) from None
        return answer

    def end(self) -> None:
        process, self.process = self.process, None
        if process is not None:
            process.kill()  # it holds nothing that is not in a file, whole
            process.wait()
            for stream in (process.stdin, process.stdout):
                with contextlib.suppress(OSError):
                    stream and stream.close()


def _start(memory: int | None) -> subprocess.Popen[bytes]:
    """A process that imports this very package, wherever it was found."""
    folder = str(Path(malloc.__file__).parent.parent)
    paths = [folder, *filter(None, [os.environ.get("PYTHONPATH")])]
    own = {"PYTHONPATH": os.pathsep.join(paths), "OPENBLAS_NUM_THREADS": "1"}
    try:
        return subprocess.Popen(
            [sys.executable, "-c", f"from bnfold.calibration.running.children import serve; serve({memory})"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={**telemetry.environment(), **malloc.ENVIRONMENT, **own},
        )
    except OSError as error:
        raise CalibrationError(not_started(error)) from error


def _how(code: int) -> str:
    if code >= 0:
        return f"it ended with exit code {code}"
    with contextlib.suppress(ValueError):
        return f"it was ended by {signal.Signals(-code).name}"
    return f"it was ended by signal {-code}"


def serve(memory: int | None) -> None:
    """What a child does: answers calls until its parent is gone."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent ends it
    ort.set_default_logger_severity(_FATAL)  # what is less is raised, and it would print it too, in colours
    calls: SimpleQueue[bytes] = SimpleQueue()
    threading.Thread(target=_listen, args=(calls,), daemon=True).start()
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "wb")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # what anybody prints must not mix with answers
    with held_to(memory):
        while True:
            answer = _answer(calls.get())
            try:
                pickle.dump(answer, answers, protocol=pickle.HIGHEST_PROTOCOL)
                answers.flush()
            except BrokenPipeError:  # the parent is gone, and the thread that listens to it has not heard yet
                os._exit(0)


def _answer(call: bytes) -> tuple[Any, BaseException | None]:
    try:
        function, args, kwargs = pickle.loads(call)  # if it cannot, that is an error of this task alone
        return function(*args, **kwargs), None
    except MemoryError as error:
        return None, MemoryError(str(error))  # numpy has one of its own
    except Exception as error:
        return None, error


def _listen(calls: SimpleQueue[bytes]) -> None:
    """Ends the process as soon as its parent is gone, in the middle of a call too."""
    try:
        while True:
            calls.put(pickle.load(sys.stdin.buffer))  # from our own parent
    finally:
        os._exit(0)
