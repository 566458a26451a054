"""What is written of a difference: anybody can see it again with onnxruntime and numpy."""

import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from click.testing import CliRunner, Result
from helpers import model_of
from networks import MODELS
from onnx import helper, numpy_helper

import bnfold
from bnfold.commands import program
from bnfold.model_io import ModelError
from bnfold.optimization import pipeline
from bnfold.verification import Verdict, evidence, verify

FILES = {"before.onnx", "after.onnx", "inputs.npz", "outputs.npz", "difference.json", "replay.py"}

CONV = "n (T[N, 3, 9, 9] x) => (T y) {c = Conv ({x}, {w: 4, 3, 3, 3}, {b: 4}) y = Relu (c)}"
GEMM = "n (T[N, 6] x) => (T y) {a = Gemm (x, {w: 6, 4}, {b: 4}) y = Tanh (a)}"
SUM = "n (T[N, 4] x, T[N, 4] z) => (T y) {a = Mul (x, {w: 4}) s = Add (a, z) y = Relu (s)}"
SEVERAL = """n (T[N, 4, 5] x, T[N, 5, 3] z) => (T y)
    {r = Relu (x) p = MatMul (r, z) q = Mul (p, {w: 3}) y = Sigmoid (q)}"""
SCALAR = "n (T[N, 4] x) => (T y) {m = ReduceSum <keepdims = 0> (x) p = Mul (m, {w:}) y = Tanh (p)}"
LOOP = """n (T[2, 4] x, int64 m) => (T[2, 4] y) {
    y = Loop (m, "", x) <body = b (int64 i, bool c, T[2, 4] s) => (bool d, T[2, 4] z)
        {d = Identity (c) t = Mul (s, {w: 4}) z = Tanh (t)}>
}"""
IF = """n (T[2, 4] x, bool c) => (T[2, 4] y) {
    r = Relu (x)
    y = If (c) <then_branch = t () => (T[2, 4] a) {p = Mul (r, {w: 4}) a = Tanh (p)},
                else_branch = e () => (T[2, 4] b) {b = Neg (r)}>
}"""

CASES = [
    pytest.param(CONV, "w", "float", id="conv-weight"),
    pytest.param(CONV, "b", "float", id="conv-bias"),
    pytest.param(CONV, "w", "float16", id="half"),
    pytest.param(CONV, "w", "double", id="double"),
    pytest.param(GEMM, "w", "float", id="gemm"),
    pytest.param(SUM, "w", "float", id="several-inputs"),
    pytest.param(SEVERAL, "w", "float", id="values-that-both-share"),
    pytest.param(SUM, "w", "bfloat16", id="bfloat16"),
    pytest.param(SCALAR, "w", "float", id="scalar"),
    pytest.param(LOOP, "w", "float", id="loop"),
    pytest.param(IF, "w", "float", id="if"),
]


def text_model(text: str, dtype: str = "float") -> onnx.ModelProto:
    header = '<ir_version: 10, opset_import: ["": 17]>'
    return model_of(header + text.replace("({x}", "(x"), dtype)


def planted(model: onnx.ModelProto, name: str, factor: float = 1.05) -> onnx.ModelProto:
    """The model with a fault in channel 1 of an initializer."""
    wrong = onnx.ModelProto()
    wrong.CopyFrom(model)
    tensor = next(tensor for tensor in wrong.graph.initializer if tensor.name == name)
    values = numpy_helper.to_array(tensor).copy()
    channels = values.reshape(len(values) if values.ndim else 1, -1)
    channels[min(1, len(channels) - 1)] *= values.dtype.type(factor)
    tensor.CopyFrom(numpy_helper.from_array(values, name))
    return wrong


def replayed(folder: Path, *models: Path) -> list[str]:
    """What the script prints, in a process that knows nothing of this package."""
    command = [sys.executable, "-I", folder / "replay.py", *models]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=folder.parent)
    assert not done.returncode, done.stderr
    return done.stdout.splitlines()


def apart(line: str) -> float:
    """How far apart the two sides are, as a line of the script says, relative to the value of BEFORE."""
    old, new = re.search(r": (\S+) and (\S+) at ", line).groups()
    return abs(float(old) - float(new)) / abs(float(old))


def arrays(path: Path) -> dict[str, np.ndarray]:
    with np.load(path, allow_pickle=False) as found:
        return dict(found)


