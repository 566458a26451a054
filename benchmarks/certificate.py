"""What a certificate costs: writing it, checking it statically, and checking it with the verification repeated.

python benchmarks/certificate.py MODEL.onnx…

A model of one layer, and one of two, are made up and measured first.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import onnx
from onnx import helper, numpy_helper

CLI = Path(__file__).parents[1] / "cli.py"


def layers(count: int) -> onnx.ModelProto:
    """So many layers of Conv and BatchNormalization, with 64 channels."""
    random = np.random.default_rng(0)
    nodes, weights, value = [], [], "x"
    for k in range(count):
        weights.append(numpy_helper.from_array(random.normal(size=(64, 64, 3, 3)).astype(np.float32), f"w{k}"))
        names = [f"{part}{k}" for part in ("scale", "bias", "mean", "var")]
        weights += [numpy_helper.from_array(random.uniform(0.5, 2, 64).astype(np.float32), name) for name in names]
        nodes.append(helper.make_node("Conv", [value, f"w{k}"], [f"c{k}"], f"conv{k}", pads=[1, 1, 1, 1]))
        nodes.append(helper.make_node("BatchNormalization", [f"c{k}", *names], [f"y{k}"], f"bn{k}"))
        value = f"y{k}"
    shape = [1, 64, 56, 56]
    ends = [helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, shape) for name in ("x", value)]
    graph = helper.make_graph(nodes, "layers", ends[:1], ends[1:], weights)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def measured(*command: str | Path) -> tuple[float, float]:
    """CPU seconds and peak memory in MB of a command; the least of three."""
    times, peaks = [], []
    for _ in range(3):
        process = subprocess.Popen([sys.executable, CLI, *command], stdout=subprocess.DEVNULL)
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        assert process.returncode == 0, command
        times.append(usage.ru_utime + usage.ru_stime)
        peaks.append(usage.ru_maxrss / 1000)
    return min(times), min(peaks)


def row(name: str, model: Path, folder: Path) -> str:
    """One line of the table."""
    out, certificate = folder / "out.onnx", folder / "out.json"
    plain, _ = measured("optimize", model, "-o", out)
    written, _ = measured("optimize", model, "-o", out, "--certificate", certificate)
    static, memory = measured("verify", "--certificate", certificate, "--static")
    again, _ = measured("verify", "--certificate", certificate)
    record = json.loads(certificate.read_text())
    facts = record["static"]["parameters"], record["static"]["largest_ulp"]
    figures = [f"{written - plain:.2f}", f"{static:.2f}", f"{memory:.0f}", f"{again:.2f}"]
    return " | ".join([f"| {name}", str(facts[0]), f"{facts[1]:.3f}", *figures]) + " |"


def main(models: list[str]) -> None:
    os.environ["OPENBLAS_NUM_THREADS"] = "1"
    print("| model | parameters | most ULP | writing, CPU s | static check, CPU s | MB | full check, CPU s |")
    print("| --- | --- | --- | --- | --- | --- | --- |")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for count, title in ((1, "one Conv and BatchNormalization"), (2, "two of them")):
            onnx.save(layers(count), folder / "layers.onnx")
            print(row(title, folder / "layers.onnx", folder), flush=True)
        for model in models:
            print(row(Path(model).stem, Path(model), folder), flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
