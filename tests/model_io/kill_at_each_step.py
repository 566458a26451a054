"""A model is replaced by another one and the process killed, before its first change of a file, before its second, and
so on: `python kill_at_each_step.py FOLDER`, where FOLDER holds `model.onnx`. Prints how many kills there were.

For each kill there is a process of its own, forked from this one, which has imported all that takes long.
"""

import builtins
import fcntl
import itertools
import os
import shutil
import signal
import sys
import tempfile
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import numpy as np

from bnfold.model_io import load, staged

CALLS = [(os, name) for name in ("open", "replace", "unlink", "fsync", "fchmod", "copy_file_range", "mkdir", "rmdir")]
CALLS += [(builtins, "open"), (fcntl, "flock")]


def main(template: Path, scratch: Path) -> None:
    before, clean = contents(template), scratch / "clean"
    shutil.copytree(template, clean)
    replace(clean / "model.onnx")
    after = contents(clean)
    for number in itertools.count():
        folder = scratch / str(number)
        shutil.copytree(template, folder)
        killed = in_a_process(partial(replace, folder / "model.onnx", kill_before=number))
        left = contents(folder)
        current = after if left["model.onnx"] == after["model.onnx"] else before
        assert current.items() <= left.items(), f"kill {number} has broken a model: {sorted(left)}"
        replace(folder / "model.onnx")
        assert contents(folder) == after, f"kill {number} has left {sorted(set(contents(folder)) - set(after))}"
        if not killed:
            print(number)
            return


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def replace(path: Path, *, kill_before: int | None = None) -> None:
    if kill_before is not None:
        arm(kill_before)
    model = load(path)
    tensor = model.proto.graph.initializer[0]

    class Ones:
        nbytes = model.array(tensor).nbytes

        def chunks(self) -> Iterator[bytes]:
            yield np.ones(self.nbytes // 4, np.float32).tobytes()

    model.attach(tensor, Ones())
    with staged(model, path):
        pass


def in_a_process(work: Callable[[], object]) -> bool:
    """Whether it was killed."""
    process = os.fork()
    if not process:
        work()
        os._exit(0)
    status = os.waitpid(process, 0)[1]
    assert status in (0, signal.SIGKILL)
    return status != 0


def arm(number: int) -> None:
    counter = itertools.count()

    def fatal(call: Callable[..., object]) -> Callable[..., object]:
        def counted(*args: object, **kwargs: object) -> object:
            if next(counter) == number:
                os.kill(os.getpid(), signal.SIGKILL)
            return call(*args, **kwargs)

        return counted

    for module, name in CALLS:
        setattr(module, name, fatal(getattr(module, name)))


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        main(Path(sys.argv[1]), Path(folder))
