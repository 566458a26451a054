"""What `optimize` refuses, and what it hands on."""

import numpy as np
import pytest
from networks import MODELS

import bnfold
from bnfold.verification import Verdict, Verification

MODEL = MODELS / "digits_mlp.onnx"
DATA = np.zeros((4, 1, 8, 8), np.float32)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"dry_run": True, "certificate": "c.json"}, TypeError, "a dry run writes none"),
        ({"calibration": {"method": "paper"}}, TypeError, "needs data to do it"),
        *(
            ({"calibrate": DATA, "calibration": {name: None}}, TypeError, f"takes no '{name}'")
            for name in ("model", "data", "output", "in_place")
        ),
        ({"calibrate": DATA, "keep": ["nowhere"]}, bnfold.ModelError, "nowhere"),
    ],
)
def test_refused_before_any_work(tmp_path, monkeypatch, options, error, message):
    """Nothing is measured, and nothing is written."""
    monkeypatch.setattr("bnfold.calibration.calibrate", lambda *_, **__: pytest.fail("it was measured"))
    with pytest.raises(error, match=message):
        bnfold.optimize(MODEL, tmp_path / "out.onnx", **options)
    assert list(tmp_path.iterdir()) == []


def test_not_enough_memory_to_compare(tmp_path, monkeypatch):
    """It is written all the same, and not verified."""

    def verify(*_args, **_options):
        raise MemoryError

    monkeypatch.setattr("bnfold.verification.verify", verify)
    result = bnfold.optimize(MODEL, tmp_path / "out.onnx")
    assert result.verification.reasons == ("there was not enough memory",)
    assert (tmp_path / "out.onnx").exists()
    with pytest.raises(bnfold.NotVerified):
        bnfold.optimize(MODEL, tmp_path / "other.onnx", verify="require")
    assert not (tmp_path / "other.onnx").exists()


def test_what_is_compared(tmp_path, monkeypatch):
    """The file as it was, and the file as it would be; a counterexample may replace another only if that is asked."""
    seen = []

    def verify(*models, **options):
        seen.append((*models, options["overwrite"], options["counterexample"]))
        return Verification(Verdict.EQUIVALENT)

    monkeypatch.setattr("bnfold.verification.verify", verify)
    out = tmp_path / "out.onnx"
    for overwrite in (False, True):
        bnfold.optimize(MODEL, out, overwrite=overwrite, counterexample=tmp_path / "c")
    assert [(before, after.parent, *rest) for before, after, *rest in seen] == [
        (MODEL, tmp_path, overwrite, tmp_path / "c") for overwrite in (False, True)
    ]


def test_a_dry_run_makes_no_counterexample(tmp_path):
    """Nothing at all is written."""
    seen = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            "bnfold.verification.verify",
            lambda *_, **options: seen.append(options["counterexample"]) or Verification(Verdict.EQUIVALENT),
        )
        bnfold.optimize(MODEL, tmp_path / "o.onnx", dry_run=True, counterexample=tmp_path / "c")
    assert seen == [None]


def test_require_lets_the_verified_pass(tmp_path):
    """It is written, as anything verified is."""
    assert bnfold.optimize(MODELS / "digits_mlp.onnx", tmp_path / "o.onnx", verify="require").output is not None


def test_a_dry_run_minds_no_file_that_is_there(tmp_path):
    """It would be in the way of an output, and there is none."""
    model, there = tmp_path / "net.onnx", tmp_path / "net.folded.onnx"
    model.write_bytes(MODEL.read_bytes())
    there.write_bytes(b"precious")
    assert bnfold.optimize(model, dry_run=True, verify="off").plan.changes
    assert there.read_bytes() == b"precious"
