"""`--report` of every command: what it writes, and what is refused before any work."""

import re
import shutil

import pytest
from click.testing import CliRunner
from networks import MODELS

from bnfold import Verdict, Verification
from bnfold.commands import program

MODEL = MODELS / "digits_mlp.onnx"
DATA = MODELS / "digits_train.npz"


@pytest.fixture
def run(tmp_path, monkeypatch):
    """Runs a command in an empty folder."""
    monkeypatch.chdir(tmp_path)
    shutil.copy(MODEL, "net.onnx")
    return lambda *args: CliRunner().invoke(program, [str(arg) for arg in args], prog_name="bnfold")


COMMANDS = {
    "optimize": ("optimize", "net.onnx", "--no-verify"),
    "check": ("check", "net.onnx", "--fail-on", "training"),
    "verify": ("verify", "net.onnx", "net.onnx", "--no-run"),
    "calibrate": ("calibrate", "net.onnx", "--data", DATA, "--max-samples", 16),
    "drift": ("drift", "net.onnx", "--data", DATA, "--max-samples", 16),
}


def untimed(text: str) -> str:
    return re.sub(r"\d+\.\d+ s\b|seconds .*", "", text)


@pytest.mark.parametrize("args", COMMANDS.values(), ids=COMMANDS)
def test_every_command_writes_one(run, tmp_path, args):
    """Beside what it prints and writes anyway, and it says which command it is of."""
    plain = run(*args)
    assert plain.exit_code == 0, plain.output
    written = sorted(tmp_path.iterdir())
    for path in written:
        if path.name != "net.onnx":
            path.unlink()
    told = run(*args, "--report", "report.html")
    assert told.exit_code == 0
    assert untimed(told.stdout) == untimed(plain.stdout)
    assert sorted(tmp_path.iterdir()) == sorted([*written, tmp_path / "report.html"])
    text = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert text.startswith("<!DOCTYPE html>")
    assert f"<title>bnfold {args[0]}: " in text
    assert "net.onnx" in text


@pytest.mark.parametrize("args", COMMANDS.values(), ids=COMMANDS)
def test_without_jinja2_nothing_is_done(run, tmp_path, monkeypatch, args):
    """One line names what to install."""
    monkeypatch.setattr("bnfold.report.write.find_spec", lambda _name: None)
    result = run(*args, "--report", "report.html")
    assert result.exit_code == 2
    assert result.stderr == "bnfold: report.html: a report needs Jinja2: pip install 'bnfold[report]'\n"
    assert [path.name for path in tmp_path.iterdir()] == ["net.onnx"]


@pytest.mark.parametrize("args", COMMANDS.values(), ids=COMMANDS)
def test_no_model_is_written_over(run, tmp_path, args):
    """A report is not written where the model is, even if that is called like a page."""
    (tmp_path / "net.onnx").rename(tmp_path / "net.html")
    (tmp_path / "net.onnx").symlink_to("net.html")
    before = (tmp_path / "net.html").read_bytes()
    result = run(*args, "--report", "net.html")
    assert (result.exit_code, result.stdout) == (2, "")
    assert (tmp_path / "net.html").read_bytes() == before


def test_one_of_a_fold_that_was_not_written(run, tmp_path, monkeypatch):
    """Where the two differ there is all the more to see."""
    found = Verification(Verdict.DIFFERENT, reasons=("so it is told",))
    monkeypatch.setattr("bnfold.verification.verify", lambda *_args, **_options: found)
    result = run("optimize", "net.onnx", "--report", "report.html")
    assert result.exit_code == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == ["net.onnx", "report.html"]
    assert ">different</dd>" in (tmp_path / "report.html").read_text(encoding="utf-8")


@pytest.mark.parametrize("command", ["check", "optimize"])
def test_it_is_for_one_model(run, command):
    """Of several it is refused."""
    more = ["--output-dir", "out"] if command == "optimize" else []
    result = run(command, "net.onnx", "net.onnx", *more, "--report", "report.html")
    assert result.exit_code == 2
    assert "--report is for one model" in result.stderr


def test_a_model_that_cannot_be_read_has_none(run, tmp_path):
    """The old report stays."""
    (tmp_path / "report.html").write_text("old")
    assert run("check", "gone.onnx", "--report", "report.html").exit_code == 2
    assert (tmp_path / "report.html").read_text() == "old"
