"""Several models in one run."""

import errno
import json
import os
import threading
from multiprocessing.context import SpawnProcess
from pathlib import Path

import onnx
import pytest

import bnfold
from bnfold.commands.many import Job, _Children


@pytest.fixture
def models(model):
    """One that folds, one that cannot be read, and another one that folds."""
    bad, other = model.with_name("bad.onnx"), model.with_name("other.onnx")
    bad.write_bytes(b"no model")
    other.write_bytes(model.read_bytes())
    return [model, bad, other]


@pytest.mark.parametrize("jobs", [[], ["--jobs", "2"]], ids=["one-at-a-time", "two-at-a-time"])
def test_one_failure_does_not_stop_the_others(jobs, run, models, batchnorms):
    """A line for each and one for all, and the worst exit code."""
    folder = models[0].parent / "new" / "folder"
    result = run("optimize", *models, "--output-dir", folder, *jobs)
    assert result.exit_code == 2
    first, second, total = result.stdout.splitlines()
    assert first == f"OK  {models[0]}  1 of 1 BatchNormalization folded, verified"
    assert second.startswith("OK  ")
    assert total.startswith("3 models, 2 written: 2 of 2 BatchNormalizations folded; 6 → 4 nodes; ")
    assert total.endswith("; 1 failed")
    assert result.stderr.startswith(f"bnfold: {models[1]}: ")
    assert {path.name: batchnorms(path) for path in folder.iterdir()} == {"net.onnx": 0, "other.onnx": 0}


@pytest.mark.parametrize("jobs", ["1", "2"])
def test_the_report_has_them_in_order(jobs, run, models, tmp_path):
    """As JSON, with the one that failed."""
    result = run("optimize", *models, "--output-dir", tmp_path / "out", "--format", "json", "--jobs", jobs)
    entries = json.loads(result.stdout)["models"]
    assert [entry["model"] for entry in entries] == list(map(str, models))
    assert [bool(entry["error"]) for entry in entries] == [False, True, False]
    assert entries[2]["verification"]["verdict"] == "equivalent"


def test_verbose(run, models, tmp_path):
    """A table for each."""
    result = run("optimize", *models, "--output-dir", tmp_path / "out", "-v")
    assert result.stdout.count("folded  the_BatchNormalization  BatchNormalization") == 2


def test_nothing_is_replaced_unasked(run, model, tmp_path):
    """Not even in a folder that was named."""
    assert run("optimize", model, "--output-dir", tmp_path / "out").exit_code == 0
    result = run("optimize", model, "--output-dir", tmp_path / "out")
    assert result.exit_code == 2
    assert result.stderr == f"bnfold: {tmp_path / 'out' / 'net.onnx'}: already exists; --force replaces it\n"
    assert run("optimize", model, "--output-dir", tmp_path / "out", "--force").exit_code == 0


def test_in_place(run, models, batchnorms):
    """Each over itself."""
    assert run("optimize", models[0], models[2], "--in-place").exit_code == 0
    assert [batchnorms(path) for path in (models[0], models[2])] == [0, 0]


def test_one_that_is_not_written_is_told(run, models, tmp_path):
    """With exit code 1, and the others are written."""
    proto = onnx.load(models[0])
    proto.graph.node[1].attribute.append(onnx.helper.make_attribute("training_mode", 1))
    onnx.save(proto, models[1])
    result = run("optimize", *models, "--output-dir", tmp_path / "out", "--require-none", "--no-verify")
    assert result.exit_code == 1
    assert result.stderr == f"bnfold: {models[1]}: not written: 1 BatchNormalization stays: the_BatchNormalization\n"
    assert result.stdout.splitlines()[-1].startswith("3 models, 2 written: 2 of 2 ")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        pytest.param([], "several models need --output-dir", id="no-place"),
        pytest.param(["-o", "out.onnx"], "-o is for one model", id="one-output"),
        pytest.param(["--output-dir", "out", "-o", "x"], "--output-dir names the outputs", id="two-places"),
        pytest.param(["--output-dir", "out", "--in-place"], "--output-dir names the outputs", id="in-place-and-folder"),
        pytest.param(["--output-dir", "out", "--certificate", "c"], "--certificate is for one model", id="certificate"),
        pytest.param(["--output-dir", "out", "-"], "standard input", id="standard-input"),
        pytest.param(
            ["--output-dir", "out", "other/net.onnx"], "would both be written to out/net.onnx", id="same-name"
        ),
    ],
)
def test_what_several_cannot_have(options, words, run, models, monkeypatch, tmp_path):
    """Is said before anything is done."""
    monkeypatch.chdir(tmp_path)
    before = set(tmp_path.iterdir())
    result = run("optimize", *models, *options)
    assert result.exit_code == 2
    assert words in result.stderr
    assert set(tmp_path.iterdir()) == before


