"""Latency of models as they come and as `bnfold optimize` leaves them, under ONNX Runtime, all its optimisations on.

    python benchmarks/latency.py MODEL... > benchmarks/results/latency.md

Both run in one process on one thread, A B A B, and the figures are medians of CPU time; so a busy machine slows both
alike, and the ratio means something. Inputs are random, of the declared shape (1 where it is left open).
"""

from __future__ import annotations

import sys
import tempfile
import time
from pathlib import Path
from statistics import median

import numpy as np
import onnxruntime as ort

import bnfold

_ROUNDS = 25


def session(path: Path) -> ort.InferenceSession:
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    return ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])


def latencies(before: Path, after: Path) -> tuple[float, float]:
    """Median milliseconds of CPU time of one run of each model."""
    sessions = session(before), session(after)
    random = np.random.default_rng(0)
    feeds = {}
    for entry in sessions[0].get_inputs():
        shape = [size if isinstance(size, int) else 1 for size in entry.shape]
        feeds[entry.name] = random.standard_normal(shape).astype(np.float16 if "16" in entry.type else np.float32)
    spent: tuple[list[float], list[float]] = ([], [])
    for _ in range(_ROUNDS):
        for one, times in zip(sessions, spent, strict=True):
            start = time.process_time()
            one.run(None, feeds)
            times.append(1e3 * (time.process_time() - start))
    return median(spent[0]), median(spent[1])


def row(model: Path, folder: Path) -> str:
    after = folder / model.name
    result = bnfold.optimize(model, after)
    count = result.plan.count
    batchnorms = sum(entry.is_batchnorm for entry in result.plan.entries)
    left = batchnorms - count(bnfold.Outcome.FOLDED) - count(bnfold.Outcome.REDUCED)
    nodes = f"{result.plan.nodes_before} → {result.plan.nodes_after}"
    verified = "yes" if result.verification is None or result.verification.passed else "NO"
    old, new = latencies(model, after)
    return f"| {model.stem} | {batchnorms} → {left} | {nodes} | {old:.2f} | {new:.2f} | {old / new:.2f} | {verified} |"


def main(models: list[str]) -> None:
    print(f"bnfold {bnfold.__version__}, onnxruntime {ort.__version__}, one thread, medians of {_ROUNDS} runs each\n")
    print("| model | BatchNormalizations | nodes | before, ms | after, ms | times as fast | verified |")
    print("| --- | ---: | ---: | ---: | ---: | ---: | --- |")
    with tempfile.TemporaryDirectory() as folder:
        for model in models:
            print(row(Path(model), Path(folder)), flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
