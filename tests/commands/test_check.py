"""`bnfold check`."""

import json
import resource

import onnx
import pytest
from networks import MODELS

from bnfold.page import Screen


def folded(run, model):
    path = model.with_name("folded.onnx")
    assert run("optimize", model, "--no-verify", "-o", path).exit_code == 0
    return path


def test_exit_codes(run, model):
    """1 where a BatchNormalization could fold, 0 where none could."""
    assert run("check", model).exit_code == 1
    assert run("check", folded(run, model)).exit_code == 0
    assert run("check", model, "--keep", "the_Batch*").exit_code == 0


def test_a_pattern_that_matches_nothing(run, model):
    """It is said of each model, with what looks like it, and the exit code is 2."""
    other = folded(run, model)
    result = run("check", model, other, "--keep", "the_conv", "--keep", "the_Relu")
    assert result.exit_code == 2
    assert result.stderr.splitlines() == [
        f"bnfold: {path}: no node matches 'the_conv'; near it: the_Conv" for path in (model, other)
    ]


def test_an_operator_without_a_name(run, model):
    """It is told by its type, and with -v by its output before the fold."""
    unnamed = onnx.load(model)
    for node in unnamed.graph.node:
        node.name = ""
    onnx.save(unnamed, model)
    assert "into Conv\n" in run("check", model).stdout
    assert "into c\n" in run("check", "-v", model).stdout


def test_report(run, model):
    """What would fold, and where to."""
    result = run("check", model)
    assert result.stderr == ""
    assert result.stdout.splitlines() == [
        f"FOUND  {model}  1 of 1 BatchNormalization would fold",
        "                      before  after   change",
        "  BatchNormalization       1      0       -1",
        "  nodes                    3      2  -33.3 %",
        "  parameters              66     57  -13.6 %",
        "  MACs                 2,052  1,944   -5.3 %",
        "  folded  1  BatchNormalization  into Conv",
        "--fail-on foldable,training stops 1 node: the_BatchNormalization",
    ]


def test_nothing_is_written(run, model):
    """Checking leaves the folder as it was."""
    run("check", model)
    assert list(model.parent.iterdir()) == [model]


@pytest.mark.parametrize("order", [1, -1])
def test_a_bad_model_does_not_hide_the_others(order, run, model):
    """Every model is checked, and the worst exit code counts."""
    absent = model.with_name("absent.onnx")
    result = run("check", *[model, absent][::order])
    assert result.exit_code == 2
    assert result.stdout.startswith(f"FOUND  {model}  1 of 1 ")
    assert result.stderr == f"bnfold: {absent}: No such file or directory\n"


def test_json(run, model):
    """One document holds all models, also those that could not be read."""
    result = run("check", "--format", "json", model, "absent.onnx", folded(run, model))
    good, bad, done = json.loads(result.stdout)["models"]
    assert good["batchnorms"] == {"folded": 1, "reduced": 0, "kept": 0, "replaced": 0}
    assert bad["model"] == "absent.onnx"
    assert "No such file" in bad["error"]
    assert done["entries"] == []


def test_markdown(run, model):
    """A table for a job summary."""
    lines = run("check", "--format", "markdown", model).stdout.splitlines()
    assert "| folded | 1 | BatchNormalization | into Conv |" in lines


def test_verbose(run, model):
    """A row for each node, by name."""
    result = run("check", "-v", model)
    assert "folded  the_BatchNormalization  BatchNormalization" in result.stdout
    assert "into the_Conv" in result.stdout


def test_quiet(run, model):
    """Only the exit code."""
    result = run("check", "-q", model)
    assert (result.exit_code, result.output) == (1, "")


def test_standard_input(run, model):
    """`-` is standard input."""
    assert run("check", "-", stdin=model.read_bytes()).exit_code == 1


def test_time_that_is_over_is_a_reason(run, model):
    """What was not decided is not reported as done."""
    result = run("check", model, "--timeout", "1e-9")
    assert result.exit_code == 1
    assert "there was no time left for it" in run("check", model, "--timeout", "1e-9", "-v").stdout


def test_want_of_memory_does_not_hide_the_others(run, model, monkeypatch):
    """It is told in one line, and is no fault of the model."""

    def lacking(*args: object, **options: object) -> None:
        raise MemoryError

    monkeypatch.setattr("bnfold.check", lacking)
    result = run("check", model, model)
    assert (result.exit_code, result.stderr) == (1, f"bnfold: {model}: not enough memory\n" * 2)


@pytest.mark.parametrize("command", ["check", "optimize"])
def test_limits_hold_in_this_process(command, run, model):
    """And they are gone when the command is done."""
    before = resource.getrlimit(resource.RLIMIT_DATA)
    assert run(command, model, "--memory", "4", "--timeout", "100").exit_code in (0, 1)
    assert resource.getrlimit(resource.RLIMIT_DATA) == before


def test_a_file_is_no_terminal(model, run, monkeypatch, tmp_path):
    """What is printed is as wide as the terminal and coloured; what is written beside it is not."""
    monkeypatch.setattr("bnfold.page.Screen.of", lambda _: Screen(60, is_coloured=True))
    result = run("check", model, "--also", f"text={tmp_path / 'report.txt'}")
    written = (tmp_path / "report.txt").read_text(encoding="utf-8")
    assert written.splitlines()[0] == f"FOUND  {model}  1 of 1 BatchNormalization would fold"
    assert len(result.stdout.splitlines()[0]) <= 60


def test_node(run):
    """In the place of the table, what operators said to it; a name that there is not is a mistake."""
    model = MODELS / "digits_resnet.onnx"
    told = run("check", model, "--node", "/1/body/body.0/*", "--fail-on", "training")
    assert told.exit_code == 0
    assert "takes it in" in told.stdout
    assert "folded" not in told.stdout
    wrong = run("check", model, "--node", "nothing")
    assert (wrong.exit_code, wrong.stdout) == (2, "")
    assert wrong.stderr == f"bnfold: {model}: no BatchNormalization or other affine node matches 'nothing'\n"
