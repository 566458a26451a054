# /// script
# requires-python = ">=3.11"
# dependencies = ["bnfold", "torch==2.13.0", "torchvision"]
# ///
"""What statistics cost, in passes of plain inference, and beside PyTorch: one run, one thread each, CPU time.

    python benchmarks/calibrate.py [--size 112] [--images 128] [--rounds 5]

Everything is measured in turn in each round; the figures are the least of each over all rounds, which other load on the
machine disturbs least, and the medians of the ratios within a round. "Inference" is the
same model in inference mode under ONNX Runtime, with all its optimisations. Start-up is left out on both sides. All
of it runs with the settings of malloc that bnfold gives its child processes.

A second table shows the memory of the child process against the limit on cached activations.
"""

import argparse
import io
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
import warnings
from concurrent.futures import Executor, Future
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import torch
from torch import library

for op in ("nms", "qnms"):  # lets a torchvision without compiled operators import
    library.define(f"torchvision::{op}", "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
import torchvision  # noqa: E402 -- after the line above

from bnfold.calibrate.children import ENVIRONMENT  # noqa: E402 -- after the line above
from bnfold.calibrate.cuts import Budget  # noqa: E402 -- after the line above
from bnfold.calibrate.measure import Running  # noqa: E402 -- after the line above
from bnfold.calibrate.methods import Pooled  # noqa: E402 -- after the line above
from bnfold.calibrate.place import Choice, Place, measuring  # noqa: E402 -- after the line above
from bnfold.calibrate.program import Cache  # noqa: E402 -- after the line above
from bnfold.calibrate.sequential import sequential  # noqa: E402 -- after the line above
from bnfold.model_io import load  # noqa: E402 -- after the line above

BATCH = 16


class Here(Executor):
    """Runs tasks in this process, so that their CPU time can be told."""

    def submit(self, fn, /, *args, **kwargs):
        future = Future()
        future.set_result(fn(*args, **kwargs))
        return future


def exported(net, size, mode):
    net = net.train() if mode is torch.onnx.TrainingMode.TRAINING else net.eval()
    with warnings.catch_warnings(action="ignore"):
        file = io.BytesIO()
        torch.onnx.export(
            net, (torch.randn(2, 3, size, size),), file, training=mode, dynamo=False, input_names=["x"],
            dynamic_axes={"x": {0: "batch"}}, do_constant_folding=mode is torch.onnx.TrainingMode.EVAL,
            opset_version=17,
        )  # fmt: skip
    return file.getvalue()


def cpu(function):
    start = time.process_time()
    function()
    return time.process_time() - start


def inference(data, x):
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])

    def run():
        for start in range(0, len(x), BATCH):
            session.run(None, {"x": x[start : start + BATCH]})

    return run


def update_bn(net, x):
    batches = [torch.from_numpy(x[start : start + BATCH]) for start in range(0, len(x), BATCH)]
    return lambda: torch.optim.swa_utils.update_bn(batches, net)


def compare(build, size, images, rounds):
    """For one network: rows of (name, least over least of inference, median of the ratios)."""
    torch.manual_seed(0)
    net = build()
    x = np.random.default_rng(0).normal(size=(images, 3, size, size)).astype(np.float32)
    plain = inference(exported(net, size, torch.onnx.TrainingMode.EVAL), x)
    model = load(exported(net, size, torch.onnx.TrainingMode.TRAINING))
    place = Place(1, 1, Here(), None, None, Running())
    with measuring(model, x, Choice(BATCH), place) as (subject, _):
        subject.engine.cache = Cache(str(subject.engine.folder), 1 << 40)
        held = [(t.mean, t.var) for t in subject.targets]

        def blend(_, found):
            return found.mean, found.var

        program = subject._training_program()
        subject._training_program = lambda: program  # PyTorch and plain inference have their networks ready, too

        tasks = {
            "statistics pass (paper, pooled, ema)": lambda: subject.in_training_mode(
                [Pooled(target.channels) for target in subject.targets]
            ),
            "sequential": lambda: sequential(subject, Budget(1 << 40, 0), blend),
            "residual or drift pass": lambda: subject.in_inference_mode(
                [mean for mean, _ in held], [var for _, var in held], ""
            ),
            "torch update_bn": update_bn(net, x),
        }
        plain()
        bases, found, ratios = [], {name: [] for name in tasks}, {name: [] for name in tasks}
        for _ in range(rounds):
            for name, task in tasks.items():
                bases.append(cpu(plain))
                found[name].append(cpu(task))
                ratios[name].append(found[name][-1] / bases[-1])
    return [(name, min(found[name]) / min(bases), statistics.median(ratios[name])) for name in tasks]


