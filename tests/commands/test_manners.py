"""What a shell and its user expect of any program."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from networks import MODELS
from onnx import numpy_helper

from bnfold.commands.verbs import in_order

ROOT = Path(__file__).parents[2]
VERBS = ["optimize", "check", "verify"]


def test_python_m():
    """`python -m bnfold` is the same program."""
    command = [sys.executable, "-m", "bnfold", "--version"]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    assert result.stdout.startswith("bnfold ")


@pytest.mark.parametrize(
    ("verb", "hint"),
    [("chekc", "Did you mean 'check'?"), ("fold", "Did you mean 'optimize'?"), ("xyz", "There are optimize, check, ")],
)
def test_a_mistyped_verb(verb, hint, run):
    """Is told what it is like."""
    result = run(verb, "net.onnx")
    assert result.exit_code == 2
    assert f"No such command '{verb}'. {hint}" in result.stderr


def test_a_mistyped_option(run):
    """Likewise."""
    result = run("check", "--formt", "json", "net.onnx")
    assert result.exit_code == 2
    assert "--format" in result.stderr


@pytest.mark.parametrize(
    ("args", "ordered"),
    [
        ("check a", "check a"),
        ("-v check a", "check -v a"),
        ("--format json -q check a b", "check --format json -q a b"),
        ("--debug -v check a", "--debug check -v a"),
        ("check a --debug", "--debug check a"),
        ("check -- --debug", "check -- --debug"),
        ("--help check", "--help check"),
        ("-- check", "-- check"),
        ("frob check", "frob check"),
        ("-v frob", "-v frob"),
        ("", ""),
    ],
)
def test_options_before_the_verb(args, ordered):
    """They are the verb's, but for those that the program has itself."""
    assert in_order(args.split(), VERBS) == ordered.split()


def test_options_before_the_verb_are_heeded(run, model):
    """As behind it."""
    assert run("-q", "check", model).output == ""
    assert run("check", "absent.onnx", "--debug").stderr.startswith("Traceback")


@pytest.mark.parametrize(
    ("words", "completed"),
    [("bnfold che", "plain,check"), ("bnfold check mo", "file,mo"), ("bnfold verify a b", "file,b"),
     ("bnfold optimize -o o", "file,o"), ("bnfold check --fail", "plain,--fail-on")],
)  # fmt: skip
def test_completion(words, completed, tmp_path):
    """Of verbs, options and files; a table that makes no sense is not its business."""
    (tmp_path / "pyproject.toml").write_text("[tool.bnfold]\nnonsense = 1\n")
    environment = {"COMP_WORDS": words, "COMP_CWORD": str(len(words.split()) - 1), "_BNFOLD_COMPLETE": "bash_complete"}
    result = subprocess.run(
        [sys.executable, str(ROOT / "cli.py")],
        env={**os.environ, "PYTHONPATH": str(ROOT), **environment},
        cwd=tmp_path, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert completed in result.stdout.splitlines()
    assert result.stderr == ""


def test_an_output_that_exists(run, model):
    """Both commands name the option that helps."""
    data = model.with_name("data.npy")
    np.save(data, np.ones((4, 2, 6, 6), np.float32))
    for command in (["optimize"], ["calibrate", "--data", data]):
        verb = "folded" if command == ["optimize"] else "calibrated"
        there = model.with_name(f"net.{verb}.onnx")
        there.write_bytes(b"precious")
        result = run(*command, model)
        assert result.exit_code == 2
        assert "--force" in result.stderr
        assert there.read_bytes() == b"precious"
    assert "--in-place" in run("optimize", model, "-o", model).stderr


def test_a_shape_that_was_guessed_wrong(run, tmp_path):
    """The option that gives it is named, with the input."""
    model = onnx.parser.parse_model("""<ir_version: 8, opset_import: ["": 17]>
        net (float[N, 1, H, W] image) => (float[N, 2] y) { c = Conv(image, w) f = Flatten(c) y = MatMul(f, g) }""")
    for name, shape in (("w", (1, 1, 1, 1)), ("g", (77 * 3, 2))):
        model.graph.initializer.append(numpy_helper.from_array(np.ones(shape, np.float32), name))
    onnx.save(model, path := tmp_path / "open.onnx")
    model.graph.initializer[0].CopyFrom(numpy_helper.from_array(np.full((1, 1, 1, 1), 1.0000001, np.float32), "w"))
    onnx.save(model, other := tmp_path / "other.onnx")
    assert "--shape image=" in run("verify", path, other).stdout
    assert "--shape" not in run("verify", path, other, "--shape", "image=2,1,77,3").stdout


def test_calibrate_says_where_it_wrote(run, model):
    """As optimize does."""
    out = model.with_name("out.onnx")
    result = run("calibrate", MODELS / "digits_mlp.onnx", "--data", MODELS / "digits_test.npz", "-o", out)
    assert f"written to {out}" in result.stdout


def test_data_that_would_not_be_used(run, model):
    """Is refused, as other options of the runs are."""
    result = run("verify", model, model, "--no-run", "--data", "data.npy")
    assert result.exit_code == 2
    assert "--data is for running the models, which --no-run forbids" in result.stderr


def test_what_is_missing(run, model):
    """Is said, and no more."""
    assert "bnfold: AFTER is missing" in run("verify", model).stderr
    assert "bnfold: BEFORE and AFTER are missing" in run("verify").stderr


@pytest.mark.parametrize(
    "args",
    [["check", "net.onnx", "net.onnx", "--keep", "x"], ["optimize", "net.onnx", "absent.onnx", "--output-dir", "o"]],
)
def test_a_path_once(args, run, model, monkeypatch):
    """In each line, however it was found that something is wrong."""
    monkeypatch.chdir(model.parent)
    for line in run(*args).stderr.splitlines():
        assert line.count(".onnx") == 1


@pytest.mark.parametrize("form", ["text", "markdown"])
@pytest.mark.parametrize("name", ["a\x1b[31mb\nc.onnx", f"folder/{'x' * 230}.onnx"], ids=["escaped", "shortened"])
def test_a_path_that_is_not_shown_as_it_is_once(name, form, run, tmp_path, monkeypatch):
    """Nor twice because its two forms differ."""
    monkeypatch.chdir(tmp_path)
    result = run("check", name, "--format", form)
    for text in filter(None, (result.stdout, result.stderr)):
        assert text.count(".onnx") == 1


def test_one_of_a_kind_is_one(run, model):
    """And not a plural."""
    folded = model.with_name("folded.onnx")
    run("optimize", model, "--no-verify", "-o", folded)
    assert "1 of 1 changed region equal" in run("verify", model, folded).stdout


@pytest.mark.parametrize(
    "command", [["optimize"], ["check"], ["calibrate", "--data", "x.npy"]], ids=lambda args: args[0]
)
@pytest.mark.parametrize("model", ["", ".", "/", ".."])
def test_a_folder_is_no_model(run, command, model):
    """Not even one that has no name to make that of an output of."""
    result = run(*command, model)
    assert result.exit_code == 2
    assert result.stderr.endswith(": is a folder\n")
