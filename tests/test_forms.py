"""A model in every form that people have one in, and results that give it back."""

import io
import sys
import types
from pathlib import Path

import numpy as np
import onnx
import pytest
from networks import MODELS

import bnfold
from bnfold import Verdict, Verification
from bnfold.model_io import ModelError

MODEL = MODELS / "digits_mlp.onnx"
DATA = [MODELS / "digits_test.npz"]


class ONNXProgram:
    """What torch.onnx.export returns, as far as it matters here."""

    def __init__(self, path):
        self.model_proto = onnx.load(path)


class IrModel:
    """In place of onnx_ir's, which need not be installed."""

    def __init__(self, path):
        self.path = path

    def graphs(self):
        return []


FORMS = {
    "str": str,
    "path": Path,
    "bytes": Path.read_bytes,
    "bytearray": lambda path: bytearray(path.read_bytes()),
    "memoryview": lambda path: memoryview(path.read_bytes()),
    "stream": lambda path: io.BytesIO(path.read_bytes()),
    "proto": onnx.load,
    "torch": ONNXProgram,
    "onnx_ir": IrModel,
}
VERBS = {
    "plan": lambda model: [entry.outcome for entry in bnfold.plan(model).entries],
    "check": lambda model: bnfold.check(model).to_dict()["nodes"],
    "fold": lambda model: bnfold.fold(model).SerializeToString(),
    "optimize": lambda model: bnfold.optimize(model, io.BytesIO(), verify="off").proto().SerializeToString(),
    "verify": lambda model: bnfold.verify(model, MODEL, run=False).verdict,
    "verify-after": lambda model: bnfold.verify(MODEL, model, run=False).verdict,
    "calibrate": lambda model: bnfold.calibrate(model, DATA, max_samples=8).proto().SerializeToString(),
    "drift": lambda model: bnfold.drift(model, DATA, max_samples=8).score,
}


@pytest.fixture
def onnx_ir(monkeypatch):
    """A package of that name, with what is asked of it."""
    package = types.SimpleNamespace(
        Model=IrModel, ExternalTensor=type(None), to_proto=lambda model: onnx.load(model.path)
    )
    monkeypatch.setitem(sys.modules, "onnx_ir", package)


@pytest.mark.usefixtures("onnx_ir")
@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_takes_every_form(verb):
    """What comes out is the same, whatever the model came as."""
    expected = VERBS[verb](MODEL)
    for name, form in FORMS.items():
        assert VERBS[verb](form(MODEL)) == expected, name


@pytest.mark.parametrize("verb", VERBS)
def test_no_model_at_all(verb):
    """It is said what was expected, and what came."""
    with pytest.raises(TypeError, match=r"a path, bytes, a file object.* got int"):
        VERBS[verb](3)


def test_a_file_object(tmp_path):
    """A file that is open is read, and one that was opened as text is refused in words."""
    with MODEL.open("rb") as stream:
        assert bnfold.fold(stream) == bnfold.fold(MODEL)
    with MODEL.open() as stream, pytest.raises(TypeError, match="mode 'rb'"):
        bnfold.fold(stream)


@pytest.mark.parametrize(
    "make",
    [
        pytest.param(bnfold.plan, id="plan"),
        pytest.param(lambda path: bnfold.optimize(path.read_bytes(), verify="off"), id="optimize"),
        pytest.param(lambda path: bnfold.calibrate(path, DATA, max_samples=8), id="calibrate"),
    ],
)
def test_what_holds_a_model_gives_it(make, tmp_path):
    """In memory and as a file, which is not overwritten unasked."""
    result = make(MODEL)
    path = tmp_path / "out.onnx"
    result.save(path)
    assert onnx.load(path) == result.proto()
    with pytest.raises(ModelError, match="already exists"):
        result.save(path)
    result.save(path, overwrite=True)


def test_a_result_is_its_answer(tmp_path):
    """`if bnfold.check(model):` means what it says."""
    folded = bnfold.fold(MODEL)
    assert not bnfold.check(MODEL)
    assert bnfold.check(folded)
    assert bnfold.optimize(MODEL, tmp_path / "out.onnx")
    assert bnfold.verify(MODEL, folded)
    assert bnfold.drift(MODEL, [MODELS / "digits_train.npz"])
    assert not bnfold.drift(MODEL, np.zeros((64, 1, 8, 8), np.float32))


@pytest.mark.parametrize("verdict", Verdict)
def test_what_is_not_verified_is_not_ok(verdict):
    """As `bnfold verify` has an exit code of 0 for one verdict only."""
    found = Verification(verdict, reasons=("so it is told",))
    assert bool(found) is found.ok is (verdict is Verdict.EQUIVALENT)


def test_a_different_model_is_reported_with_its_verification(monkeypatch):
    """A verification that is false in an `if` is still there."""
    found = Verification(Verdict.DIFFERENT, reasons=("so it is told",))
    monkeypatch.setattr("bnfold.verification.verify", lambda *args, **options: found)
    with pytest.raises(bnfold.NotEquivalent) as raised:
        bnfold.optimize(MODEL.read_bytes())
    assert not raised.value.result
    assert raised.value.result.to_dict()["verification"]["verdict"] == "different"