MEMORY = """
import json, resource, sys
from bnfold.calibrate import calibrate  # noqa: E402 -- after the line above
memory, disk = (None if limit == "default" else int(limit) for limit in sys.argv[3:5])
result = calibrate(*sys.argv[1:3], batch_size=16, threads=1, cache_memory=memory, cache_disk=disk, check=False)
used = resource.getrusage(resource.RUSAGE_CHILDREN)
print(json.dumps([used.ru_maxrss >> 10, used.ru_utime + used.ru_stime, result.cuts.work / result.cuts.least]))
"""


def memory_table(build, size, images):
    """Peak memory and CPU time of the child process, start-up included."""
    torch.manual_seed(0)
    x = np.random.default_rng(0).normal(size=(images, 3, size, size)).astype(np.float32)
    print("\n| network | memory for activations | disk | child's peak, MB | its CPU time, s | work, times the least |")
    print("| --- | ---: | ---: | ---: | ---: | ---: |")
    with tempfile.TemporaryDirectory() as folder:
        model, data = Path(folder) / "model.onnx", Path(folder) / "x.npy"
        model.write_bytes(exported(build(), size, torch.onnx.TrainingMode.TRAINING))
        np.save(data, x)
        for memory, disk in (("default", "default"), (64 << 20, 1 << 40), (0, 1 << 40), (64 << 20, 0), (0, 0)):
            command = [sys.executable, "-c", MEMORY, model, data, str(memory), str(disk)]
            answer = subprocess.run(command, check=True, capture_output=True, text=True).stdout
            peak, seconds, work = json.loads(answer)
            limits = ["default" if limit == "default" else f"{limit >> 20} MB" for limit in (memory, disk)]
            limits[1] = "any" if disk == 1 << 40 else limits[1]
            print(f"| {build.__name__} | {limits[0]} | {limits[1]} | {peak} | {seconds:.1f} | {work:.2f} |")


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--size", type=int, default=112)
    parser.add_argument("--images", type=int, default=128)
    parser.add_argument("--rounds", type=int, default=5)
    args = parser.parse_args()
    torch.set_num_threads(1)
    print(f"{args.images} images of {args.size}x{args.size}, batch {BATCH}, 1 thread, {args.rounds} rounds; ", end="")
    print(
        f"Python {platform.python_version()}, onnxruntime {onnxruntime.__version__}, torch {torch.__version__}, ",
        end="",
    )
    print(f"onnx {onnx.__version__}, numpy {np.__version__}\n")
    print("| network | what | inference passes (least) | median |\n| --- | --- | ---: | ---: |")
    for build in (torchvision.models.resnet18, torchvision.models.mobilenet_v2):
        rows = compare(build, args.size, args.images, args.rounds)
        for name, least, median in rows:
            print(f"| {build.__name__} | {name} | {least:.2f} | {median:.2f} |")
        (pass_least, pass_median), (torch_least, torch_median) = rows[0][1:], rows[-1][1:]
        ratios = f"{torch_least / pass_least:.2f} | {torch_median / pass_median:.2f}"
        print(f"| {build.__name__} | *update_bn / statistics pass* | {ratios} |")
    memory_table(torchvision.models.resnet18, args.size, 2 * args.images)


if __name__ == "__main__":
    if ENVIRONMENT.items() - os.environ.items():  # malloc reads it when a process starts
        os.execve(sys.executable, [sys.executable, *sys.argv], {**os.environ, **ENVIRONMENT})
    main()