class Deadly:
    """Ends the process that unpickles it."""

    def __reduce__(self):
        return os._exit, (9,)

    def __str__(self):
        return "deadly.onnx"


def test_a_process_that_dies_is_one_failure(model):
    """The others have processes of their own."""
    children = _Children()
    assert children.done(Job(Deadly(), None, {}, False)).error.startswith("deadly.onnx: its process was killed")
    options = {"overwrite": False, "memory": None, "verify": "off"}
    assert children.done(Job(str(model), None, options, False)).ok
    children.stop()
    assert children.done(Job(str(model), None, options, False)).exit_code == 130


def test_processes_that_cannot_be_started(run, models, tmp_path, monkeypatch):
    """A line for each, and for all of them where not even the threads that wait for them start."""

    def start(*_):
        raise BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN))

    options = "optimize", *models, "--output-dir", tmp_path, "--jobs", "2"
    monkeypatch.setattr(SpawnProcess, "start", start)
    result = run(*options)
    assert result.exit_code == 2
    why = "the system does not let a process start: Resource temporarily unavailable"
    assert result.stderr.splitlines() == [f"bnfold: {model}: {why}" for model in models]

    def begin(*_):
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", begin)
    result = run(*options)
    assert result.exit_code == 2
    assert result.stderr == "bnfold: --jobs: the system does not let so many start\n"


def test_an_error_in_bnfold_itself(run, models, tmp_path, monkeypatch):
    """Is one failure, too."""
    optimize = bnfold.optimize

    def broken(model: str, *args: object, **options: object) -> bnfold.Optimized:
        if Path(model) == models[0]:
            raise RuntimeError("broken")
        return optimize(model, *args, **options)

    monkeypatch.setattr("bnfold.optimize", broken)
    result = run("--debug", "optimize", *models, "--output-dir", tmp_path / "out", "--no-verify")
    assert result.exit_code == 70
    assert "Traceback" in result.stderr
    assert f"bnfold: {models[0]}: internal error: RuntimeError: broken; " in result.stderr
    assert (tmp_path / "out" / "other.onnx").exists()


def test_check_hides_what_is_clean(run, model, models):
    """Unless it is the only one, or -v is given; and says how many there are."""
    clean = model.with_name("clean.onnx")
    assert run("optimize", model, "--no-verify", "-o", clean).exit_code == 0
    lines = run("check", model, clean, models[1]).stdout.splitlines()
    assert [line for line in lines if str(clean) in line] == []
    assert lines[0].startswith(f"FOUND  {model}  1 of 1 ")
    assert lines[-2:] == ["", "3 models checked: 1 with findings, 1 failed, 1 clean"]
    assert f"CLEAN  {clean}  no BatchNormalization" in run("check", "-v", model, clean).stdout
    assert run("check", clean, clean).stdout == "2 models checked: all clean\n"
    assert run("check", clean).stdout.startswith(f"CLEAN  {clean}  no BatchNormalization")
    assert run("check", clean, clean, "-q").stdout == ""
    assert str(clean) in run("check", model, clean, "--format", "markdown").stdout.replace("\\", "")


def test_a_dry_run_says_what_would_be_written(run, model, tmp_path):
    """Of several, too."""
    other = tmp_path / "other.onnx"
    other.write_bytes(model.read_bytes())
    told = run("optimize", model, other, "--output-dir", tmp_path / "out", "--dry-run", "--no-verify")
    assert told.exit_code == 0
    assert told.stdout.splitlines()[-1].startswith("2 models, 2 would be written: ")
    assert not (tmp_path / "out").exists()
