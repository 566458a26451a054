"""`--format` and `--also`: the forms of a report, and where it goes."""

import json
import os
from concurrent.futures import ThreadPoolExecutor
from xml.etree import ElementTree as ET

import numpy as np
import onnx
import pytest
from networks import MODELS

from bnfold.page import Screen


@pytest.mark.parametrize(
    ("command", "wrong"),
    [("optimize", "sarif"), ("verify", "sarif"), ("calibrate", "junit"), ("calibrate", "sarif"), ("drift", "sarif")],
)
def test_forms_that_make_no_sense(command, wrong, model, run):
    """They are no choice: findings are what `check` has, and a calibration is no test."""
    result = run(command, model, "--format", wrong)
    assert result.exit_code == 2
    assert f"'{wrong}' is not one of" in result.stderr


def test_also_writes_the_same_report(model, run, tmp_path):
    """In any number of forms, each as `--format` prints it; what is printed stays what it was."""
    forms = ("text", "json", "markdown", "html", "github", "junit", "sarif")
    also = [f"--also={form}={tmp_path / form}" for form in forms]
    result = run("check", model, *also)
    assert (result.exit_code, result.stdout) == (1, run("check", model).stdout)
    for form in forms:
        assert (tmp_path / form).read_text(encoding="utf-8") == run("check", model, "--format", form).stdout


def test_also_writes_if_nothing_is_printed(model, run, tmp_path):
    """`--quiet` is for the terminal."""
    assert run("check", model, "--quiet", "--also", f"junit={tmp_path / 'a=b.xml'}").stdout == ""
    assert ET.fromstring((tmp_path / "a=b.xml").read_text(encoding="utf-8")).get("failures") == "1"


@pytest.mark.parametrize("given", ["junit", "junit=", "=x.xml", "xml=x.xml", ""])
def test_also_is_a_form_and_a_file(given, model, run):
    """One without the other is a mistake."""
    result = run("check", model, "--also", given)
    assert result.exit_code == 2
    assert "is not of the form" in result.stderr


@pytest.mark.parametrize(
    "command",
    [
        ("check", "net.onnx", "--also", "json=-"),
        ("optimize", "net.onnx", "--certificate", "-"),
        ("drift", "net.onnx", "--data", "x.npy", "--plot", "-"),
    ],
    ids=["also", "certificate", "plot"],
)
def test_beside_what_is_printed_there_are_files_alone(command, run, tmp_path, monkeypatch):
    """A `-` is standard output elsewhere, and here no file of that name."""
    monkeypatch.chdir(tmp_path)
    result = run(*command)
    assert (result.exit_code, result.stderr.count("\n")) == (2, 1)
    assert "'-' stands for no file here" in result.stderr
    assert list(tmp_path.iterdir()) == []


def test_also_where_nothing_can_be_written(model, run, tmp_path):
    """It is said in a line."""
    result = run("check", model, "--also", f"json={tmp_path}/no/x.json")
    assert result.exit_code == 2
    assert result.stderr.count("\n") == 1
    assert "there is no folder" in result.stderr


def test_also_replaces_at_once(model, run, tmp_path):
    """A report that stood there is gone, and no other file is left."""
    report = tmp_path / "reports/report.json"
    report.parent.mkdir()
    report.write_text("old" * 100_000)
    run("check", model, "--also", f"json={report}")
    json.loads(report.read_text(encoding="utf-8"))
    assert list(report.parent.iterdir()) == [report]


def test_also_is_never_as_for_a_terminal(model, run, tmp_path, monkeypatch):
    """What stands in a file is not cut to the width of one, nor coloured."""
    plain, report = run("check", model).stdout, tmp_path / "report.txt"
    monkeypatch.setattr(Screen, "of", lambda _stream: Screen(40, is_coloured=True))
    assert run("check", model, "--also", f"text={report}").stdout != plain
    assert report.read_text(encoding="utf-8") == plain


def test_also_takes_the_place_of_no_pipe(model, run, tmp_path):
    """It is written to."""
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    with ThreadPoolExecutor(1) as threads:
        reading = threads.submit(pipe.read_text)
        run("check", model, "--quiet", "--also", f"json={pipe}")
        assert json.loads(reading.result(timeout=30))["models"]
    assert pipe.is_fifo()


def test_also_of_several_models(model, run, tmp_path):
    """One report about all of them, and one that failed is in it."""
    broken = model.with_name("broken.onnx")
    broken.write_bytes(b"")
    xml, out = tmp_path / "report.xml", tmp_path / "out"
    for verb in (["check"], ["optimize", "--output-dir", out, "--no-verify"]):
        assert run(*verb, model, broken, "--also", f"junit={xml}").exit_code == 2
        suites = ET.fromstring(xml.read_text(encoding="utf-8"))
        assert [suite.get("name") for suite in suites] == [str(model), str(broken)]
        assert suites[1].find("testcase[@classname='model']/failure").get("message") == "is empty"


def test_a_model_that_is_not_written_fails_a_test(model, run, tmp_path):
    """Alone, and among others."""
    training = onnx.load(model)
    training.graph.node[1].attribute.append(onnx.helper.make_attribute("training_mode", 1))
    onnx.save(training, model)
    for where in (["-o", tmp_path / "out.onnx"], ["--output-dir", tmp_path / "out"]):
        result = run("optimize", model, *where, "--require-none", "--format", "junit")
        assert result.exit_code == 1
        (failure,) = ET.fromstring(result.stdout).iter("failure")
        assert "1 BatchNormalization stays: the_BatchNormalization" in failure.get("message")


