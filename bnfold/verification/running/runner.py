"""Running models in a child process: a crash, a time-out or too little memory is a result, not our end."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import numpy.typing as npt

from bnfold import malloc, telemetry
from bnfold.confined import not_started
from bnfold.limits import Deadline, Limits, tells_of_a_lack
from bnfold.model_io import Model, staged, temporary_folder
from bnfold.model_io.tensors import all_tensors

Array = npt.NDArray[Any]
Feed = Mapping[str, Array]


CHILD = Path(__file__).with_name("child.py")
_PACKAGE = CHILD.parents[2]
_NO_ROOM = "no space left", "disk quota exceeded", "file too large"
_LARGE = 1 << 30  # bytes of weights; what one session frees, the next one may not find

CPU = ("CPUExecutionProvider",)
"""The execution provider that every ONNX Runtime has."""


@dataclass(frozen=True)
class Job:
    """A model to run on some feeds.

    Attributes:
        model: Where it is.
        feeds: Inputs by name.
        optimize: Whether ONNX Runtime may optimise the graph.
        threads: Threads for ONNX Runtime, 0 for as many as there are cores.
        providers: ONNX Runtime's execution providers.
        float64: Evaluate it here, operator by operator, in the place of ONNX Runtime.
        first: Stop after the first feed that works.
    """

    model: Path
    feeds: Sequence[Feed]
    optimize: bool = False
    threads: int = 0
    providers: Sequence[str] = CPU
    float64: bool = False
    first: bool = False


@dataclass(frozen=True)
class Outputs:
    """The outputs of one run, or why there are none.

    Attributes:
        arrays: The outputs by name.
        error: What went wrong.
        is_exhausted: Whether that was for want of time, memory or processes, so that it says nothing of the model.
    """

    arrays: dict[str, Array] = field(default_factory=dict)
    error: str = ""
    is_exhausted: bool = False


class Runner:
    """A folder for models and arrays, and child processes that work in it. Use it in a ``with`` statement."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._deadline = Deadline.after(limits.seconds)
        self._stack = ExitStack()
        self._feeds: dict[int, tuple[Feed, str]] = {}
        self._count = 0
        self._one_at_a_time = False

    def __enter__(self) -> Runner:
        self._folder = self._stack.enter_context(temporary_folder())
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.__exit__(kind, error, trace)

    def file_of(self, source: object, model: Model) -> Path:
        """A file with the model that ``source`` stands for.

        A path is read as it is. A `Model` was perhaps edited since it was read, so it is written for this.
        """
        if isinstance(source, Model) or model.path is None:
            return self.write(model)
        self._heed_size_of(model)
        return model.path

    def write(self, model: Model) -> Path:
        """A new file with the model as it is now."""
        self._heed_size_of(model)
        self._count += 1
        path = self._folder / f"model{self._count}.onnx"
        with staged(model, path):
            pass
        return path

    def _heed_size_of(self, model: Model) -> None:
        """A large model has a process for itself, whose memory is all given back at its end."""
        payloads = (model.payload(tensor) for tensor in all_tensors(model.proto))
        self._one_at_a_time |= sum(payload.nbytes for payload in payloads if payload) > _LARGE

    def run(self, jobs: Sequence[Job]) -> list[list[Outputs]]:
        """The outputs of each job for each of its feeds."""
        self._count += 1
        folder = self._folder / f"run{self._count}"
        folder.mkdir()
        plan = {
            "memory": self._limits.allowed if all(job.providers == CPU for job in jobs) else self._limits.memory,
            "one_at_a_time": self._one_at_a_time,
            "package": str(_PACKAGE.parent),
            "jobs": [self._described(job) for job in jobs],
        }
        (folder / "jobs.json").write_text(json.dumps(plan))
        environment = {**telemetry.environment(), **({} if self._one_at_a_time else malloc.ENVIRONMENT)}
        while (left := self._deadline.left) > 0 and (
            unfinished := [k for k in range(len(jobs)) if not (folder / f"job{k}.json").exists()]
        ):
            end, is_exhausted = _spawn(folder, left, environment)
            if end:
                current = folder / "current"
                at = int(current.read_text()) if current.exists() else unfinished[0]
                report = folder / f"job{at}.json"
                if not report.exists():
                    report.write_text(json.dumps({"error": end, "is_exhausted": is_exhausted}))
        return [_collected(folder, number, len(job.feeds)) for number, job in enumerate(jobs)]

    def _described(self, job: Job) -> dict[str, Any]:
        return {
            "model": str(job.model),
            "feeds": [str(self._written(feed)) for feed in job.feeds],
            "names": [(name, _odd_type(array)) for name, array in job.feeds[0].items()] if job.feeds else [],
            "optimize": job.optimize,
            "threads": job.threads,
            "providers": list(job.providers),
            "float64": job.float64,
            "first": job.first,
        }

    def _written(self, feed: Feed) -> str:
        if id(feed) not in self._feeds:
            path = self._folder / f"feed{len(self._feeds)}.npz"
            plain = (array.view(f"u{array.itemsize}") if _odd_type(array) else array for array in feed.values())
            arrays: Any = {str(number): array for number, array in enumerate(plain)}
            np.savez(path, **arrays)
            self._feeds[id(feed)] = (feed, str(path))  # keeps the feed, so that no other gets its id
        return self._feeds[id(feed)][1]


