"""Measuring is held to a time and a memory, whatever the model does before its BatchNormalizations."""

import os
import signal
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import onnx
import pytest
from calibration.helpers import X, bn_model
from click.testing import CliRunner
from onnx import numpy_helper

import bnfold
from bnfold.calibration import calibrate, drift, estimate, shift
from bnfold.calibration.measuring import cuts
from bnfold.calibration.measuring.build import Builder
from bnfold.calibration.ready import ready
from bnfold.calibration.running.children import Children, WorkerDied
from bnfold.calibration.running.engine import Engine
from bnfold.calibration.running.program import Program
from bnfold.commands import program
from bnfold.limits import Deadline, Limits

GIGABYTE = 1 << 30
MEGABYTE = 1 << 20
UNREADABLE = "none.npy"  # whoever looks for it says so
PORTS = "(int64 number, bool going, float[N, 3, a, b] old) => (bool still, float[N, 3, a, b] new)"
ENDLESS = f"(float[N, 3, a, b] x) => (float[N, 3, a, b] z) {{ z = Loop (trips, true, x) <body = step {PORTS} "
STEP = "{ still = Identity (going) new = Tanh (old) }> }"


def endless() -> onnx.ModelProto:
    """A BatchNormalization behind a Loop that would take days."""
    model = bn_model()
    loop = onnx.parser.parse_graph(f"g {ENDLESS}{STEP}").node[0]
    constants = {"trips": np.array(10**10), "true": np.array(True)}
    model.graph.initializer.extend(numpy_helper.from_array(array, name) for name, array in constants.items())
    model.graph.node.insert(0, loop)
    model.graph.node[1].input[0] = "z"
    return model


def huge() -> onnx.ModelProto:
    """A BatchNormalization of 48 bytes, enlarged to 3 GB."""
    model = bn_model()
    model.graph.initializer.append(numpy_helper.from_array(np.array([1, 1, 16000, 16000]), "sizes"))
    model.graph.node.insert(0, onnx.helper.make_node("Expand", ["x", "sizes"], ["z"]))
    model.graph.node[1].input[0] = "z"
    return model


def test_what_onnx_runtime_raises_it_does_not_print(capfd):
    """It would, in colours: of a size that overflows, say."""
    model = bn_model()
    model.graph.initializer.append(numpy_helper.from_array(np.array([1, 1, 1 << 31, 1 << 31]), "sizes"))
    model.graph.node.insert(0, onnx.helper.make_node("Resize", ["x", "", "", "sizes"], ["z"]))
    model.graph.node[1].input[0] = "z"
    with pytest.raises(bnfold.ModelError, match="ONNX Runtime failed"):
        drift(model, X)
    assert capfd.readouterr().err == ""


def test_more_workers_than_there_can_be(monkeypatch):
    """Is said, and those that were started are gone."""
    started = threading.Thread.start

    def start(self):
        if threading.active_count() > 3:
            raise RuntimeError("can't start new thread")
        started(self)

    before = threading.active_count()
    monkeypatch.setattr(threading.Thread, "start", start)
    with pytest.raises(bnfold.ModelError, match="99 workers"):
        drift(bn_model(), X, workers=99)
    assert threading.active_count() == before


@pytest.mark.parametrize("verb", [calibrate, drift])
def test_an_endless_loop_is_ended(verb, monkeypatch):
    """When the time is over, and its process with it."""
    processes = []
    ended = Children.shutdown

    def noted(self, *args, **kwargs):
        processes.extend(self.processes())
        ended(self, *args, **kwargs)

    monkeypatch.setattr(Children, "shutdown", noted)
    with pytest.raises(TimeoutError):
        verb(endless(), X, timeout=1.0)
    assert processes
    for process in processes:
        with pytest.raises(ProcessLookupError):
            os.kill(process, 0)


@pytest.mark.parametrize("verb", [calibrate, drift])
def test_memory_is_held(verb):
    """What does not fit into it is no fault of the model."""
    data = np.zeros((2, 3, 1, 1), np.float32)
    with pytest.raises(MemoryError):
        verb(huge(), data, memory=GIGABYTE)


@pytest.mark.parametrize("timeout", [1e-9, 0.0])
def test_no_time_at_all(timeout, here):
    """Not even the data is read, on any executor."""
    with pytest.raises(TimeoutError):
        calibrate(bn_model(), X, timeout=timeout, executor=here)


