"""Models as they come and as `bnfold optimize` leaves them, under ONNX Runtime with all its optimisations.

    python benchmarks/latency.py MODEL... > benchmarks/results/latency.md

For each model: the nodes of the graph that ONNX Runtime makes of it, how many of its fused operators are in it, and the
CPU time of one run. None may be worse after the fold; exits with 1 if a count is. Both models run in one process on one
thread, A B A B, and the figures are medians of CPU time; so a busy machine slows both alike, and the ratio means
something. Inputs are random, of the declared shape; an open size is 1 for a batch, else the first of a few that runs.
"""

from __future__ import annotations

import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import numpy as np
import onnx
import onnxruntime as ort

import bnfold

_ROUNDS = 25
_SIZES = (224, 320, 96, 48, 1)
# what ONNX Runtime makes of several operators; FusedConv too, but that is a Conv and its activation
_FUSED = frozenset(
    (
        "Attention",
        "BiasGelu",
        "BiasSoftmax",
        "FastGelu",
        "FusedConv",
        "FusedGemm",
        "FusedMatMul",
        "Gelu",
        "LayerNormalization",
        "MultiHeadAttention",
        "QuickGelu",
        "SimplifiedLayerNormalization",
        "SkipLayerNormalization",
    )
)


@dataclass(frozen=True)
class Optimized:
    """What ONNX Runtime makes of a model."""

    nodes: int
    fused: Counter[str]
    session: ort.InferenceSession


def optimized(path: Path, folder: Path) -> Optimized:
    """The graph is that of its extended level: the last one changes layouts, for this processor alone."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 4
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
    options.optimized_model_filepath = str(folder / "optimized.onnx")
    ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    graph = onnx.load(folder / "optimized.onnx").graph
    fused = Counter(name for name in map(_fused_name, graph.node, [_weights(graph)] * len(graph.node)) if name)
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_ALL
    options.optimized_model_filepath = ""
    session = ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    return Optimized(sum(1 for _ in _nodes(graph)), fused, session)


def _weights(graph: onnx.GraphProto) -> frozenset[str]:
    return frozenset(tensor.name for tensor in graph.initializer)


def _fused_name(node: onnx.NodeProto, weights: frozenset[str]) -> str | None:
    """A FusedMatMul scales or transposes an operand; where that is a weight, it is better done in the weight itself."""
    in_vain = node.op_type == "FusedMatMul" and weights & set(node.input)
    return node.op_type if node.op_type in _FUSED and not in_vain else None


def _nodes(graph: onnx.GraphProto) -> Iterator[onnx.NodeProto]:
    for node in graph.node:
        yield node
        for attribute in node.attribute:
            for body in (attribute.g, *attribute.graphs):
                yield from _nodes(body)


def feeds(session: ort.InferenceSession) -> dict[str, np.ndarray]:
    """Inputs of sizes with which the model runs."""
    for size in _SIZES:
        made = {entry.name: _random(entry, size) for entry in session.get_inputs()}
        try:
            session.run(None, made)
        except Exception:
            continue
        return made
    raise ValueError("it runs with none of the sizes")


def _random(entry: ort.NodeArg, size: int) -> np.ndarray:
    shape = [
        given if isinstance(given, int) and given > 0 else 1 if axis == 0 else size
        for axis, given in enumerate(entry.shape)
    ]
    kind = {"tensor(float16)": np.float16, "tensor(double)": np.float64, "tensor(int64)": np.int64}
    return np.random.default_rng(0).standard_normal(shape).astype(kind.get(entry.type, np.float32))


def latencies(before: ort.InferenceSession, after: ort.InferenceSession) -> tuple[float, float]:
    """Median milliseconds of CPU time of one run of each model."""
    made = feeds(before)
    spent: tuple[list[float], list[float]] = ([], [])
    for _ in range(_ROUNDS):
        for session, times in zip((before, after), spent, strict=True):
            start = time.process_time()
            session.run(None, made)
            times.append(1e3 * (time.process_time() - start))
    return median(spent[0]), median(spent[1])


def row(model: Path, folder: Path) -> tuple[str, bool]:
    """A line of the table, and whether ONNX Runtime makes as much of the folded model as of the model."""
    after = folder / "folded.onnx"
    result = bnfold.optimize(model, after, verify="off")
    old, new = optimized(model, folder), optimized(after, folder)
    lost = old.fused - new.fused
    batchnorms = sum(entry.is_batchnorm for entry in result.plan.entries)
    left = result.plan.count(bnfold.Outcome.KEPT)
    growth = 100 * result.bytes_after / result.bytes_before - 100
    times = latencies(old.session, new.session)
    cells = (
        model.stem,
        f"{batchnorms} → {left}",
        f"{result.plan.nodes_before} → {result.plan.nodes_after}",
        f"{old.nodes} → {new.nodes}",
        f"{old.fused.total()} → {new.fused.total()}" + (f" ({dict(lost)})" if lost else ""),
        f"{growth:+.1f} %",
        *(f"{value:.2f}" for value in (*times, times[0] / times[1])),
    )
    return f"| {' | '.join(cells)} |", not lost and new.nodes <= old.nodes


def main(models: list[str]) -> int:
    print(f"bnfold {bnfold.__version__}, onnxruntime {ort.__version__}, one thread, medians of {_ROUNDS} runs each\n")
    print(
        "| model | BatchNormalizations | nodes | in ONNX Runtime | fused operators | size | before, ms | after, ms "
        "| times as fast |"
    )
    print("| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |")
    is_good = True
    with tempfile.TemporaryDirectory() as folder:
        for model in models:
            line, as_good = row(Path(model), Path(folder))
            is_good &= as_good
            print(line, flush=True)
    return int(not is_good)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
