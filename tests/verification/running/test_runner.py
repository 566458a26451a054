"""The child processes that models run in."""

import errno
import os
import select
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import onnx
import pytest

from bnfold.model_io import load, temporary_folder
from bnfold.verification.running import runner
from bnfold.verification.running.runner import Job, Limits, Runner


def test_a_large_model_has_a_process_for_itself(tmp_path, monkeypatch):
    """One after the other, so that all memory of one session is free before the next; the results are the same."""
    path, weights = tmp_path / "model.onnx", np.ones((64, 64), np.float32)
    model = onnx.parser.parse_model(
        '<ir_version: 8, opset_import: ["": 17]> n (float[N,64] x) => (float[N,64] y) { y = MatMul(x, w) }'
    )
    model.graph.initializer.append(onnx.numpy_helper.from_array(weights, "w"))
    onnx.save(model, path)
    job = Job(path, [{"x": np.ones((1, 64), np.float32)}])
    starts: list[object] = []
    spawn = runner._spawn
    monkeypatch.setattr(runner, "_spawn", lambda *arguments: starts.append(arguments) or spawn(*arguments))
    for limit, processes in ((weights.nbytes, 1), (weights.nbytes - 1, 3)):
        monkeypatch.setattr(runner, "_LARGE", limit)
        starts.clear()
        with Runner(Limits()) as child:
            results = child.run([Job(child.file_of(path, load(path)), job.feeds)] * 3)
        assert [run.arrays["y"][0, 0] for (run,) in results] == [64.0] * 3
        assert len(starts) == processes


@pytest.mark.parametrize(
    ("end", "is_exhausted"),
    [
        (OSError(errno.EAGAIN, os.strerror(errno.EAGAIN)), True),
        (OSError(errno.ENOMEM, os.strerror(errno.ENOMEM)), True),
        ((-signal.SIGKILL, ""), True),
        ((-signal.SIGABRT, "terminate called after throwing an instance of 'std::bad_alloc'"), True),
        ((1, "MemoryError"), True),
        ((1, "OSError: [Errno 12] Cannot allocate memory"), True),
        ((1, "RuntimeError: can't start new thread"), True),
        ((1, "OpenBLAS error: Memory allocation still failed after 10 retries, giving up."), True),
        ((1, "ImportError: state.so: failed to map segment from shared object"), True),
        (
            (-signal.SIGINT, "OpenBLAS blas_thread_init: pthread_create failed for thread 1 of 2\nKeyboardInterrupt"),
            True,
        ),
        ((-signal.SIGABRT, "what():  Resource temporarily unavailable"), True),
        ((1, "OSError: [Errno 28] No space left on device"), True),
        ((1, "OSError: [Errno 27] File too large"), True),
        ((1, "RuntimeError: something else"), False),
        ((-signal.SIGSEGV, ""), False),
    ],
    ids=str,
)
def test_a_lack_of_anything_is_told_from_a_crash(end, is_exhausted, monkeypatch):
    """Where no process or thread starts, or memory ran out, nothing is known of the model."""

    def ended(command, **_):
        if isinstance(end, OSError):
            raise end
        return subprocess.CompletedProcess(command, end[0], stderr=end[1].encode())

    monkeypatch.setattr(subprocess, "run", ended)
    with Runner(Limits()) as child:
        ((run,),) = child.run([Job(Path("model.onnx"), [{"x": np.ones(1, np.float32)}])])
    assert run.error
    assert run.is_exhausted is is_exhausted


def test_a_full_folder_is_named(monkeypatch):
    """Where feeds find no room."""

    def full(*_, **__):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(np, "savez", full)
    with pytest.raises(OSError, match=tempfile.gettempdir()), Runner(Limits()) as child:
        child.run([Job(Path("model.onnx"), [{"x": np.ones(1, np.float32)}])])


def test_a_small_limit_of_memory_is_beside_what_the_process_holds():
    """Less than 128 MB counts as 128 MB, and the runtime can be loaded."""
    with Runner(Limits(memory=1)) as child:
        path = child.write(load(onnx.parser.parse_model(SMALL)))
        ((run,),) = child.run([Job(path, [{"x": np.full(1, -2, np.float32)}])])
    assert run.arrays["y"].tolist() == [2]


SMALL = '<ir_version: 8, opset_import: ["": 17]> n (float[1] x) => (float[1] y) { y = Neg (x) }'
ENDLESS = """<ir_version: 8, opset_import: ["": 17]> n (float[1] x) => (float[1] y) {
    trips = Constant<value_int=1000000000000>()
    true = Constant<value = bool {1}>()
    y = Loop(trips, true, x) <body = b (int64 i, bool c, float[1] a) => (bool d, float[1] e) {
        d = Identity(c)
        e = Cos(a)
    }>
}"""
RUNS = """
import resource, subprocess, sys
from pathlib import Path
import numpy as np
popen, held = subprocess.Popen, int(sys.argv[2])
subprocess.Popen = lambda *args, **options: popen(*args, **options, pass_fds=[held])
resource.setrlimit(resource.RLIMIT_CPU, (60, 60))  # should the child live on
from bnfold.verification.running import runner
from bnfold.verification.running.runner import Job, Limits, Runner
with Runner(Limits()) as runner:
    runner.run([Job(Path(sys.argv[1]), [{"x": np.ones(1, np.float32)}])])
"""


def until(condition, seconds=60.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.05)


def test_the_child_ends_with_its_parent(tmp_path):
    """However that ends, and in the middle of a run; the next run removes its folder."""
    onnx.save(onnx.parser.parse_model(ENDLESS), tmp_path / "model.onnx")
    (tmp_path / "tmp").mkdir()
    paths = {"PYTHONPATH": os.pathsep.join(sys.path), "TMPDIR": str(tmp_path / "tmp")}
    held, hold = os.pipe()  # ends when nobody holds it any more: whoever is to be killed, or to end by itself
    command = [sys.executable, "-c", RUNS, tmp_path / "model.onnx", str(hold)]
    with subprocess.Popen(command, pass_fds=[hold], env=os.environ | paths) as parent:
        os.close(hold)
        until(lambda: list((tmp_path / "tmp").rglob("current")))
        time.sleep(2)  # it may have to load a runtime yet
        parent.send_signal(signal.SIGKILL)
    assert select.select([held], [], [], 20)[0]
    os.close(held)
    assert list((tmp_path / "tmp").glob("bnfold-*"))
    with temporary_folder(tmp_path / "tmp"):
        pass
    assert not list((tmp_path / "tmp").glob("bnfold-*"))
