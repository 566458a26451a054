"""`check --fail-on`, `--allow`, `optimize --require-none`, and the table in pyproject.toml."""

import json
import os
from xml.etree import ElementTree as ET

import onnx
import pytest
from networks import MODELS

import bnfold


def edited(model, name, edit):
    proto = onnx.load(model)
    edit(proto)
    path = model.with_name(f"{name}.onnx")
    onnx.save(proto, path)
    return path


@pytest.fixture
def training(model):
    """Its BatchNormalization is in training mode."""

    def edit(proto):
        (node,) = (node for node in proto.graph.node if node.op_type == "BatchNormalization")
        node.attribute.append(onnx.helper.make_attribute("training_mode", 1))

    return edited(model, "training", edit)


@pytest.fixture
def stuck(model):
    """Its BatchNormalization is on an input, behind no Conv and before a Relu: nothing takes its shift."""

    def edit(proto):
        del proto.graph.node[0]
        proto.graph.node[0].input[0] = "x"
        proto.graph.input[0].type.tensor_type.shape.dim[1].dim_value = 3
        del proto.graph.initializer[0]

    return edited(model, "stuck", edit)


@pytest.fixture
def clean(run, model):
    path = model.with_name("clean.onnx")
    assert run("optimize", model, "--no-verify", "-o", path).exit_code == 0
    return path


@pytest.fixture
def by_name(model, training, stuck, clean):
    decomposed = {"spelt": MODELS / "digits_resnet.decomposed.onnx", "mul": mul(model)}
    return {"folds": model, "training": training, "stuck": stuck, "clean": clean, **decomposed}


def mul(model):
    """A Conv and a Mul by one number, which is no BatchNormalization."""

    def edit(proto):
        node = proto.graph.node[1]
        node.op_type = "Mul"
        del node.input[2:]
        for tensor in proto.graph.initializer:
            if tensor.name == "scale":
                tensor.CopyFrom(onnx.numpy_helper.from_array(onnx.numpy_helper.to_array(tensor)[:1].copy(), "scale"))

    return edited(model, "mul", edit)


@pytest.mark.parametrize(
    ("options", "stopped"),
    [
        pytest.param([], {"folds", "spelt", "training"}, id="default"),
        pytest.param(["--fail-on", "foldable"], {"folds", "spelt"}, id="foldable"),
        pytest.param(["--fail-on", "training"], {"training"}, id="training"),
        pytest.param(["--fail-on", "affines"], {"mul"}, id="affines"),
        pytest.param(["--fail-on", "affines,training"], {"mul", "training"}, id="two"),
        pytest.param(["--fail-on", "any"], {"folds", "spelt", "training", "stuck"}, id="any"),
        pytest.param(["--allow", "TRAINING_MODE"], {"folds", "spelt"}, id="reason"),
        pytest.param(["--allow", "the_*"], {"spelt"}, id="glob"),
        pytest.param(["--allow", "TRAINING_MODES", "--allow", "Batch*"], {"folds", "spelt", "training"}, id="no-match"),
        pytest.param(["--fail-on", "any", "--allow", "GRAPH_INPUT"], {"folds", "spelt", "training"}, id="any-but"),
    ],
)
def test_what_does_not_pass(options, stopped, run, by_name):
    """Each model has one thing that may be failed on."""
    results = {name: run("check", path, *options) for name, path in by_name.items()}
    assert {name for name, result in results.items() if result.exit_code == 1} == stopped
    assert {result.exit_code for result in results.values()} <= {0, 1}


def test_an_unknown_word_is_refused(run, model):
    """With those that there are."""
    result = run("check", model, "--fail-on", "foldable,everything")
    assert result.exit_code == 2
    assert "'everything' is none of foldable, training, affines, any" in result.stderr
    with pytest.raises(ValueError, match="everything"):
        bnfold.check(model, fail_on=["everything"])
    for name in ("fail_on", "allow"):
        with pytest.raises(TypeError, match=f"{name} is a list"):
            bnfold.check(model, **{name: "any"})


def test_one_that_is_spelt_out_counts_once(run):
    """In the first line, in JSON and by the name of its first node."""
    path = MODELS / "digits_resnet.decomposed.onnx"
    first, second, *_ = run("check", path).stdout.splitlines()
    assert first == f"FOUND  {path}  8 of 8 BatchNormalizations would fold"
    assert second == "  all BatchNormalizations are spelt out as Mul and Add"
    (model,) = json.loads(run("check", path, "--format", "json").stdout)["models"]
    assert model["batchnorms"]["folded"] == model["spelt_out"] == 8
    assert model["affines"]["folded"] == 0
    assert (model["ok"], len(model["stopped"])) == (False, 16)
    firsts = {entry["part_of"] for entry in model["entries"]}
    assert len(firsts) == 8
    assert run("check", path, *(f"--allow={first}" for first in firsts)).exit_code == 0