@pytest.mark.parametrize(("text", "tensor", "dtype"), CASES)
def test_the_region_is_a_pair_of_models(text, tensor, dtype, tmp_path):
    """Both are valid, the recorded values are those of float64, and the script shows the difference."""
    before = text_model(text, dtype)
    folder = tmp_path / "found"
    result = verify(before, planted(before, tensor), run=False, counterexample=folder)
    assert result.verdict is Verdict.DIFFERENT
    assert result.counterexample == str(folder), result.reasons
    assert {path.name for path in folder.iterdir()} == FILES
    for name in ("before.onnx", "after.onnx"):
        onnx.checker.check_model(str(folder / name), full_check=True)
    region = json.loads((folder / "difference.json").read_text())["region"]
    assert region == result.first_difference.to_dict()
    recorded = arrays(folder / "outputs.npz")
    assert recorded["before_0"].dtype == np.float64
    assert np.abs(recorded["before_0"] - recorded["after_0"]).max() > 0
    then, now = replayed(folder)[-2:]
    assert apart(then) > 1e-4
    assert apart(now) == pytest.approx(apart(then), rel=0.2 if dtype in ("float16", "bfloat16") else 0.01)


def test_verify_says_the_same_of_the_two(tmp_path):
    """The region is a case of its own: the same operator and channel."""
    before = text_model(CONV)
    folder = tmp_path / "found"
    verify(before, planted(before, "w"), run=False, counterexample=folder)
    again = verify(folder / "before.onnx", folder / "after.onnx", run=False)
    assert again.verdict is Verdict.DIFFERENT
    assert again.first_difference.channel == 1
    assert "Conv" in again.first_difference.suspect


def test_weights_in_data_files(tmp_path):
    """The small models hold all that they need."""
    before, after = tmp_path / "before.onnx", tmp_path / "after.onnx"
    model = text_model("n (T[N, 40] x) => (T y) {y = MatMul (x, {w: 40, 50})}")
    for path, proto in ((before, model), (after, planted(model, "w"))):
        onnx.save(proto, path, save_as_external_data=True, location=f"{path.stem}.data", size_threshold=0)
    folder = tmp_path / "found"
    verify(before, after, run=False, counterexample=folder)
    assert apart(replayed(folder)[0]) > 1e-3


def test_functions(tmp_path):
    """A function that cannot be inlined is not there to be compared; one that can is."""
    text = """<ir_version: 10, opset_import: ["": 17, "my": 1]>
        n (float[N, 4] x) => (float[N, 4] y) {t = my.scale (x) y = Relu (t)}
        <domain: "my", opset_import: ["": 17]> scale (v) => (w) {f = Constant <value_float = %s> () w = Mul (v, f)}"""
    folder = tmp_path / "found"
    models = [onnx.parser.parse_model(text % value) for value in (2.0, 2.5)]
    assert verify(*models, run=False, counterexample=folder).counterexample
    assert apart(replayed(folder)[0]) > 0.1


def test_values_of_one_name(tmp_path):
    """A body may have a name that the graph around it has: then there is nothing to write, and the reason says so."""
    text = """<ir_version: 10, opset_import: ["": 17]>
        n (float[2, 4] x, bool c) => (float[2, 4] y) <float k = {%s}> {
            %s = Mul (x, k) %s = Neg (%s)
            y = If (c) <then_branch = t () => (float[2, 4] a) {p = Neg (%s) a = Tanh (p)},
                        else_branch = e () => (float[2, 4] b) {b = Neg (%s)}>
        }"""
    models = [onnx.parser.parse_model(text % names) for names in ((2.0, *"pqpqq"), (2.5, *"srsrr"))]
    result = verify(*models, run=False, strict=False, counterexample=tmp_path / "found")
    assert result.verdict is Verdict.DIFFERENT
    assert result.reasons[-1].startswith(
        "no counterexample: alone it is no valid model: Graph must be in single static"
    )
    assert not list(tmp_path.iterdir())


