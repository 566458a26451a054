"""What holds for every command: start-up, errors, exit codes."""

import os
import re
import subprocess
import sys
from pathlib import Path

import click
import pytest

import bnfold
from bnfold.commands import program

ROOT = Path(__file__).parents[2]
HEAVY = ("numpy", "onnx", "onnxruntime")
LOADED = f"""
import sys
from bnfold.commands import main
try:
    main()
finally:
    print(*(name for name in {HEAVY} if name in sys.modules), file=sys.stderr)
"""


def process(*args: str | Path, code: str = "", **options: object) -> "subprocess.CompletedProcess[str]":
    """`python cli.py ARGS…` in a process of its own, or Python code with these arguments."""
    start = [sys.executable, "-c", code] if code else [sys.executable, ROOT / "cli.py"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.run(
        [*start, *args], text=True, errors="replace", stderr=subprocess.PIPE, env=environment, check=False, **options
    )


@pytest.mark.parametrize("args", [["--version"], ["--help"], ["optimize", "--help"], ["check", "--help"]])
def test_help_and_version_are_light(args):
    """What answers without a model imports nothing to read one with."""
    result = process(*args, code=LOADED, stdout=subprocess.PIPE)
    assert result.returncode == 0
    assert result.stdout
    assert result.stderr.split() == []


@pytest.mark.parametrize("args", [["check"], ["optimize", "--no-verify"]])
def test_nothing_runs_a_model_unasked(args, model):
    """Only verification imports ONNX Runtime."""
    result = process(*args, model, code=LOADED, stdout=subprocess.PIPE)
    assert "onnx" in result.stderr.split()
    assert "onnxruntime" not in result.stderr.split()


def test_launcher(model, tmp_path):
    """`python cli.py` does what `bnfold` does, from any folder."""
    result = process("optimize", model.name, "--no-verify", cwd=tmp_path, stdout=subprocess.PIPE)
    assert (result.returncode, result.stderr) == (0, "")
    assert result.stdout.startswith("UNVERIFIED  net.onnx  1 of 1 BatchNormalization folded, not verified\n")
    assert (tmp_path / "net.folded.onnx").exists()


def test_version(run):
    """The version is that of the package."""
    assert run("--version").stdout == f"bnfold {bnfold.__version__}\n"


def test_commands_are_those_that_exist(run):
    """Help lists a command exactly if it can be called."""
    listed = [line.split()[0] for line in run("--help").stdout.partition("Commands:\n")[2].splitlines()]
    assert {"optimize", "check"} <= set(listed)
    for name in listed:
        assert run(name, "--help").exit_code == 0


@pytest.mark.parametrize("verb", ["optimize", "check", "verify", "calibrate", "drift"])
def test_options_stand_under_headings(verb, run):
    """All of them, once, under the headings that the verb has and no other."""
    command = program.get_command(click.Context(program), verb)
    headings = re.findall(r"^([A-Z].*):$", run(verb, "--help").stdout, re.MULTILINE)
    assert headings == list(command.sections.values())
    shown = re.findall(r"^  (?:-\w, )?(--[\w-]+)", run(verb, "--help").stdout, re.MULTILINE)
    assert sorted(shown) == sorted(
        next(flag for flag in param.opts if flag.startswith("--"))
        for param in command.get_params(click.Context(command, help_option_names=["-h", "--help"]))
        if isinstance(param, click.Option)
    )


def test_unknown_command(run):
    """A command that does not exist is a usage error."""
    result = run("fold")
    assert result.exit_code == 2
    assert "No such command 'fold'" in result.stderr


@pytest.mark.parametrize(
    ("error", "code", "line"),
    [
        pytest.param(KeyboardInterrupt(), 130, "bnfold: interrupted\n", id="interrupted"),
        pytest.param(
            OSError(28, "No space left on device", "out"), 2, "bnfold: out: No space left on device\n", id="os"
        ),
        pytest.param(MemoryError(), 1, "bnfold: {model}: not enough memory\n", id="memory"),
        pytest.param(
            RuntimeError("two\nlines"),
            70,
            "bnfold: {model}: internal error: RuntimeError: two lines; please report it with what --debug shows\n",
            id="internal",
        ),
    ],
)
def test_errors_are_one_line(error, code, line, run, model, monkeypatch):
    """Whatever goes wrong is told in one line."""

    def fail(*args: object, **options: object) -> None:
        raise error

    monkeypatch.setattr("bnfold.optimization.forecast.make_plan", fail)
    result = run("check", model)
    assert (result.exit_code, result.stdout.strip(), result.stderr) == (code, "", line.format(model=model))


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no SIGTERM to send")
def test_terminated(model, tmp_path):
    """Another exit code than Ctrl-C's, and as little left behind."""
    script = tmp_path / "data.py"
    script.write_text("import time\ndef load_data():\n    print('asked', flush=True)\n    time.sleep(600)\n")
    command = [sys.executable, ROOT / "cli.py", "calibrate", model, "--data", script, "-o", tmp_path / "out.onnx"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=ROOT) as running:
        assert running.stdout.readline() == "asked\n"
        running.terminate()
        assert (running.wait(60), running.stderr.read()) == (143, "bnfold: terminated\n")
    assert {path.name for path in tmp_path.iterdir()} == {"net.onnx", "data.py"}


def test_debug_shows_the_traceback(run, model, monkeypatch):
    """With --debug it stands above the line, names in it escaped."""

    def fail(*args: object, **options: object) -> None:
        raise RuntimeError("\x1b[2J")

    monkeypatch.setattr("bnfold.optimization.forecast.make_plan", fail)
    monkeypatch.setattr("bnfold.optimization.pipeline.plan", fail)
    for command in ("check", "optimize"):
        lines = run("--debug", command, model).stderr.splitlines()
        assert lines[0] == "Traceback (most recent call last):"
        assert lines[-2] == r"RuntimeError: \x1b[2J"
        assert "internal error" in lines[-1]


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "cp437"])
@pytest.mark.parametrize("form", ["text", "markdown", "json"])
def test_any_encoding_will_do(encoding, form, model, monkeypatch):
    """What standard output cannot encode is spelt out, or written as UTF-8."""
    monkeypatch.setenv("PYTHONIOENCODING", encoding)
    result = process("optimize", model, "-o", model.with_name("größe.onnx"), "--no-verify", "--format", form, stdout=-1)
    assert (result.returncode, result.stderr) == (0, "")
    assert "1" in result.stdout


def test_closed_pipe_is_quiet(model):
    """`bnfold … | head` ends without a word."""
    reader, writer = os.pipe()
    os.close(reader)
    try:
        result = process("check", model, stdout=writer)
    finally:
        os.close(writer)
    assert (result.returncode, result.stderr) == (141, "")
