"""What other tools leave of the nodes and BatchNormalizations of models, beside what bnfold leaves.

    pip install . onnxslim onnxsim onnxoptimizer onnxscript
    python benchmarks/peers.py MODEL... > benchmarks/results/peers.md

Each tool runs once, as a process of its own and with the options that its documentation gives for a start. A result
from which ONNX Runtime computes other outputs (by more than 1e-3 of max |y| and 1e-5, on one random input) is marked.
Tools that are not installed are left out.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime as ort

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.generate import count_batchnorms

_ROOT = Path(__file__).resolve().parent.parent
_TIMEOUT = 600  # seconds for a tool and a model
_TOLERANCE = 1e-3  # of max |y|
_NEXT_TO_NOTHING = 1e-5  # what a detector of texts makes of noise
_SIZE = 64  # of a dimension that is open, but for the first
_SCRIPT = "import sys, onnx; from onnxscript import optimizer, rewriter; model = onnx.load(sys.argv[1])\n"
_TOOLS = {  # followed by a model and an output
    "bnfold": [str(_ROOT / "cli.py"), "optimize", "-q", "--force"],
    "onnxscript": ["-c", f"{_SCRIPT}onnx.save(rewriter.rewrite(optimizer.optimize(model)), sys.argv[2])"],
    "onnxslim": ["-m", "onnxslim"],
    "onnxsim": ["-m", "onnxsim"],
    "onnxoptimizer": [
        "-c",
        "import sys, onnx, onnxoptimizer as o; model = onnx.load(sys.argv[1])\n"
        "onnx.save(o.optimize(model, o.get_fuse_and_elimination_passes()), sys.argv[2])",
    ],
    "onnxruntime": [  # the level that writes standard operators only
        "-c",
        "import sys, onnxruntime as ort; o = ort.SessionOptions(); o.optimized_model_filepath = sys.argv[2]\n"
        "o.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_BASIC; o.log_severity_level = 4\n"
        "ort.InferenceSession(sys.argv[1], o, providers=['CPUExecutionProvider'])",
    ],
}
Arrays = list[npt.NDArray[np.float32]]


@dataclass(frozen=True)
class Left:
    """What is in a model, and whether its outputs are those of the original."""

    nodes: int
    batchnorms: int
    same: bool = True

    def __str__(self) -> str:
        return f"{self.nodes} / {self.batchnorms}{'' if self.same else ' **other outputs**'}"


def main() -> None:
    """Prints a table in Markdown."""
    tools = [tool for tool in _TOOLS if tool == "bnfold" or _version(tool)]
    print(", ".join(f"{tool} {_version(tool)}".strip() for tool in tools), end=".\n")
    print("Nodes / BatchNormalizations.\n")
    print(f"| model | as exported | {' | '.join(tools)} |\n| --- |{' ---: |' * (len(tools) + 1)}")
    for model in map(Path, sys.argv[1:]):
        print("|", " | ".join(_row(model, tools)), "|", flush=True)


def _row(model: Path, tools: Iterable[str]) -> Iterator[str]:
    """The name of a model, what it holds, and what each tool leaves."""
    inputs = _inputs(model)
    outputs = _run(model, inputs)
    yield model.stem
    yield str(_left(model))
    for tool in tools:
        with tempfile.TemporaryDirectory() as folder:
            after = Path(folder, "after.onnx")
            yield _outcome(tool, model, after) or str(_left(after, _same(outputs, _run(after, inputs))))


def _outcome(tool: str, model: Path, after: Path) -> str:
    """Runs a tool; empty if it has written a model."""
    files = [str(model), "-o", str(after)] if tool == "bnfold" else [str(model), str(after)]
    command = [sys.executable, *_TOOLS[tool], *files]
    try:
        result = subprocess.run(command, capture_output=True, check=False, timeout=_TIMEOUT)
    except subprocess.TimeoutExpired:
        return f"over {_TIMEOUT} s"
    if result.returncode or not after.exists():
        print(f"{tool}, {model.name}: {result.stderr.decode()[-300:]}", file=sys.stderr)
        return "failed"
    return ""


def _left(path: Path, same: bool = True) -> Left:
    return Left(len(onnx.load(path, load_external_data=False).graph.node), count_batchnorms(str(path)), same)


def _session(path: Path) -> ort.InferenceSession:
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 4
    return ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])


def _inputs(path: Path) -> dict[str, npt.NDArray[np.float32]]:
    """Random images, or what else the model declares; an open batch is 1."""
    random = np.random.default_rng(0)
    shapes = {value.name: value.shape for value in _session(path).get_inputs()}
    closed = {
        name: [size if isinstance(size, int) else (_SIZE if axis else 1) for axis, size in enumerate(shape)]
        for name, shape in shapes.items()
    }
    return {name: random.standard_normal(shape).astype(np.float32) for name, shape in closed.items()}


def _run(path: Path, inputs: dict[str, npt.NDArray[np.float32]]) -> Arrays | None:
    try:
        return list(_session(path).run(None, inputs))
    except Exception as error:  # ONNX Runtime's exceptions have no base of their own
        print(f"{path}: {error}", file=sys.stderr)
        return None


def _same(before: Arrays | None, after: Arrays | None) -> bool:
    if before is None or after is None:
        return False
    pairs = zip(before, after, strict=True)
    return all(np.abs(old - new).max() <= max(_TOLERANCE * np.abs(old).max(), _NEXT_TO_NOTHING) for old, new in pairs)


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return ""


if __name__ == "__main__":
    main()