def test_names_are_data(tmp_path):
    """Whatever a model calls its values and operators, script and file names are the same to the byte."""
    name = '../../x\'""")\nimport os; os.abort() #\x1b[2J'
    before = helper.make_model(
        helper.make_graph(
            [helper.make_node("Mul", [name, "w"], [name + "y"], name)],
            name,
            [helper.make_tensor_value_info(name, 1, [2, 3])],
            [helper.make_tensor_value_info(name + "y", 1, [2, 3])],
            [numpy_helper.from_array(np.array([1, 2, 3], np.float32), "w")],
        ),
        opset_imports=[helper.make_opsetid("", 17)],
        ir_version=10,
    )
    after = planted(before, "w")
    script = Path(evidence.__file__).with_name("replay.py").read_bytes()
    for folder, settings in ((tmp_path / "region", {"run": False}), (tmp_path / "whole", {"rtol": 0.0})):
        folder.parent.mkdir(exist_ok=True)
        verify(before, after, counterexample=folder, **settings)
        assert (folder / "replay.py").read_bytes() == script
        assert {path.name for path in folder.iterdir()} == FILES
        assert str(tmp_path) not in (folder / "difference.json").read_text()
        assert apart(replayed(folder)[0]) > 0.01
    assert sorted(path.name for path in tmp_path.iterdir()) == ["region", "whole"]


@pytest.fixture
def pair(tmp_path) -> list[Path]:
    """A model, and a right rewriting of it that rounds in another way."""
    paths = [tmp_path / "before.onnx", tmp_path / "after.onnx"]
    texts = ["y = Mul (x, {w: 40, 30})", "a = Mul (x, {v: 40, 30}) y = Mul (a, {u: 40, 30})"]
    models = [text_model(f"n (T[2, 40, 30] x) => (T y) {{{text}}}") for text in texts]
    by_name = {tensor.name: tensor for model in models for tensor in model.graph.initializer}
    v, u = (numpy_helper.to_array(by_name[name]).astype(np.float64) for name in "vu")
    by_name["w"].CopyFrom(numpy_helper.from_array((v * u).astype(np.float32), "w"))
    for path, model in zip(paths, models, strict=True):
        onnx.save(model, path)
    return paths


def test_where_only_the_runs_differ(pair, tmp_path):
    """Then there are the inputs, and the script takes the two models."""
    folder = tmp_path / "found"
    result = verify(*pair, rtol=0.0, counterexample=folder)
    assert result.verdict is Verdict.DIFFERENT
    assert result.first_difference is None
    assert {path.name for path in folder.iterdir()} == FILES - {"before.onnx", "after.onnx"}
    then, now = replayed(folder, *pair)
    assert now.replace("run now", "as recorded") == then
    assert 0 < apart(now) < 1e-5


def test_where_after_does_not_run(pair, tmp_path):
    """The inputs that it does not run on; the script goes on with onnx.reference."""
    before = text_model(CONV)
    wide = text_model(
        "n (T[N, 3, 9, 9] x) => (T y) {d = Cast <to = 11> (x) "
        "c = Conv (d, {w: 4, 3, 3, 3 double}, {b: 4 double}) r = Relu (c) y = Cast <to = 1> (r)}"
    )
    for tensor in wide.graph.initializer:
        old = next(each for each in before.graph.initializer if each.name == tensor.name)
        tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(old).astype(np.float64), tensor.name))
    for path, model in zip(pair, (before, wide), strict=True):
        onnx.save(model, path)
    folder = tmp_path / "found"
    result = verify(*pair, counterexample=folder)
    assert result.verdict is Verdict.DIFFERENT
    assert result.counterexample
    told = replayed(folder, *pair)
    assert told[0].startswith("onnx.reference in the place of ONNX Runtime: ")
    assert apart(told[1]) < 1e-5


def test_equal_models_leave_nothing(tmp_path):
    """There is no folder, and nothing is said of one."""
    model = text_model(GEMM)
    result = verify(model, model, run=False, counterexample=tmp_path / "found")
    assert result.verdict is Verdict.EQUIVALENT
    assert not list(tmp_path.iterdir())


def test_told_apart_by_types(tmp_path):
    """No values show it, which is said."""
    texts = ["y = Relu (x)", "h = Cast <to = 10> (x) r = Relu (h) y = Cast <to = 1> (r)"]
    models = [text_model(f"n (T[2, 3] x) => (T[2, 3] y) {{{text}}}") for text in texts]
    result = verify(*models, run=False, counterexample=tmp_path / "found")
    assert result.verdict is Verdict.DIFFERENT
    assert "no counterexample: it is not by values that they are told apart" in result.reasons
    assert not list(tmp_path.iterdir())


# --- the folder ----------------------------------------------------------------------------------------------


@pytest.fixture
def broken(tmp_path) -> list[Path]:
    before = text_model(GEMM)
    paths = [tmp_path / "before.onnx", tmp_path / "after.onnx"]
    for path, model in zip(paths, (before, planted(before, "w")), strict=True):
        onnx.save(model, path)
    return paths


