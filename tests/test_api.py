"""The verbs in Python: what is public, what they take, what they return, what they raise."""

import ast
import dataclasses
import io
import subprocess
import sys
import types
from pathlib import Path

import numpy as np
import onnx
import pytest
from networks import MODELS
from onnx import numpy_helper

import bnfold
from bnfold import NotEquivalent, NotVerified, Outcome, Verdict, Verification

MODEL = MODELS / "digits_resnet.onnx"
ROOT = Path(__file__).parents[1]


@pytest.fixture
def model(tmp_path):
    """A path that may be written beside."""
    path = tmp_path / "net.onnx"
    path.write_bytes(MODEL.read_bytes())
    return path


@pytest.fixture
def proto():
    return onnx.load(MODEL)


def answers(monkeypatch, verdict):
    monkeypatch.setattr(
        "bnfold.verification.verify", lambda *args, **options: Verification(verdict, reasons=("so it is told",))
    )


def batchnorms(model):
    return sum(node.op_type == "BatchNormalization" for node in model.graph.node)


def test_all_is_what_is_visible():
    """Every public name is there, and nothing else shows."""
    assert dir(bnfold) == sorted([*bnfold.__all__, "__version__"])
    assert bnfold.__all__ == sorted(bnfold.__all__)
    for name in bnfold.__all__:
        assert not isinstance(getattr(bnfold, name), types.ModuleType)
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        bnfold.nonsense  # noqa: B018 -- looking is the test


def test_star_import():
    """`from bnfold import *` brings exactly `__all__`."""
    names: dict[str, object] = {}
    exec("from bnfold import *", names)
    assert set(names) - {"__builtins__"} == set(bnfold.__all__)


def test_type_checkers_see_the_same():
    """What is imported for them is what `__all__` offers."""
    [block] = [node for node in ast.parse(Path(bnfold.__file__).read_text()).body if isinstance(node, ast.If)]
    assert sorted(alias.asname for node in block.body for alias in node.names) == bnfold.__all__


def test_import_is_light():
    """Importing the package imports none of its dependencies."""
    code = "import bnfold, sys; print([name for name in ('numpy', 'onnx', 'click') if name in sys.modules])"
    result = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert result.stdout == "[]\n"


def test_fold_gives_a_model(proto):
    """What comes in stays as it was."""
    before = proto.SerializeToString()
    folded = bnfold.fold(proto)
    assert batchnorms(folded) == 0
    assert proto.SerializeToString() == before


@pytest.mark.parametrize("form", [str, Path, onnx.load, Path.read_bytes], ids=["str", "path", "proto", "bytes"])
def test_every_form_of_a_model_folds_alike(form, proto):
    """A path, a model in memory, and the bytes of one are the same to all verbs."""
    assert bnfold.fold(form(MODEL)) == bnfold.fold(proto)
    assert bnfold.check(form(MODEL)).plan.count(Outcome.FOLDED) == batchnorms(proto)


def test_plan_changes_nothing(model):
    """A plan is a record."""
    before = model.read_bytes()
    plan = bnfold.plan(model)
    assert plan.changes
    assert model.read_bytes() == before
    assert list(model.parent.iterdir()) == [model]


def test_keep(model, proto):
    """A node that is named stays, and the plan says why."""
    name = next(node.name for node in proto.graph.node if node.op_type == "BatchNormalization")
    checked = bnfold.check(model, keep=[name])
    (kept,) = (entry for entry in checked.plan.entries if entry.outcome is Outcome.KEPT)
    assert kept.node == name
    assert [refusal.reason for refusal in kept.refusals] == [bnfold.Reason.KEPT_BY_NAME]


def test_check_of_a_folded_model_is_ok(model):
    """Nothing is left to fold in a folded model."""
    assert not bnfold.check(model).ok
    assert bnfold.check(bnfold.fold(model)).ok


def test_optimize_writes_beside_the_model(model):
    """The default output, verified."""
    result = bnfold.optimize(model)
    assert result.output == model.with_name("net.folded.onnx")
    assert result.verification.verdict is Verdict.EQUIVALENT
    assert onnx.load(result.output) == bnfold.fold(model)
    assert result.bytes_before == model.stat().st_size
    assert result.bytes_after == result.output.stat().st_size
    with pytest.raises(bnfold.ModelError, match="already exists"):
        bnfold.optimize(model)


