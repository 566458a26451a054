"""CPU time of `optimize` with verification, against loading and running both models once.

python benchmarks/verify_overhead.py MODEL.onnx
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

RUN = """
import sys, numpy as np, onnxruntime as ort
for path in sys.argv[1:]:
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.intra_op_num_threads = 1
    session = ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    entry = session.get_inputs()[0]
    session.run(None, {entry.name: np.zeros(entry.shape, np.float32)})
"""


def cpu_seconds(*command: str) -> float:
    """User and system time of a command, its children included; the least of three."""
    times = []
    for _ in range(3):
        before = os.times()
        subprocess.run([sys.executable, *command], check=True, stdout=subprocess.DEVNULL)
        after = os.times()
        times.append(after.children_user + after.children_system - before.children_user - before.children_system)
    return min(times)


def main(model: str) -> None:
    os.environ["OPENBLAS_NUM_THREADS"] = "1"
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)  # an installed package is not compiled at each start
    with tempfile.TemporaryDirectory() as folder:
        folded = str(Path(folder) / "folded.onnx")
        optimize = [str(Path(__file__).parents[1] / "cli.py"), "optimize", model, "-o", folded]
        plain = cpu_seconds(*optimize, "--no-verify")
        verified = cpu_seconds(*optimize)
        both = cpu_seconds("-c", RUN, model, folded)
    print(f"load and run both models: {both:.2f} s; optimize --no-verify: {plain:.2f} s; optimize: {verified:.2f} s")
    print(f"ratio {verified / both:.2f}")


if __name__ == "__main__":
    main(sys.argv[1])
