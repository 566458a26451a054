"""Every engine gives the same bits, and what dies does no harm."""

import ctypes
import errno
import os
import pickle
import resource
import select
import signal
import subprocess
import sys
import time
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor, wait
from multiprocessing import get_context

import pytest
from calibration.helpers import TRAIN, X, bn_model
from networks import MODELS

from bnfold.calibration import CalibrationError, calibrate
from bnfold.calibration.running import selftest
from bnfold.calibration.running.children import Children, WorkerDied

MODEL = MODELS / "digits_resnet.train.onnx"


def bits(result):
    return b"".join(array.tobytes() for layer in result.layers for array in (layer.measured.mean, layer.measured.var))


@pytest.fixture(scope="module", params=["sequential", "paper"])
def reference(request):
    """The method, and what one process and one thread get."""
    return request.param, bits(calibrate(MODEL, TRAIN, method=request.param, batch_size=50, threads=1, check=False))


def test_threads(reference):
    """Batches at a time."""
    method, expected = reference
    assert bits(calibrate(MODEL, TRAIN, method=method, batch_size=50, threads=3, check=False)) == expected


def test_workers(reference):
    """Processes that share activations through files."""
    method, expected = reference
    assert bits(calibrate(MODEL, TRAIN, method=method, batch_size=50, workers=2, check=False)) == expected


def test_any_executor(reference):
    """Threads, and processes of Python's own pool."""
    method, expected = reference
    with ThreadPoolExecutor(2) as pool:
        assert bits(calibrate(MODEL, TRAIN, method=method, batch_size=50, executor=pool, check=False)) == expected
    with ProcessPoolExecutor(2, mp_context=get_context("spawn")) as pool:
        assert bits(calibrate(MODEL, TRAIN, method=method, batch_size=50, executor=pool, check=False)) == expected


def test_a_killed_worker(reference, monkeypatch):
    """A process that is killed in the middle is started again, and its task run again."""
    method, expected = reference
    killed = []
    submit = Children.submit

    def killing(self, fn, /, *args, **kwargs):
        if len(args[1]) > 1 and self.processes() and len(killed) < 2:
            killed.append(self.processes()[-1])
            os.kill(killed[-1], signal.SIGKILL)
        return submit(self, fn, *args, **kwargs)

    monkeypatch.setattr(Children, "submit", killing)
    assert bits(calibrate(MODEL, TRAIN, method=method, batch_size=50, workers=2, check=False)) == expected
    assert len(killed) == 2


def test_a_task_that_runs_twice(reference, here):
    """Schedulers run a task again when they doubt that it ended."""
    method, expected = reference

    class Twice(type(here)):
        def submit(self, fn, /, *args, **kwargs):
            super().submit(fn, *args, **kwargs)
            return super().submit(fn, *args, **kwargs)

    assert bits(calibrate(MODEL, TRAIN, method=method, batch_size=50, executor=Twice(), check=False)) == expected


def test_a_crash_is_a_message():
    """A child that crashes says how, and the next task has a new one."""
    with Children(1) as children:
        with pytest.raises(WorkerDied, match="SIGSEGV"):
            children.submit(ctypes.string_at, 0).result()
        assert children.submit(os.getpid).result() != os.getpid()


def test_a_crash_ends_a_calibration(monkeypatch):
    """One line; activations that the process held cannot be got back."""

    def crashing(self, fn, /, *args, **kwargs):
        return submit(self, ctypes.string_at, 0)

    submit = Children.submit
    monkeypatch.setattr(Children, "submit", crashing)
    with pytest.raises(CalibrationError, match="the process that ran ONNX Runtime died: it was ended by SIGSEGV"):
        calibrate(bn_model(), X)


def test_a_child_that_cannot_be_started(monkeypatch):
    """One line, and nobody waits for it."""

    def starting(*_, **__):
        raise BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN))

    monkeypatch.setattr(subprocess, "Popen", starting)
    with Children(1) as children, pytest.raises(CalibrationError, match="let a process start: Resource temporarily"):
        children.submit(os.getpid).result(10)


def test_an_answer_that_cannot_be_read():
    """It is an error of its task, and the next one gets an answer."""
    with Children(1) as children:
        with pytest.raises(TypeError, match="int"):
            children.submit(eval, "type('Odd', (), {'__reduce__': lambda self: (int, ([],))})()").result(10)
        assert children.submit(os.getpid).result(10)


def test_children_end_with_their_parent():
    """None is left behind."""
    with Children(2) as children:
        wait([children.submit(time.sleep, 0.05) for _ in range(4)])
        living = children.processes()
        assert len(living) == 2
    for process in living:
        with pytest.raises(ProcessLookupError):
            os.kill(process, 0)


def test_what_onnxruntime_refuses_is_one_line(here):
    """An operator that it does not know."""
    model = bn_model(before=[("NoSuchOperator", {})])
    with pytest.raises(CalibrationError, match="ONNX Runtime does not take the model") as caught:
        calibrate(model, X, executor=here)
    assert "\n" not in str(caught.value)


