"""What drift says: of a network's own data, of mistakes of preprocessing, and of data on which it is wrong more often.

    python -m benchmarks.drift [FOLDER] > benchmarks/results/drift.md

Networks are those of trained.py; FOLDER holds what PaddleOCR ships. Takes ten minutes on a core, and needs torch,
scikit-learn, scikit-image and pillow.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from importlib.metadata import version
from itertools import pairwise
from pathlib import Path

import numpy as np
import onnx
import onnxruntime

from benchmarks.calibrate_quality import ranks, row, table
from benchmarks.trained import MEAN, STD, Array, Trained, networks
from bnfold.calibration import Drift, Verdict, drift
from bnfold.calibration.drifted import BANDS

SIZES = 8, 16, 32, 64, 128, 256
DRAWS = 10
OF_FAULTS, FAULTY = 64, 5
MOST = 1000  # samples, where all are taken
FALSE = Verdict.LOOK, Verdict.RECALIBRATE
Measure = Callable[[Trained, Array], Drift]


def measuring(executor: Executor) -> Measure:
    return lambda network, data: drift(network.model, data.astype(np.float32), executor=executor)


def draws(data: Array, size: int, count: int) -> Iterator[Array]:
    """Random samples of the data, as many as it has at most."""
    rng = np.random.default_rng(size)
    return (data[rng.choice(len(data), min(size, len(data)), replace=False)] for _ in range(count))


# Own data.


def show_own(networks: Sequence[Trained], measure: Measure) -> None:
    """How often a verdict is false on draws of what a network was trained on and of what it has not seen."""
    table("false verdicts / fine", *(f"{size} samples" for size in SIZES), "score of many", "floor", "explained")
    for network in networks:
        cells = []
        for size in SIZES:
            parts = (network.train, network.test)
            found = [measure(network, few).verdict for part in parts for few in draws(part, size, DRAWS)]
            cells.append(f"{sum(v in FALSE for v in found)} / {found.count(Verdict.FINE)}")
        whole = measure(network, network.train[:MOST])
        row(network.name, *cells, *(f"{value:.2g}" for value in (whole.score, whole.floor, whole.explained)))
    print(f"\n{2 * DRAWS} draws each, half of them of the training data; many are {MOST} of these at the most.")


# Mistakes.


def mistakes(network: Trained) -> Iterator[tuple[str, Callable[[Array], Array]]]:
    """What people do to an input, as functions of the input that is right."""
    if network.raw is None:
        spread = network.train.std()
        yield "mean", lambda x: x + 0.5 * spread
        yield "deviation", lambda x: x / 2
        yield "255 times", lambda x: x * 255
        return
    std, mean = network.raw
    yield "mean", lambda x: x + mean / std
    yield "deviation", lambda x: x * std
    yield "255 times", lambda x: (255 * (x * std + mean) - mean) / std
    yield "0 to 255", lambda x: 255 * (x * std + mean)
    yield "0 to 1", lambda x: x * std + mean
    yield "BGR", lambda x: ((x * std + mean)[:, ::-1] - mean) / std
    yield "NHWC", lambda x: x.transpose(0, 2, 3, 1).reshape(x.shape)
    other = (MEAN, STD) if not np.array_equal(mean, MEAN) else (np.full_like(MEAN, 0.5), np.full_like(STD, 0.5))
    yield "other norm", lambda x: (x * std + mean - other[0]) / other[1]


def show_mistakes(networks: Sequence[Trained], measure: Measure) -> None:
    """How often a mistake is told, and how often it is named."""
    names = list(dict.fromkeys(name for network in networks for name, _ in mistakes(network)))
    table("told / named", *names)
    for network in networks:
        cells = dict.fromkeys(names, "-")
        for name, spoil in mistakes(network):
            found = [measure(network, spoil(few)) for few in draws(network.test, OF_FAULTS, FAULTY)]
            cells[name] = f"{sum(each.verdict in FALSE for each in found)} / {sum(bool(each.fault) for each in found)}"
        row(network.name, *cells.values())
    print(f"\n{FAULTY} draws of {OF_FAULTS} samples each.")


# What scores mean.


def changes(network: Trained) -> Iterator[tuple[str, Array]]:
    """The test data, changed more and more."""
    rng, data, spread = np.random.default_rng(0), network.test[:MOST], network.test.std()
    yield "as it is", data
    for level in (0.03, 0.1, 0.2, 0.4, 0.8):
        yield f"noise {level}", data + level * spread * rng.normal(size=data.shape)
        yield f"shift {level}", data + level * spread
    for factor in (0.95, 0.85, 0.7, 0.5, 0.3, 1.05, 1.2, 1.5, 2, 4):
        yield f"times {factor}", factor * data


def show_bands(networks: Sequence[Trained], measure: Measure) -> None:
    """What part of the right answers is lost, by the band of the score."""
    found = []
    for network in networks:
        whole = right(network, network.test[:MOST])
        for what, data in changes(network):
            found.append((measure(network, data).score, 1 - right(network, data) / whole, f"{network.name}, {what}"))
    table("score", "cases", "answers lost: median", "nine of ten under", "at most", "which")
    edges = [0.0, BANDS[0] / 4, BANDS[0], BANDS[1] / 3, BANDS[1], 1.0, np.inf]
    for low, high in pairwise(edges):
        within = [(lost, which) for score, lost, which in found if low <= score < high]
        losses = [lost for lost, _ in within]
        figures = f"{np.median(losses):.1%}", f"{np.quantile(losses, 0.9):.1%}", f"{max(losses):.1%}"
        row(f"{low:.2g} to {high:.2g}", len(within), *figures, max(within)[1])
    correlation = np.corrcoef(ranks([score for score, _, _ in found]), ranks([lost for _, lost, _ in found]))[0, 1]
    print(f"\nSpearman's correlation of the score with the loss, {len(found)} cases: {correlation:.2f}")


def right(network: Trained, data: Array) -> float:
    """The share of answers that are right."""
    assert network.labels is not None
    return float((answers(network.model, data.astype(np.float32)) == network.labels[: len(data)]).mean())


def answers(model: onnx.ModelProto, data: Array) -> Array:
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    found: Array = session.run(None, {session.get_inputs()[0].name: data})[0]
    return np.asarray(found.argmax(1))


def main() -> None:
    versions = ", ".join(f"{name} {version(name)}" for name in ("torch", "onnxruntime", "numpy"))
    print(versions)
    found = list(networks(Path(sys.argv[1]) if len(sys.argv) > 1 else None))
    with ThreadPoolExecutor(1) as executor:
        measure = measuring(executor)
        show_own(found, measure)
        show_mistakes(found, measure)
        show_bands([network for network in found if network.labels is not None], measure)


if __name__ == "__main__":
    main()