@pytest.mark.parametrize(("verb", "module"), [(calibrate, estimate), (drift, shift)], ids=["calibrate", "drift"])
def test_reading_the_model_counts(verb, module, monkeypatch):
    """A million outputs take seconds to be looked at: what is left is less, and the data is not read."""

    def slow(*given):
        time.sleep(0.2)
        return ready(*given)

    monkeypatch.setattr(module, "ready", slow)
    with pytest.raises(TimeoutError):
        verb(bn_model(), UNREADABLE, timeout=0.1)


@pytest.mark.parametrize("verb", [calibrate, drift])
def test_no_program_is_written_when_the_time_is_over(verb, monkeypatch):
    """That of a million outputs takes a second."""
    monkeypatch.setattr(Engine, "__enter__", lambda self: (setattr(self, "deadline", Deadline(0.0)), self)[1])
    monkeypatch.setattr(Builder, "write", pytest.fail)
    with pytest.raises(TimeoutError):
        verb(bn_model(), X)


def test_the_deadline_holds_on_any_executor(tmp_path):
    """Its tasks are not waited for."""
    with ThreadPoolExecutor(1) as pool:
        engine = Engine(tmp_path, executor=pool, deadline=Deadline.after(0.05))
        release = pool.submit(signal.sigtimedwait, [], 0.5)
        with pytest.raises(TimeoutError):
            list(engine.run(Program("none"), [None]))
        release.result()


def test_a_process_that_the_system_killed():
    """It was for want of memory, as far as anybody can tell."""
    with Children(1) as children:
        pid = children.submit(os.getpid).result()
        with pytest.raises(WorkerDied, match="SIGKILL") as died:
            children.submit(os.kill, pid, signal.SIGKILL).result()
        assert died.value.is_for_memory
        with pytest.raises(WorkerDied, match="SIGSEGV") as died:
            children.submit(os.kill, children.submit(os.getpid).result(), signal.SIGSEGV).result()
        assert not died.value.is_for_memory


def test_children_have_no_more_than_they_may():
    """Beyond what they have when they start."""
    with Children(1, 256 * MEGABYTE) as children:
        assert children.submit(len, bytes(MEGABYTE)).result() == MEGABYTE
        with pytest.raises(MemoryError):
            children.submit(bytes, GIGABYTE).result()
        assert children.submit(bytes, 1).result() == b"\0"


def test_activations_take_a_share_of_the_memory(tmp_path):
    """A quarter of what may be had."""
    assert cuts.default_budget(tmp_path, Limits(1.0, 64 * MEGABYTE)).memory <= 16 * MEGABYTE


@pytest.mark.parametrize(
    ("model", "options", "says"),
    [
        pytest.param(endless, ["--timeout", "1"], "not enough time (--timeout)", id="time"),
        pytest.param(huge, ["--memory", "0.5"], "not enough memory", id="memory"),
    ],
)
@pytest.mark.parametrize("verb", ["calibrate", "drift", "optimize"])
def test_it_is_no_fault_of_the_input(tmp_path, verb, model, options, says):
    """Exit code 1, one line, and nothing is written."""
    onnx.save(model(), tmp_path / "model.onnx")
    np.save(tmp_path / "data.npy", np.zeros((2, 3, 1, 1), np.float32))
    data = ["--calibrate" if verb == "optimize" else "--data", str(tmp_path / "data.npy")]
    done = CliRunner().invoke(
        program, [verb, str(tmp_path / "model.onnx"), *data, *options, "--quiet"], prog_name="bnfold"
    )
    assert (done.exit_code, done.stderr) == (1, f"bnfold: {says}\n")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["data.npy", "model.onnx"]


def test_a_time_out_of_the_file_system_is_an_error_of_the_input(monkeypatch, tmp_path):
    """It has a number, which ours has not."""

    def fail(*args, **kwargs):
        raise TimeoutError(110, "Connection timed out", "model.onnx")

    monkeypatch.setattr(bnfold, "drift", fail, raising=False)
    done = CliRunner().invoke(program, ["drift", "model.onnx", "--data", "data.npy", "--quiet"], prog_name="bnfold")
    assert (done.exit_code, done.stderr) == (2, "bnfold: model.onnx: Connection timed out\n")