def test_an_unknown_provider(here):
    """The providers that there are, are named."""
    with pytest.raises(CalibrationError, match=r"no TPUExecutionProvider; it has .*CPUExecutionProvider"):
        calibrate(bn_model(), X, executor=here, provider="TPUExecutionProvider")


def test_types_are_asked_of_the_cpu(here):
    """A graph whose outputs are all its values is more than OpenVINO can read."""
    seen = []

    class Watching(type(here)):
        def submit(self, fn, /, program, *args):
            seen.append((bool(program.describes), program.providers))
            return super().submit(fn, program, *args)

    with pytest.raises(CalibrationError, match="no TPUExecutionProvider"):
        calibrate(bn_model(), X, executor=Watching(), provider="TPUExecutionProvider")
    cpu = "CPUExecutionProvider"
    assert seen == [(True, (cpu,)), (False, ("TPUExecutionProvider", cpu))]


@pytest.mark.parametrize(
    "name", ["batch_size", "max_samples", "workers", "threads", "seed", "cache_memory", "cache_disk"]
)
def test_numbers_that_make_no_sense(name, here):
    """Refused before anything starts."""
    with pytest.raises(CalibrationError, match=f"{name} is -1: it has to be [01] or more"):
        calibrate(bn_model(), X, executor=here, **{name: -1})


def test_the_self_test_finds_wrong_numbers(monkeypatch):
    """It passes here, and does not where an output is off."""
    selftest.check_runtime()
    monkeypatch.setattr(selftest.np, "maximum", lambda y, zero: y + 1)
    with pytest.raises(CalibrationError, match=r"computes a wrong output \(opset 9\)"):
        selftest.check_runtime.__wrapped__()


@pytest.mark.skipif(not hasattr(signal, "SIGXFSZ"), reason="limits the size of files")
@pytest.mark.parametrize("size", [100, 2_000, 20_000])
def test_a_full_disk(size, tmp_path):
    """One line that says what to do, wherever it happens: data, weights or activations; nothing is written."""
    code = "import sys; from bnfold.commands import main; sys.argv[0] = 'bnfold'; main()"
    args = ["calibrate", MODEL, "--data", TRAIN, "-o", tmp_path / "out.onnx", "--cache-memory", "0", "--workers", "2"]

    def limited():
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)  # what is left is an error of write
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))

    ended = subprocess.run(
        [sys.executable, "-c", code, *map(str, args)],
        env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1"},  # half a module in a cache would break all that follows
        capture_output=True,
        text=True,
        preexec_fn=limited,
        check=False,
    )
    assert ended.returncode == 2
    assert ended.stderr.startswith("bnfold: temporary files cannot be written to ")
    assert ended.stderr.count("\n") == 1
    assert not list(tmp_path.iterdir())


def test_workers_end_with_their_parent(tmp_path):
    """However that ends, and in the middle of a task."""
    code = """
import resource, subprocess, sys, time
from pathlib import Path
popen, held = subprocess.Popen, int(sys.argv[2])
subprocess.Popen = lambda *args, **options: popen(*args, **options, pass_fds=[held])
resource.setrlimit(resource.RLIMIT_CPU, (60, 60))  # should a worker live on
from bnfold.calibration.running.children import Children
children = Children(2)
for name in "ab":
    children.submit(exec, f"open({sys.argv[1] + name!r}, 'w').close()\\nwhile True: pass")
time.sleep(1000)
"""
    held, hold = os.pipe()  # ends when nobody holds it any more
    command = [sys.executable, "-c", code, f"{tmp_path}/", str(hold)]
    paths = {"PYTHONPATH": os.pathsep.join(sys.path)}
    with subprocess.Popen(command, pass_fds=[hold], env=os.environ | paths) as parent:
        os.close(hold)
        end = time.monotonic() + 60
        while len(list(tmp_path.iterdir())) < 2:
            assert time.monotonic() < end
            time.sleep(0.05)
        parent.kill()
    assert select.select([held], [], [], 20)[0]
    os.close(held)


def test_an_answer_that_nobody_waits_for():
    """The parent is gone: no reason to complain."""
    command = [sys.executable, "-c", "from bnfold.calibration.running.children import serve; serve(None)"]
    pipes = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE)
    with subprocess.Popen(command, env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}, **pipes) as child:
        child.stdout.close()
        pickle.dump(pickle.dumps((len, ("ab",), {})), child.stdin)
        child.stdin.flush()
        assert child.stderr.read() == b""
    assert child.returncode == 0


def test_nothing_is_left_on_disk(tmp_path):
    """The working folder is empty after success and after failure."""
    calibrate(MODEL, TRAIN, work_dir=tmp_path, cache_memory=0)
    with pytest.raises(ValueError, match="no such file"):
        calibrate(MODEL, "none.npz", work_dir=tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_progress(here):
    """It hears of every segment and reaches the end."""
    heard = []
    calibrate(MODEL, TRAIN, executor=here, progress=lambda *step: heard.append(step), batch_size=100)
    assert {what for what, _, _ in heard} == {*(f"segment {n} of 7" for n in range(1, 8)), "checking"}
    assert heard[-1] == ("checking", 1000, 1000)
