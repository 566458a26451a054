# /// script
# requires-python = ">=3.11"
# dependencies = ["bnfold", "torch==2.13.0", "torchvision"]
# ///
"""What statistics cost, in passes of plain inference, and beside PyTorch: one run, one thread each, CPU time.

    python benchmarks/calibrate.py [--size 112] [--images 128] [--rounds 5]

Every task has a process of its own, so that none meets the heap, the caches and the garbage collector of another. They
take turns, each after plain inference; the figures are the ratios within a turn. "Inference" is the same model in
inference mode under ONNX Runtime, with all its optimisations, and with the settings of malloc that bnfold gives its
child processes. Of bnfold, the child and its parent both count. What is done but once is left out: imports, the export,
the sessions of inference and of the statistics pass.

A second table shows the memory of the child process against the limit on cached activations.
"""

from __future__ import annotations

import argparse
import os
import platform
import resource
import statistics
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import IO, TYPE_CHECKING
from unittest.mock import patch

import numpy as np
import numpy.typing as npt

from bnfold import malloc
from bnfold.calibration import calibrate
from bnfold.calibration.measuring.cuts import Budget
from bnfold.calibration.measuring.sequential import sequential
from bnfold.calibration.place import RunOptions, measuring
from bnfold.calibration.statistics.methods import Pooled
from bnfold.model_io import load

if TYPE_CHECKING:  # what has no need of torch goes without
    import torch

BATCH = 16
NETWORKS = ("resnet18", "mobilenet_v2")
PASS, SEQUENTIAL, CHECK = "statistics pass (paper, pooled, ema)", "sequential", "residual or drift pass"
INFERENCE, UPDATE_BN = "inference", "torch update_bn"
PLENTY = 1 << 40
Limit = int | None
LIMITS: tuple[tuple[Limit, Limit], ...] = ((None, None), (64 << 20, PLENTY), (0, PLENTY), (64 << 20, 0), (0, 0))


# --- in a process of its own, which imports no more than its task needs ---------------------------------------


