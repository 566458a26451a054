"""What runs where ONNX Runtime runs: in a child process, on an executor's worker, on another machine.

Tasks are stateless: what they need is in files, and what they leave is in files under names of its own, so one that
runs twice, or dies and is run again, does no harm. Sessions take one thread each (the kernel of BatchNormalization
uses no more); threads share a session and take batches in turn.
"""

from __future__ import annotations

import math
import secrets
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from hashlib import sha256
from pathlib import Path

import numpy as np
import onnxruntime as ort

from bnfold.calibration.error import CalibrationError
from bnfold.calibration.running.program import Batch, Cache, Described, Measured, Outcome, Program, Reading
from bnfold.calibration.running.scratch import save
from bnfold.calibration.running.selftest import check_runtime
from bnfold.limits import tells_of_a_lack

_FATAL = 4  # what is less is raised, and ONNX Runtime would print it too


def run(program: Program, batches: Sequence[Batch], cache: Cache | None, threads: int = 1) -> list[Outcome]:
    """Runs a program over some batches.

    Raises:
        CalibrationError: ONNX Runtime refuses the graph or the data.
        MemoryError: there was not enough for it.
    """
    if program.trains:
        check_runtime()
    # an arena would not give back what cached activations leave
    session = _session(program.path, program.providers, arena=not program.keeps)
    if threads == 1 or len(batches) == 1:
        return [_run(session, program, batch, cache) for batch in batches]
    with ThreadPoolExecutor(threads) as pool:
        return list(pool.map(lambda batch: _run(session, program, batch, cache), batches))


def _run(session: ort.InferenceSession, program: Program, batch: Batch, cache: Cache | None) -> Outcome:
    feeds = {name: _loaded(batch.files[name]) for name in program.feeds}
    if cache is not None:
        feeds |= {name: _take(cache, batch, name) for name in program.reads}
    wanted = _wanted(program)
    try:
        results = dict(zip(wanted, session.run_with_ort_values(wanted, feeds), strict=True))
    except Exception as error:  # ONNX Runtime has a dozen classes of its own
        raise _told("ONNX Runtime failed", error) from error
    spilled = 0
    if cache is not None:
        for name in program.frees:
            _drop(cache, batch, name)
        spilled = sum(_put(cache, batch, name, results[name]) for name in program.keeps)
    measured = tuple(_measured(reading, results) for reading in program.readings)
    described = tuple(_described(name, results[name]) for name in program.describes if results[name].is_tensor())
    return Outcome(batch.number, batch.rows, measured, described, spilled)


def _described(name: str, value: ort.OrtValue) -> Described:
    kind = value.data_type().removeprefix("tensor(").removesuffix(")")
    return Described(name, kind, tuple(value.shape()))


def _wanted(program: Program) -> list[str]:
    readings = (name for r in program.readings for name in (r.shape, r.mean, r.var) if name)
    return list(dict.fromkeys([*program.keeps, *program.describes, *readings]))


def _measured(reading: Reading, results: dict[str, ort.OrtValue]) -> Measured:
    rows, channels, *size = results[reading.shape].numpy().tolist()
    count = math.prod(size) if reading.by_sample else rows * math.prod(size)
    if not rows:
        count = 0
    mean = results[reading.mean].numpy().reshape(-1, channels)
    var = results[reading.var].numpy().reshape(-1, channels) if reading.var else np.zeros_like(mean)
    return Measured(reading.target, count, mean, var)


_last: tuple[str, ort.InferenceSession] | None = None
_lock = threading.Lock()


def _session(path: str, providers: Sequence[str], *, arena: bool) -> ort.InferenceSession:
    """A session of one thread; the last one is kept, since the next task is mostly of the same program."""
    global _last  # noqa: PLW0603 -- one session per process is the point
    with _lock:
        if _last is None or _last[0] != path:
            _last = None  # before the new one takes its memory
            _last = path, _new_session(path, providers, arena)
        return _last[1]


def _new_session(path: str, providers: Sequence[str], arena: bool) -> ort.InferenceSession:
    options = ort.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = _FATAL
    options.enable_cpu_mem_arena = arena
    # by default the little Shape nodes run last, and keep every activation alive until then
    options.execution_order = ort.ExecutionOrder.PRIORITY_BASED
    missing = [name for name in providers if name not in ort.get_available_providers()]
    if missing:
        has = ", ".join(ort.get_available_providers())
        raise CalibrationError(f"this ONNX Runtime has no {missing[0]}; it has {has}")
    try:
        return ort.InferenceSession(path, options, providers=list(providers))
    except Exception as error:
        raise _told("ONNX Runtime does not take the model", error) from error


# --- the cache of activations ------------------------------------------------------------------------------

_held: dict[tuple[str, int, str], tuple[ort.OrtValue, int]] = {}
_held_bytes = 0


def _put(cache: Cache, batch: Batch, name: str, value: ort.OrtValue) -> int:
    """Keeps an activation; returns how many bytes went to a file."""
    global _held_bytes  # noqa: PLW0603 -- of this process
    has_size = hasattr(value, "tensor_size_in_bytes")  # not before onnxruntime 1.23
    size = int(value.tensor_size_in_bytes() if has_size else value.numpy().nbytes)
    with _lock:
        if _held_bytes + size <= cache.memory:
            _held[cache.folder, batch.number, name] = value, size
            _held_bytes += size
            return 0
    target = path(cache, batch, name)
    partial = target.with_name(f"{target.name}.{secrets.token_hex(8)}")  # on machines that share the folder
    save(partial, value.numpy())
    partial.replace(target)  # whole or not at all: a task may run twice, and be killed
    return size


def _take(cache: Cache, batch: Batch, name: str) -> ort.OrtValue:
    with _lock:
        held = _held.get((cache.folder, batch.number, name))
    if held is not None:
        return held[0]
    return _loaded(path(cache, batch, name))


def _loaded(file: str | Path) -> ort.OrtValue:
    """An array on disk; ONNX Runtime reads it where numpy put it."""
    return ort.OrtValue.ortvalue_from_numpy(np.load(file, allow_pickle=False))


def _drop(cache: Cache, batch: Batch, name: str) -> None:
    global _held_bytes  # noqa: PLW0603 -- of this process
    with _lock:
        held = _held.pop((cache.folder, batch.number, name), None)
        _held_bytes -= held[1] if held else 0
    if held is None and cache.memory:  # without memory, another process may still need the file
        path(cache, batch, name).unlink(missing_ok=True)


def path(cache: Cache, batch: Batch, name: str) -> Path:
    return Path(cache.folder) / f"{batch.number}-{sha256(name.encode()).hexdigest()[:24]}.npy"


def _told(what: str, error: Exception) -> Exception:
    text = " ".join(str(error).split())
    if isinstance(error, MemoryError) or tells_of_a_lack(text):
        return MemoryError(text)
    return CalibrationError(f"{what}: {_short(text)}")


def _short(text: str) -> str:
    return text if len(text) < 400 else f"{text[:150]} … {text[-250:]}"  # the reason stands at either end