def _odd_type(array: Array) -> str:
    """The name of a type that numpy's files do not know, else nothing."""
    return array.dtype.name if array.dtype.kind == "V" else ""


def _spawn(folder: Path, seconds: float, environment: Mapping[str, str]) -> tuple[str, bool]:
    """Runs a child; how it ended if not well, and whether that was for want of time or memory."""
    # by its path: as a module it would import this package, which it has no need of
    command = [sys.executable, "-P", str(CHILD), str(folder)]
    try:
        with _lifeline() as stdin:
            done = subprocess.run(
                command, stdin=stdin, capture_output=True, timeout=seconds, check=False, env=environment
            )
    except subprocess.TimeoutExpired:
        return f"took more than {seconds:.3g} s", True
    except OSError as error:
        return not_started(error), True
    if done.returncode == 0:
        return "", False
    said = done.stderr.decode(errors="replace")
    has_no_room = any(words in said.lower() for words in _NO_ROOM)
    is_exhausted = done.returncode == -signal.SIGKILL or has_no_room or tells_of_a_lack(said)
    if done.returncode < 0:
        return f"the runtime crashed ({signal.Signals(-done.returncode).name})", is_exhausted
    return f"the runtime ended with code {done.returncode}: {''.join(said.strip().splitlines()[-1:])}", is_exhausted


@contextmanager
def _lifeline() -> Iterator[int]:
    """A pipe to read from that ends when this process does, however it ends."""
    ends = os.pipe()
    try:
        yield ends[0]
    finally:
        for end in ends:
            os.close(end)


def _collected(folder: Path, number: int, feeds: int) -> list[Outputs]:
    report = folder / f"job{number}.json"
    if not report.exists():
        return [Outputs(error="there was no time left for it", is_exhausted=True)] * feeds
    result = json.loads(report.read_text())
    if "error" in result:
        return [Outputs(error=result["error"], is_exhausted=result["is_exhausted"])] * feeds
    return [_outputs(folder / f"job{number}.{position}.npz", run) for position, run in enumerate(result["runs"])]


def _outputs(path: Path, run: Mapping[str, Any]) -> Outputs:
    if "error" in run:
        return Outputs(error=run["error"], is_exhausted=run["is_exhausted"])
    return Outputs(_arrays(path, run["names"]))


def _arrays(path: Path, names: Sequence[str]) -> dict[str, Array]:
    with np.load(path, allow_pickle=False) as arrays:
        return {name: arrays[str(number)] for number, name in enumerate(names)}
