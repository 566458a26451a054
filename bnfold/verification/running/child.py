"""Runs models in a process of its own: ``python child.py FOLDER``. Imports next to nothing of this package, to start
fast; only what ONNX Runtime cannot run is evaluated by it.

The folder holds ``jobs.json`` and the feeds; every result is a file in it, written when it is there, so that a crash
takes nothing with it but the job at work. Numbers of tensors tell feeds and results from each other. Standard input
ends when the parent does, and then so does this.
"""

from __future__ import annotations

import json
import os
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]
Run = Callable[[Mapping[str, Array]], list[Any]]


def main(folder: Path) -> None:
    """Works through the jobs that have no result yet, or does one of them."""
    threading.Thread(target=_end_with_parent, daemon=True).start()
    plan = json.loads((folder / "jobs.json").read_text())
    sys.path.insert(0, plan["package"])
    from bnfold.limits import held_to  # noqa: PLC0415 -- known from here on

    with held_to(plan["memory"]):
        _work_through(plan, folder)


def _work_through(plan: Mapping[str, Any], folder: Path) -> None:
    for number, job in enumerate(plan["jobs"]):
        report = folder / f"job{number}.json"
        if not report.exists():
            (folder / "current").write_text(str(number))
            report.write_text(json.dumps(_work(folder, number, job)))
            if plan["one_at_a_time"]:
                break


def _end_with_parent() -> None:
    os.read(sys.stdin.fileno(), 1)
    os._exit(1)


def _work(folder: Path, number: int, job: Mapping[str, Any]) -> dict[str, Any]:
    """Runs one model on its feeds; an error text in the place of what did not work."""
    try:
        names, run = _whole(job) if job["float64"] else _session(job)
    except Exception as error:
        return _failed(error)
    runs: list[dict[str, Any]] = []
    for position, feed in enumerate(job["feeds"]):
        try:
            with np.load(folder / feed, allow_pickle=False) as arrays:
                results = run(_given(dict(arrays), job["names"]))
        except Exception as error:
            runs.append(_failed(error))
            continue
        flat = [entry for name, value in zip(names, results, strict=True) for entry in _flat(name, value)]
        arrays_by_number: Any = {str(k): _plain(array) for k, (_, array) in enumerate(flat)}
        np.savez(folder / f"job{number}.{position}.npz", **arrays_by_number)
        runs.append({"names": [name for name, _ in flat]})
        if job["first"]:
            break
    return {"runs": runs}


def _session(job: Mapping[str, Any]) -> tuple[list[str], Run]:
    import onnxruntime as ort  # noqa: PLC0415 -- only one of the two runtimes is needed

    ort.set_default_logger_severity(4)
    options = ort.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = job["threads"]
    options.enable_cpu_mem_arena = False
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    levels = ort.GraphOptimizationLevel
    options.graph_optimization_level = levels.ORT_ENABLE_ALL if job["optimize"] else levels.ORT_DISABLE_ALL
    session = ort.InferenceSession(job["model"], options, providers=job["providers"], enable_fallback=0)
    if lacking := set(job["providers"]) - set(session.get_providers()):  # it says so on no other way
        raise RuntimeError(f"ONNX Runtime did not use {', '.join(sorted(lacking))}")
    return [output.name for output in session.get_outputs()], lambda feed: session.run(None, dict(feed))


def _whole(job: Mapping[str, Any]) -> tuple[list[str], Run]:
    from bnfold.verification.float64.whole import Whole  # noqa: PLC0415 -- see above

    whole = Whole(Path(job["model"]))
    return whole.names, whole.run


def _given(arrays: Mapping[str, Array], names: Sequence[tuple[str, str]]) -> dict[str, Array]:
    """The feed under the names and types of the inputs: numpy's files do not know bfloat16."""
    feed = {}
    for number, (name, dtype) in enumerate(names):
        array = arrays[str(number)]
        feed[name] = array.view(_dtype(dtype)) if dtype else array
    return feed


def _dtype(name: str) -> np.dtype[Any]:
    import ml_dtypes  # noqa: PLC0415 -- seldom needed

    dtype: np.dtype[Any] = np.dtype(getattr(ml_dtypes, name))
    return dtype


def _plain(array: Array) -> Array:
    """An array that numpy can write without pickling."""
    if array.dtype.kind == "V":
        return array.astype(np.float32)
    return array.astype(str) if array.dtype.kind == "O" else array


def _flat(name: str, value: Any) -> list[tuple[str, Array]]:
    """The arrays in an output: sequences and maps hold several."""
    if isinstance(value, Mapping):
        return [entry for key, part in value.items() for entry in _flat(f"{name}[{key}]", part)]
    if isinstance(value, list):
        return [entry for key, part in enumerate(value) for entry in _flat(f"{name}[{key}]", part)]
    return [] if value is None else [(name, np.asarray(value))]


def _failed(error: Exception) -> dict[str, Any]:
    from bnfold.limits import tells_of_a_lack  # noqa: PLC0415 -- see above

    return {"error": _text(error), "is_exhausted": isinstance(error, MemoryError) or tells_of_a_lack(str(error))}


def _text(error: Exception) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())}"[:500]


if __name__ == "__main__":
    main(Path(sys.argv[1]))