def test_what_is_allowed_passes_its_test(run):
    """A BatchNormalization that the gate lets pass is a test that says why it stays."""
    model = MODELS / "digits_mlp.train.onnx"
    failed, passed = (
        ET.fromstring(run("check", model, "--format", "junit", *more).stdout)
        for more in ([], ["--allow", "TRAINING_MODE"])
    )
    assert (failed.get("failures"), passed.get("failures")) == ("3", "0")
    assert failed.get("tests") == passed.get("tests") == "4"
    assert "TRAINING_MODE" in passed.find(".//system-out").text


@pytest.mark.parametrize(("limit", "level"), [([], "warning"), (["--fail-above", "0.05"], "error")])
def test_drift_annotates_what_is_too_far(limit, level, run, tmp_path):
    """As an error where there is a limit, else as something to look at."""
    np.save(tmp_path / "x.npy", np.zeros((64, 1, 8, 8), np.float32))
    model = MODELS / "digits_resnet.onnx"
    result = run("drift", model, "--data", tmp_path / "x.npy", *limit, "--format", "github")
    assert result.exit_code == (1 if limit else 0)
    assert f"\n::{level} file=" in result.stdout
    assert f"title=bnfold%3A drift::{model}: score: recalibrate (score " in result.stdout
    assert ("more than 0.05" in result.stdout) is bool(limit)


def test_calibrate_annotates_its_warnings(run, tmp_path):
    """And nothing else."""
    model = MODELS / "digits_mlp.train.onnx"
    data = "--data", MODELS / "digits_test.npz", "-o", tmp_path / "out.onnx", "--format", "github"
    lines = run("calibrate", model, *data).stdout.splitlines()
    assert [line.partition(" ")[0] for line in lines] == [f"{model}:", "::warning"]
    assert "Dropout was exported in training mode" in lines[1]


ALSO_TAKEN = {
    "the model": ("optimize", "net.onnx", "--dry-run", "--also", "json=net.onnx"),
    "the output": ("optimize", "net.onnx", "-o", "out.onnx", "--also", "html=out.onnx"),
    "the default output": ("optimize", "net.onnx", "--also", "html=net.folded.onnx"),
    "the certificate": ("optimize", "net.onnx", "-o", "out.onnx", "--certificate", "c.json", "--also", "json=./c.json"),
    "the report": ("check", "net.onnx", "--report", "r.html", "--also", "html=r.html"),
    "another": ("check", "net.onnx", "--also", "html=r.html", "--also", "json=r.html"),
    "one of several": ("check", "net.onnx", "other.onnx", "--also", "sarif=other.onnx"),
    "one of many outputs": ("optimize", "net.onnx", "other.onnx", "--output-dir", "d", "--also", "json=d/other.onnx"),
    "what is compared": ("verify", "net.onnx", "other.onnx", "--also", "json=other.onnx"),
    "the data": ("calibrate", "net.onnx", "--data", "x.npy", "--also", "json=x.npy"),
    "the reference": (
        "calibrate",
        "net.onnx",
        "--data",
        "x.npy",
        "--reference",
        "other.onnx",
        "--also",
        "json=other.onnx",
    ),
    "a model that others follow": ("verify", "net.onnx", "other.onnx", "--also", "json=net.onnx"),
    "data of a verification": ("verify", "net.onnx", "other.onnx", "--data", "x.npy", "--also", "json=x.npy"),
    "data of a drift": ("drift", "net.onnx", "--data", "x.npy", "--also", "json=x.npy"),
    "the model of a drift": ("drift", "net.onnx", "--data", "x.npy", "--also", "json=net.onnx"),
    "data of an optimization": ("optimize", "net.onnx", "--calibrate", "x.npy", "--also", "json=x.npy"),
    "data of several": (
        *("optimize", "net.onnx", "other.onnx", "--output-dir", "d", "--no-verify"),
        *("--calibrate", "x.npy", "--also", "json=x.npy"),
    ),
    "one of several to optimize": (
        *("optimize", "net.onnx", "other.onnx", "--output-dir", "d", "--no-verify", "--also", "json=other.onnx"),
    ),
    "the plot": ("drift", "net.onnx", "--data", "x.npy", "--plot", "p.svg", "--also", "json=p.svg"),
    "data as a plot": ("drift", "net.onnx", "--data", "x.npy", "--plot", "x.npy"),
    "the model as a plot": ("drift", "net.onnx", "--data", "x.npy", "--plot", "net.onnx"),
    "data as an output": ("calibrate", "net.onnx", "--data", "x.npy", "-o", "x.npy"),
    "data of a fold as an output": ("optimize", "net.onnx", "--calibrate", "x.npy", "-o", "x.npy"),
    "no folder": ("optimize", "net.onnx", "-o", "out.onnx", "--also", "json=nowhere/x"),
}


@pytest.mark.parametrize("args", ALSO_TAKEN.values(), ids=ALSO_TAKEN)
def test_nothing_else_is_written_over(run, tmp_path, monkeypatch, args):
    """One line says so before any work, and every file is what it was."""
    monkeypatch.chdir(tmp_path)
    for name in ("net.onnx", "other.onnx"):
        (tmp_path / name).write_bytes((MODELS / "digits_mlp.onnx").read_bytes())
    np.save("x.npy", np.load(MODELS / "digits_train.npz")["image"][:4])
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}
    result = run(*args)
    assert result.exit_code == 2
    assert len(result.stderr.splitlines()) <= 4
    assert {path: path.read_bytes() for path in tmp_path.iterdir() if path.is_file()} == before
