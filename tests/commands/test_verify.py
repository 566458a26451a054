"""`bnfold verify` in process."""

import json
import os
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree as ET

import onnx
import pytest
from click.testing import CliRunner, Result
from networks import MODELS
from onnx import numpy_helper

from bnfold.commands import program
from bnfold.folding import plan
from bnfold.model_io import load, to_proto

BEFORE = MODELS / "digits_resnet.onnx"


def run(*arguments: object) -> Result:
    return CliRunner().invoke(program, ["verify", *map(str, arguments)])


@pytest.fixture(scope="module")
def folded(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("models") / "folded.onnx"
    onnx.save(to_proto(plan(load(BEFORE)).model), path)
    return path


@pytest.fixture(scope="module")
def broken(folded) -> Path:
    model = onnx.load(folded)
    tensor = next(tensor for tensor in model.graph.initializer if len(tensor.dims) == 4)
    values = numpy_helper.to_array(tensor).copy()
    values[3] *= 1.01
    tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))
    path = folded.with_name("broken.onnx")
    onnx.save(model, path)
    return path


def test_equal_models(folded):
    """Exit code 0, and the first line says it all; --layers shows every region."""
    result = run(BEFORE, folded, "--layers")
    assert result.exit_code == 0, result.stderr
    assert result.stdout.startswith("equivalent: 8 of 8 changed regions equal in float64")
    assert "after   Conv '/3/3.0/3.0.0/Conv'" in result.stdout
    assert "before  Conv '/3/3.0/3.0.0/Conv', BatchNormalization '/3/3.0/3.0.1/BatchNormalization'" in result.stdout
    assert "\nshared: 12 of 20 operators of AFTER are in BEFORE" in result.stdout


def test_different_models(broken):
    """Exit code 1, with the operator and the channel."""
    result = run(BEFORE, broken)
    assert result.exit_code == 1
    assert "first operator at fault: Conv '/0/0.0/0.0.0/Conv'" in result.stdout
    assert "channel 3 of axis 1" in result.stdout


def test_json(broken):
    """The JSON report holds everything and nothing that JSON does not know."""
    content = json.loads(run(BEFORE, broken, "--format", "json").stdout)
    assert content["verdict"] == "different"
    assert content["outputs"][0]["name"] == "logits"
    assert content["regions"][0]["channel"] == 3


def test_junit(folded, broken):
    """One case for each output and region; failures are counted, and the one of the fault is named."""
    assert ET.fromstring(run(BEFORE, folded, "--format", "junit").stdout).get("failures") == "0"
    suites = ET.fromstring(run(BEFORE, broken, "--format", "junit").stdout)
    assert int(suites.get("failures")) >= 2
    failed = suites.find(".//testcase[@classname='regions']/failure/..")
    assert "'/0/0.0/0.0.0/Conv'" in failed.get("name")


def test_markdown(folded):
    """A table for a pull request."""
    assert run(BEFORE, folded, "--no-run", "--layers", "--format", "markdown").stdout.startswith("**equivalent: ")


def test_data(folded):
    """Data of the user, by file."""
    result = run(BEFORE, folded, "--data", BEFORE.with_name("digits_test.npz"), "--format", "json")
    assert result.exit_code == 0, result.stderr
    assert json.loads(result.stdout)["outputs"][0]["inputs"].startswith("data")


def test_help_is_light():
    """`bnfold verify --help` reads no model, and imports nothing to read one with."""
    told = "finally: print(sorted(sys.modules), file=sys.stderr)"
    code = f"import sys\nfrom bnfold.commands import main\ntry: main()\n{told}"
    environment = {**os.environ, "PYTHONPATH": str(BEFORE.parents[1])}
    done = subprocess.run(
        [sys.executable, "-c", code, "verify", "--help"], capture_output=True, text=True, check=True, env=environment
    )
    assert "--provider" in done.stdout
    assert not {"'numpy'", "'onnx'", "'onnxruntime'"} & set(done.stderr.strip("[]\n").split(", "))