def test_optimize_in_memory(proto, tmp_path):
    """A model in memory stays there unless an output is named."""
    result = bnfold.optimize(proto)
    assert result.output is None
    assert result.verification.verdict is Verdict.EQUIVALENT
    assert result.proto() == bnfold.fold(proto)
    assert bnfold.optimize(proto, tmp_path / "out.onnx", verify="off").output == tmp_path / "out.onnx"


def test_optimize_to_a_stream(model):
    """The same bytes as in a file."""
    stream = io.BytesIO()
    result = bnfold.optimize(model, stream, verify="off")
    assert result.output is None
    assert stream.getvalue() == bnfold.optimize(model, verify="off").output.read_bytes()


def test_same_input_same_bytes(model, tmp_path):
    """Two runs write the same file."""
    first, second = (bnfold.optimize(model, tmp_path / name, verify="off").output for name in ("1.onnx", "2.onnx"))
    assert first.read_bytes() == second.read_bytes()


def test_external_data_counts(model, tmp_path):
    """Sizes include data files."""
    path = tmp_path / "external.onnx"
    onnx.save(onnx.load(model), path, save_as_external_data=True, location="external.data", size_threshold=0)
    data = (tmp_path / "external.data").stat().st_size
    result = bnfold.optimize(path)
    assert result.bytes_before == path.stat().st_size + data
    assert 0.8 * result.bytes_before < result.bytes_after < result.bytes_before


@pytest.mark.parametrize("output", [None, "out.onnx", "stream"])
def test_different_is_raised(output, model, monkeypatch):
    """Nothing is written, and the error carries the whole result."""
    answers(monkeypatch, Verdict.DIFFERENT)
    stream = io.BytesIO()
    place = stream if output == "stream" else output and model.with_name(output)
    with pytest.raises(NotEquivalent, match="not written: different: so it is told") as raised:
        bnfold.optimize(model, place)
    assert raised.value.result.output is None
    assert raised.value.result.verification.verdict is Verdict.DIFFERENT
    assert list(model.parent.iterdir()) == [model]
    assert stream.getvalue() == b""


def test_not_run_is_raised_if_required(model, monkeypatch):
    """`require` is what makes the difference."""
    answers(monkeypatch, Verdict.NOT_VERIFIED)
    with pytest.raises(NotVerified) as raised:
        bnfold.optimize(model, verify="require")
    assert not isinstance(raised.value, NotEquivalent)
    assert list(model.parent.iterdir()) == [model]
    assert bnfold.optimize(model).output is not None


def test_unknown_mode_is_refused(model):
    """A misspelt mode does not pass for the default."""
    with pytest.raises(ValueError, match="requires"):
        bnfold.optimize(model, verify="requires")


def test_results_are_frozen_and_print(model):
    """In a terminal and in a notebook."""
    for result in (bnfold.check(model), bnfold.optimize(model, verify="off")):
        with pytest.raises(dataclasses.FrozenInstanceError):
            result.source = "other"
        assert "8 of 8 BatchNormalizations" in str(result).splitlines()[0]
        assert "<table>" in result._repr_html_()


def test_verify_finds_a_wrong_weight(model):
    """The verb itself answers; it raises nothing."""
    wrong = bnfold.fold(model)
    weight = next(tensor for tensor in wrong.graph.initializer if len(tensor.dims) == 4)
    weight.CopyFrom(numpy_helper.from_array(np.negative(numpy_helper.to_array(weight)), weight.name))
    assert bnfold.verify(model, wrong).verdict is Verdict.DIFFERENT
    assert bnfold.verify(model, bnfold.fold(model)).verdict is Verdict.EQUIVALENT


def test_optimize_calibrates_first(tmp_path):
    """A model in training mode gets the data's statistics, is folded, and is compared with the calibrated one."""
    result = bnfold.optimize(
        MODELS / "digits_mlp.train.onnx",
        tmp_path / "out.onnx",
        calibrate=[MODELS / "digits_train.npz"],
    )
    assert result.plan.count(Outcome.FOLDED) == 3
    assert result.verification.passed
    assert all(output.passed for output in result.verification.outputs)
    assert batchnorms(onnx.load(tmp_path / "out.onnx")) == 0