def test_none_may_be_left(run, training, model):
    """A compiler that knows no BatchNormalization gets none, whatever the reason."""
    before = set(model.parent.iterdir())
    result = run("optimize", training, "--require-none", "--leftover", "affine")
    assert result.exit_code == 1
    assert result.stderr == f"bnfold: {training}: not written: 1 BatchNormalization stays: the_BatchNormalization\n"
    assert "TRAINING_MODE" in result.stdout
    assert set(model.parent.iterdir()) == before
    assert run("optimize", training, "--require-none", "--allow", "TRAINING_MODE").exit_code == 0
    assert run("optimize", model, "--require-none").exit_code == 0


@pytest.mark.parametrize("command", [("check",), ("optimize", "-o", "small.onnx", "--verify=off")], ids=lambda c: c[0])
def test_one_that_is_spelt_out_is_one_case(run, command, tmp_path, monkeypatch):
    """In annotations and in test reports, too: eight, of two nodes each."""
    monkeypatch.chdir(tmp_path)
    path = MODELS / "digits_resnet.decomposed.onnx"
    told = run(*command, path, "--format", "github", "--also", "junit=report.xml").stdout
    assert ("8 BatchNormalizations that could fold" in told) == (command == ("check",))
    assert ET.parse("report.xml").getroot().attrib["tests"] == "9"


def test_what_is_spelt_out_may_be_left(run, stuck):
    """Mul and Add are no operator BatchNormalization."""
    assert run("optimize", stuck, "--require-none").exit_code == 1
    assert run("optimize", stuck, "--require-none", "--leftover", "affine").exit_code == 0


@pytest.fixture
def table(tmp_path, monkeypatch):
    """Writes a table [tool.bnfold], and works in a folder below it."""
    (tmp_path / "below").mkdir()
    monkeypatch.chdir(tmp_path / "below")

    def write(text):
        (tmp_path / "pyproject.toml").write_text(f"[project]\nname = 'x'\n[tool.bnfold]\n{text}\n")

    return write


@pytest.mark.parametrize(
    "text", ["fail-on = ['foldable']", "fail-on = 'foldable'", "allow = ['TRAINING_MODE']", "allow = 'TRAINING_MODE'"]
)
def test_the_table_gives_defaults(text, table, run, training, model):
    """To what the command line does not say."""
    table(text)
    assert run("check", training).exit_code == 0
    assert run("check", model).exit_code == 1
    assert run("check", training, "--fail-on", "any", "--allow", "nothing").exit_code == 1


def test_the_table_is_for_optimize_too(table, run, training):
    """Each command takes those that it has."""
    table("require-none = true\nfail-on = ['any']")
    assert run("optimize", training).exit_code == 1


@pytest.mark.parametrize(
    ("text", "words"),
    [
        pytest.param("fial-on = ['any']", "takes no 'fial-on'; did you mean fail-on?", id="misspelt"),
        pytest.param("calibrate = ['script.py:f']", "takes no 'calibrate'", id="runs-something"),
        pytest.param("output = 'x'", "takes no 'output'", id="writes-something"),
        pytest.param("fail-on = ['all']", "'all' is none of", id="value"),
        pytest.param("= 3", "pyproject.toml: ", id="no-toml"),
        pytest.param("timeout = 1" + "0" * 400, "is not a finite number", id="no-float"),
        pytest.param("timeout = 1" + "0" * 5000, "pyproject.toml: ", id="digits"),
        pytest.param("keep = " + "[" * 9000, "pyproject.toml: ", id="nested"),
    ],
)
def test_a_table_that_makes_no_sense(text, words, table, run, model):
    """Is an error in a line, and so is one that would have run or written something."""
    table(text)
    result = run("check", model)
    assert result.exit_code == 2
    assert len(result.stderr.splitlines()) == 1
    assert words in result.stderr


@pytest.mark.parametrize("make", [os.mkfifo, lambda path: path.symlink_to("/dev/zero")], ids=["pipe", "device"])
def test_what_is_no_file_holds_no_table(make, table, run, model, tmp_path):
    """It is not opened: it might never begin, or never end."""
    table("allow = ['*']")
    make(tmp_path / "below" / "pyproject.toml")
    assert run("check", model).exit_code == 0


def test_a_table_of_others_is_not_read(table, run, model, tmp_path):
    """The nearest file that has the table counts, and one that is broken and not about this is none of our business."""
    table("allow = ['*']")
    (tmp_path / "below" / "pyproject.toml").write_text("[tool.other\n")
    assert run("check", model).exit_code == 0
