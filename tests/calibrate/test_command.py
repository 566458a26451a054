"""`bnfold calibrate` and `bnfold drift`: exit codes, one line for each error, nothing written after one."""

import json

import numpy as np
import onnx
import pytest
from click.testing import CliRunner
from small import MODELS, TEST, TRAIN, bn_model, statistics_in

from bnfold.commands import program

MODEL = str(MODELS / "digits_mlp.train.onnx")


@pytest.fixture
def bnfold(tmp_path, monkeypatch):
    """Runs a command in an empty folder."""
    monkeypatch.chdir(tmp_path)

    def run(*args, **more):
        return CliRunner().invoke(program, [str(arg) for arg in args], prog_name="bnfold", **more)

    return run


def test_calibrate_and_drift(bnfold, tmp_path):
    """Writes the model, says what happened, and the result has no drift."""
    result = bnfold("calibrate", MODEL, "--data", TRAIN, "-o", "out.onnx", "--batch-size", 50)
    assert result.exit_code == 0, result.output
    assert "3 BatchNormalizations calibrated on 1000 samples (sequential, batch size 50" in result.stdout
    assert "the largest residual is" in result.stdout
    assert "warning: Dropout" in result.stdout
    result = bnfold("drift", "out.onnx", "--data", TEST, "--format", "json", "--fail-above", 0.1, "--plot", "d.svg")
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout)["verdict"] == "fine"
    assert (tmp_path / "d.svg").read_text().startswith("<svg")


def test_fail_above(bnfold):
    """For CI: exit 1."""
    result = bnfold("drift", MODELS / "digits_mlp.onnx", "--data", TEST, "--fail-above", 1e-9, "--max-samples", 64)
    assert result.exit_code == 1


@pytest.mark.parametrize("score", ["nan", "-1", "much"])
def test_fail_above_takes_a_score(score, bnfold):
    """NaN would let everything pass."""
    result = bnfold("drift", MODELS / "digits_mlp.onnx", "--data", TEST, "--fail-above", score)
    assert result.exit_code == 2
    assert "--fail-above" in result.stderr


def test_options_reach_the_verb(bnfold):
    """A moving average with PyTorch's variance, from nothing, of an even stride."""
    result = bnfold(
        "calibrate", MODEL, "--data", TRAIN, "-o", "out.onnx", "--method", "ema", "--momentum", 0.5, "--unbiased",
        "--reset", "--max-samples", 100, "--batch-size", 50, "--threads", 1, "--arithmetic", "--format", "json",
    )  # fmt: skip
    found = json.loads(result.stdout)
    assert (found["method"], found["samples"], found["batch_size"]) == ("ema", 100, 50)


def test_pipes(bnfold):
    """From standard input to standard output; the report goes to standard error."""
    data = np.random.default_rng(0).normal(size=(8, 3, 4, 4)).astype(np.float32)
    np.save("x.npy", data)
    result = bnfold("calibrate", "-", "--data", "x.npy", input=bn_model(training=True).SerializeToString())
    assert result.exit_code == 0
    model = onnx.ModelProto.FromString(result.stdout_bytes)
    np.testing.assert_allclose(statistics_in(model)[0], data.mean((0, 2, 3)), atol=1e-6)
    assert "calibrated on 8 samples" in result.stderr


@pytest.mark.parametrize(
    ("args", "message"),
    [
        pytest.param(["--data", "none.npz"], "none.npz: no such file", id="no-file"),
        pytest.param(["--data", MODELS / "digits_labels.npz"], "no array for input 'image'", id="no-name"),
        pytest.param(
            ["--data", "wrong.npy"], "input 'image' takes float32 [?, 1, 8, 8], the data has int64", id="type"
        ),
        pytest.param(["--data", "empty.npy"], "no samples", id="empty"),
        pytest.param(["--data", "raises.py"], "raises.py:load_data: ZeroDivisionError", id="script"),
        pytest.param([], "give --data, or --images", id="none"),
        pytest.param(["--images", "."], "--images needs --size and --mean and --std", id="images"),
        pytest.param(["--data", TRAIN, "--cache-memory", "much"], "'much' is no size", id="size"),
        pytest.param(["--data", TRAIN, "--seed", "-1"], "-1 is not in the range", id="seed"),
        pytest.param(["--data", TRAIN, "--momentum", "1"], "a momentum of 1.0 makes no average", id="momentum"),
        pytest.param(["--data", TRAIN, "--prior", "4", "--reset"], "give one of the two", id="prior-and-reset"),
        pytest.param(["--data", TRAIN, "-o", "none/out.onnx"], "there is no folder", id="no-folder"),
        pytest.param(["--data", TRAIN, "-o", "out.onnx", "--in-place"], "no output can be given", id="in-place"),
        pytest.param(["--data", TRAIN, "--work-dir", "nowhere"], "no folder for temporary files", id="work-dir"),
    ],
)
def test_bad_usage(args, message, bnfold, tmp_path):
    """Exit 2, one line, nothing written."""
    np.save("wrong.npy", np.zeros((4, 1, 8, 8), np.int64))
    np.save("empty.npy", np.zeros((0, 1, 8, 8), np.float32))
    (tmp_path / "raises.py").write_text("def load_data():\n    yield 1 / 0\n")
    before = sorted(tmp_path.iterdir())
    target = [] if "-o" in args else ["-o", "made.onnx"]
    result = bnfold("calibrate", MODEL, *args, *target)
    assert result.exit_code == 2
    assert message in result.stderr
    assert result.stdout == ""
    assert sorted(tmp_path.iterdir()) == before


def test_no_batchnorm(bnfold):
    """Names the export options that keep them."""
    result = bnfold("calibrate", MODELS / "digits_mlp.decomposed.onnx", "--data", TRAIN, "-o", "out.onnx")
    assert result.exit_code == 2
    assert "do_constant_folding=False" in result.stderr


def test_the_default_output_is_not_replaced(bnfold, tmp_path):
    """Unless told."""
    model = tmp_path / "m.onnx"
    onnx.save(bn_model(), model)
    np.save("x.npy", np.random.default_rng(0).normal(size=(8, 3, 4, 4)).astype(np.float32))
    assert bnfold("calibrate", model, "--data", "x.npy").exit_code == 0
    assert (tmp_path / "m.calibrated.onnx").exists()
    again = bnfold("calibrate", model, "--data", "x.npy")
    assert again.exit_code == 2
    assert "already exists" in again.stderr
    assert bnfold("calibrate", model, "--data", "x.npy", "--force").exit_code == 0