def network(name: str) -> torch.nn.Module:
    from torch import library  # noqa: PLC0415

    for op in ("nms", "qnms"):  # lets a torchvision without compiled operators import
        library.define(f"torchvision::{op}", "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    import torchvision  # noqa: PLC0415

    return getattr(torchvision.models, name)(weights=None)


def export(name: str, folder: Path) -> None:
    """Writes the network as it is for inference, folded, and in training mode."""
    import torch  # noqa: PLC0415

    torch.manual_seed(0)
    net = network(name)
    example = torch.from_numpy(np.load(folder / "x.npy")[:2])
    warnings.simplefilter("ignore")
    for mode in (torch.onnx.TrainingMode.EVAL, torch.onnx.TrainingMode.TRAINING):
        inference = mode is torch.onnx.TrainingMode.EVAL
        torch.onnx.export(
            net.train(not inference), (example,), folder / f"{mode.name}.onnx", training=mode, dynamo=False,
            input_names=["x"], dynamic_axes={"x": {0: "batch"}}, do_constant_folding=inference, opset_version=17,
        )  # fmt: skip


def inference(folder: Path) -> None:
    import onnxruntime  # noqa: PLC0415

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(folder / "EVAL.onnx", options, providers=["CPUExecutionProvider"])
    batches = in_batches(folder)
    answer(lambda: [session.run(None, {"x": batch}) for batch in batches])


def update_bn(name: str, folder: Path) -> None:
    import torch  # noqa: PLC0415

    torch.set_num_threads(1)
    net = network(name)
    batches = [torch.from_numpy(batch) for batch in in_batches(folder)]
    answer(lambda: torch.optim.swa_utils.update_bn(batches, net))


def measure(task: str, folder: Path) -> None:
    run = RunOptions(batch_size=BATCH, threads=1)
    with measuring(load(folder / "TRAINING.onnx"), folder / "x.npy", run, memory=PLENTY) as (subject, _):
        targets = subject.targets
        program = subject._training_program()
        child = subject.engine._executor
        tasks: dict[str, Callable[[], object]] = {
            PASS: lambda: subject.in_training_mode([Pooled(target.channels) for target in targets]),
            SEQUENTIAL: lambda: sequential(subject, Budget(PLENTY, 0), lambda _, found: (found.mean, found.var)),
            CHECK: lambda: subject.in_inference_mode([t.mean for t in targets], [t.var for t in targets], ""),
        }
        with patch.object(subject, "_training_program", lambda: program):  # the others have their networks ready, too
            answer(tasks[task], lambda: time.process_time() + child.submit(time.process_time).result())


def in_batches(folder: Path) -> list[npt.NDArray[np.float32]]:
    x: npt.NDArray[np.float32] = np.load(folder / "x.npy")
    return [x[start : start + BATCH] for start in range(0, len(x), BATCH)]


def answer(work: Callable[[], object], clock: Callable[[], float] = time.process_time) -> None:
    """Works once to warm up, then for each line of standard input, and says how much CPU time it took."""
    work()
    print("ready", flush=True)
    for _ in sys.stdin:
        start = clock()
        work()
        print(clock() - start, flush=True)


def limited(folder: Path, memory: Limit, disk: Limit) -> None:
    """Calibrates once. Says the peak memory of the child process, its CPU time, and how much work the limits made."""
    model, data = folder / "TRAINING.onnx", folder / "x.npy"
    result = calibrate(model, data, batch_size=BATCH, threads=1, check=False, cache_memory=memory, cache_disk=disk)
    assert result.cuts is not None
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    print(used.ru_maxrss >> 10, used.ru_utime + used.ru_stime, result.cuts.work / result.cuts.least)


def run_task(task: str, name: str, folder: Path, limits: Sequence[Limit]) -> None:
    if task == "export":
        export(name, folder)
    elif task == INFERENCE:
        inference(folder)
    elif task == UPDATE_BN:
        update_bn(name, folder)
    elif task == "limited":
        limited(folder, memory=limits[0], disk=limits[1])
    else:
        measure(task, folder)


# --- what starts them -----------------------------------------------------------------------------------------


def command(task: str, name: str, folder: Path, *limits: Limit) -> list[str]:
    return [sys.executable, __file__, "--task", task, name, str(folder), *map(str, limits)]


class Turns:
    """A process that does a task whenever it is asked to."""

    def __init__(self, task: str, name: str, folder: Path) -> None:
        # a child of bnfold sees to its malloc itself
        environment = {**os.environ, **malloc.ENVIRONMENT} if task == INFERENCE else None
        asked = command(task, name, folder)
        self.process = subprocess.Popen(
            asked, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.asks: IO[str] = self.process.stdin
        self.answers: IO[str] = self.process.stdout
        assert self.answers.readline() == "ready\n"

    def take(self) -> float:
        """Seconds of CPU time."""
        self.asks.write("\n")
        self.asks.flush()
        return float(self.answers.readline())

    def end(self) -> None:
        self.asks.close()
        self.process.wait()


def prepare(name: str, folder: Path, size: int, images: int) -> None:
    np.save(folder / "x.npy", np.random.default_rng(0).normal(size=(images, 3, size, size)).astype(np.float32))
    subprocess.run(command("export", name, folder), check=True, stdout=subprocess.DEVNULL)


def compare(name: str, folder: Path, rounds: int) -> dict[str, list[float]]:
    """For each task, the ratios to inference."""
    tasks = {task: Turns(task, name, folder) for task in (INFERENCE, PASS, SEQUENTIAL, CHECK, UPDATE_BN)}
    plain = tasks[INFERENCE]
    ratios: dict[str, list[float]] = {task: [] for task in tasks if task != INFERENCE}
    for _ in range(rounds):
        for task, found in ratios.items():
            base = plain.take()
            found.append(tasks[task].take() / base)
    for process in tasks.values():
        process.end()
    return ratios


def compare_all(args: argparse.Namespace) -> None:
    print("| network | what | inference passes (median) | least | most |\n| --- | --- | ---: | ---: | ---: |")
    for name in NETWORKS:
        with tempfile.TemporaryDirectory() as folder:
            prepare(name, Path(folder), args.size, args.images)
            ratios = compare(name, Path(folder), args.rounds)
        for task, found in ratios.items():
            print(f"| {name} | {task} | {statistics.median(found):.2f} | {min(found):.2f} | {max(found):.2f} |")
        faster = statistics.median(b / a for a, b in zip(ratios[PASS], ratios[UPDATE_BN], strict=True))
        print(f"| {name} | *update_bn / statistics pass* | {faster:.2f} | | |", flush=True)


def limit_memory(name: str, size: int, images: int) -> None:
    print(f"\n{name}, {images} images of {size}x{size}, batch {BATCH}, start-up included:\n")
    print("| network | memory for activations | disk | child's peak, MB | its CPU time, s | work, times the least |")
    print("| --- | ---: | ---: | ---: | ---: | ---: |")
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        prepare(name, folder, size, images)
        for limits in LIMITS:
            answer = subprocess.run(
                command("limited", name, folder, *limits), check=True, capture_output=True, text=True
            ).stdout
            peak, seconds, work = map(float, answer.split())
            memory, disk = map(said, limits)
            print(f"| {name} | {memory} | {disk} | {peak:.0f} | {seconds:.1f} | {work:.2f} |", flush=True)


def said(limit: Limit) -> str:
    return {None: "default", PLENTY: "any"}.get(limit, f"{(limit or 0) >> 20} MB")


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--size", type=int, default=112)
    parser.add_argument("--images", type=int, default=128)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--task", nargs="+", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.task:
        task, name, folder, *limits = args.task
        run_task(task, name, Path(folder), [None if limit == "None" else int(limit) for limit in limits])
        return
    print(f"{args.images} images of {args.size}x{args.size}, batch {BATCH}, 1 thread, {args.rounds} rounds; ", end="")
    versions = (f"{package} {version(package)}" for package in ("onnxruntime", "torch", "onnx", "numpy"))
    print(f"Python {platform.python_version()}, {', '.join(versions)}\n")
    compare_all(args)
    limit_memory(NETWORKS[0], args.size, 3 * args.images)


if __name__ == "__main__":
    main()