def run(*arguments: object) -> Result:
    return CliRunner().invoke(program, ["verify", "--no-run", *map(str, arguments)])


def test_reports_say_where_it_is(broken, tmp_path):
    """In text, JSON and Markdown."""
    folder = tmp_path / "found"
    done = run(*broken, "--counterexample", folder)
    assert done.exit_code == 1
    assert f"a counterexample is in {folder}: run its replay.py" in done.stdout.splitlines()
    again = ("--counterexample", folder, "--force", "--format")
    assert json.loads(run(*broken, *again, "json").stdout)["counterexample"] == str(folder)
    assert "\na counterexample is in" in run(*broken, *again, "markdown").stdout
    assert json.loads(run(*broken, "--format", "json").stdout)["counterexample"] == ""


def test_an_occupied_folder_is_refused(broken, tmp_path):
    """Exit code 2, before any work is done; --force replaces a counterexample, and nothing else."""
    folder = tmp_path / "found"
    assert run(*broken, "--counterexample", folder).exit_code == 1
    refused = run(*broken, "--counterexample", folder)
    assert refused.exit_code == 2
    assert "holds a counterexample already; --force replaces it" in refused.stderr
    (folder / "inputs.npz").unlink()
    assert run(*broken, "--counterexample", folder, "--force").exit_code == 1
    assert {path.name for path in folder.iterdir()} == FILES
    (folder / "thesis.tex").touch()
    refused = run(*broken, "--counterexample", folder, "--force")
    assert refused.exit_code == 2
    assert "holds 'thesis.tex', which is no part of a counterexample" in refused.stderr
    assert (folder / "thesis.tex").exists()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["after.onnx", "before.onnx", "found"]


def test_places_that_cannot_be_a_folder(broken, tmp_path):
    """One line each."""
    file = tmp_path / "file"
    file.touch()
    for place, why in ((file, "is no folder"), (tmp_path / "a" / "b", "there is no folder")):
        refused = run(*broken, "--counterexample", place)
        assert (refused.exit_code, refused.stderr.count("\n")) == (2, 1)
        assert why in refused.stderr


def test_an_empty_folder_is_taken(broken, tmp_path):
    """It need not be made anew by hand."""
    (tmp_path / "found").mkdir()
    assert run(*broken, "--counterexample", tmp_path / "found").exit_code == 1
    assert len(list((tmp_path / "found").iterdir())) == len(FILES)


def test_what_cannot_be_written_leaves_the_old(broken, tmp_path, monkeypatch):
    """Whole or not at all."""
    folder = tmp_path / "found"
    verify(*broken, run=False, counterexample=folder)
    (folder / "inputs.npz").write_bytes(b"old")

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(evidence, "_write_file", full)
    with pytest.raises(ModelError, match="cannot be written: No space left on device"):
        verify(*broken, run=False, counterexample=folder, overwrite=True)
    assert (folder / "inputs.npz").read_bytes() == b"old"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["after.onnx", "before.onnx", "found"]


def test_optimize_writes_one_too(tmp_path, monkeypatch):
    """Of a fold that went wrong."""
    right = pipeline.plan

    def wrong(model, *arguments):
        plan = right(model, *arguments)
        tensor = next(tensor for tensor in plan.model.proto.graph.initializer if len(tensor.dims) == 4)
        values = plan.model.array(tensor) * np.float32(1.1)
        tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))
        return plan

    monkeypatch.setattr(pipeline, "plan", wrong)
    folder = tmp_path / "found"
    with pytest.raises(bnfold.NotEquivalent) as error:
        bnfold.optimize(MODELS / "digits_resnet.onnx", tmp_path / "out.onnx", counterexample=folder)
    assert error.value.result.verification.counterexample == str(folder)
    assert f"a counterexample is in {folder}: run its replay.py" in str(error.value.result)
    assert apart(replayed(folder)[0]) > 0.01


def test_what_is_not_finite_is_shown(tmp_path):
    """The place that the script shows is one where a side is infinite."""
    texts = ["r = Relu (x) a = Add (r, {k: 1}) y = Log (a)", "r = Relu (x) y = Log (r)"]
    models = [text_model(f"n (T[N, 4] x) => (T y) {{{text}}}") for text in texts]
    models[0].graph.initializer[0].CopyFrom(numpy_helper.from_array(np.full(1, 1e-10, np.float32), "k"))
    folder = tmp_path / "found"
    assert verify(*models, run=False, counterexample=folder).counterexample
    assert all("and -inf at " in line for line in replayed(folder))
