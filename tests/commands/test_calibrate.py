"""`bnfold calibrate` and `bnfold drift`: exit codes, one line for each error, nothing written after one."""

import json

import numpy as np
import onnx
import pytest
from calibration.helpers import TEST, TRAIN, bn_model, statistics_in
from click.testing import CliRunner
from networks import MODELS
from onnx import numpy_helper

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
    """For CI: exit 1, but not for what sampling explains."""
    given = ["drift", MODELS / "digits_mlp.onnx", "--fail-above", 0.01, "--max-samples", 64]
    assert bnfold(*given, "--data", TEST).exit_code == 0
    np.save("bright.npy", np.load(TEST)["image"] + np.float32(1))
    assert bnfold(*given, "--data", "bright.npy").exit_code == 1


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
        pytest.param(["--data", "pictures"], "pictures: nothing in it is data; images are given by", id="pictures"),
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
    (tmp_path / "pictures").mkdir()
    (tmp_path / "pictures" / "a.PNG").touch()
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


def two_samples(folder):
    """A model with two dead channels, and too little data for it."""
    model = bn_model(channels=8, before=[("Mul", {})], training=True)
    model.graph.node[0].input.append("factor")
    factor = np.where(np.arange(8) < 2, 0, 1).astype(np.float32).reshape(8, 1, 1)
    model.graph.initializer.append(numpy_helper.from_array(factor, "factor"))
    onnx.save(model, folder / "m.onnx")
    rng = np.random.default_rng(0)
    x = rng.normal(size=(2, 8, 6, 6)) + 3 * rng.normal(size=(2, 1, 1, 1))
    np.save(folder / "x.npy", x.astype(np.float32))


def test_optimize_tells_of_the_calibration(bnfold, tmp_path):
    """What `calibrate` says stands in the report of `optimize`: text, Markdown and JSON."""
    two_samples(tmp_path)
    alone = bnfold("calibrate", "m.onnx", "--data", "x.npy", "-o", "c.onnx").stdout.splitlines()
    for form in ("text", "markdown"):
        told = bnfold("optimize", "m.onnx", "--calibrate", "x.npy", "-o", "f.onnx", "--format", form).stdout
        assert "m.onnx: 1 BatchNormalization calibrated on 2 samples (sequential, batch size 2)" in told.replace(
            "\\", ""
        )
        assert "channels that hardly vary" in told
    result = bnfold("optimize", "m.onnx", "--calibrate", "x.npy", "-o", "f.onnx")
    assert set(alone) - {"  written to c.onnx"} <= set(result.stdout.splitlines())
    (model,) = json.loads(
        bnfold("optimize", "m.onnx", "--calibrate", "x.npy", "-o", "f.onnx", "--format", "json").stdout
    )["models"]
    found = model["calibration"]
    assert found["samples"] == 2
    assert found["mean_error"] > 0.05
    assert found["residual"] < 1e-6
    assert found["layers"][0]["dead_channels"] == [0, 1]
    assert len(found["warnings"]) == 2
    assert "\n  bn " in bnfold("optimize", "m.onnx", "--calibrate", "x.npy", "-o", "f.onnx", "-v").stdout


def test_optimize_takes_the_options_of_calibrate(bnfold, tmp_path):
    """They reach it, and without `--calibrate` they are a mistake."""
    two_samples(tmp_path)
    options = ["--method", "pooled", "--max-samples", 1, "--batch-size", 1, "--threads", 1]
    given = ["optimize", "m.onnx", "--calibrate", "x.npy", "-o", "f.onnx", "--format", "json"]
    (model,) = json.loads(bnfold(*given, *options).stdout)["models"]
    assert [model["calibration"][key] for key in ("method", "samples", "batch_size")] == ["pooled", 1, 1]
    (model,) = json.loads(bnfold("optimize", MODEL, "-o", "f.onnx", "--format", "json").stdout)["models"]
    assert model["calibration"] is None
    result = bnfold("optimize", "m.onnx", "-o", "f.onnx", *options)
    assert result.exit_code == 2
    assert "--method is for --calibrate, which is not given" in result.stderr


def test_names_reach_the_verb(bnfold, tmp_path):
    """`--only` and `--keep` of calibrate; in `optimize`, whose --keep is of folding, they have longer names."""
    two_samples(tmp_path)
    for command in (["calibrate"], ["optimize", "--calibrate", "x.npy"]):
        prefix, data = ("--calibrate-", []) if len(command) > 1 else ("--", ["--data", "x.npy"])
        for option in ("only", "keep"):
            result = bnfold(*command, "m.onnx", *data, f"{prefix}{option}", "none", "-o", "f.onnx")
            assert result.exit_code == 2
            assert "no BatchNormalization matches 'none'" in result.stderr
