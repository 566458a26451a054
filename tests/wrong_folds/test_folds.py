"""No false alarm on correct folds; every fault that is planted in one is found, and at its place."""

import onnx
import pytest
from networks import FILES, MODELS
from onnx import helper
from verification.helpers import KINDS, Net, nets

from bnfold.folding import plan
from bnfold.model_io import load, to_proto
from bnfold.verification import Verdict, verify
from wrong_folds import misfolds
from wrong_folds.faults import FAULTS, Mutant, mutants
from wrong_folds.misfolds import MISFOLDS

INFERENCE = [MODELS / file for file in FILES if ".train" not in file]


def folded(model: onnx.ModelProto) -> onnx.ModelProto:
    planned = plan(load(model))
    assert planned.changes
    return to_proto(planned.model)


@pytest.mark.parametrize("kind", KINDS)
def test_no_false_alarm(kind):
    """Correct folds compare equal in every region: 13 kinds, 3 types, also with a mean of 1e4 sigma. 234 folds."""
    for name, model in nets(kind, seeds=3):
        result = verify(model, folded(model), run=False)
        assert result.verdict is Verdict.EQUIVALENT, f"{name}: {result}"
        assert result.complete, f"{name}: {result.reasons}"
        assert result.regions, f"{name}: the fold changed nothing"


@pytest.mark.parametrize("path", INFERENCE, ids=lambda path: path.stem)
def test_no_false_alarm_on_a_trained_model(path):
    """Folds of trained models compare equal, region by region and under ONNX Runtime."""
    result = verify(path, folded(onnx.load(path)))
    assert result.verdict is Verdict.EQUIVALENT
    assert result.complete
    assert all(output.passed for output in result.outputs)


def missed_and_misplaced(model: onnx.ModelProto, operators: int) -> tuple[list[Mutant], list[Mutant], int]:
    missed, misplaced, count = [], [], 0
    for mutant in mutants(model, folded(model), operators):
        result = verify(mutant.before, mutant.model, run=False)
        count += 1
        if result.verdict is not Verdict.DIFFERENT:
            missed.append(mutant)
        elif result.first_difference is None or not mutant.is_pinned_by(result.first_difference.suspect):
            misplaced.append(mutant)
    return missed, misplaced, count


@pytest.mark.parametrize("path", INFERENCE, ids=lambda path: path.stem)
def test_faults_in_trained_models_are_found(path):
    """Every fault is found, and laid to the operator that it was planted in."""
    operators = 3 if ".decomposed" in path.name else 4  # the same weights again
    missed, misplaced, count = missed_and_misplaced(onnx.load(path), operators)
    assert count >= 20
    assert not [(mutant.fault, mutant.operator) for mutant in missed]
    assert not [(mutant.fault, mutant.operator) for mutant in misplaced]


@pytest.mark.parametrize("dtype", ["float16", "float32"])
@pytest.mark.parametrize("kind", KINDS)
def test_faults_in_small_nets_are_found(kind, dtype):
    """The same for every kind of network, also in half precision."""
    missed, misplaced, count = missed_and_misplaced(KINDS[kind](Net(dtype, 0, 1.0)), operators=2)
    assert count >= 4
    assert not [(mutant.fault, mutant.operator) for mutant in missed]
    assert not [(mutant.fault, mutant.operator) for mutant in misplaced]


@pytest.mark.parametrize("kind", ["conv_without_bias", "depthwise", "one_dimension", "three_dimensions"])
def test_a_shift_that_meets_no_padding_is_no_fault(kind, monkeypatch):
    """What the mutant does is right but for the padding: without any, it is equivalent."""
    monkeypatch.setattr(misfolds, "_is_padded", lambda node: True)
    before = KINDS[kind](Net("float32", 0, 1.0))
    found = [mutant for mutant in mutants(before, folded(before), 1) if mutant.fault == "shift meets padding"]
    assert [verify(mutant.before, mutant.model, run=False).verdict for mutant in found] == [Verdict.EQUIVALENT]


def test_beta_ignored_is_a_beta_of_one():
    """The mutant is the correct fold of the same Gemm with another beta."""
    before = KINDS["gemm"](Net("float32", 0, 1.0))
    mutant = next(mutant for mutant in mutants(before, folded(before), 1) if mutant.fault == "beta of Gemm ignored")
    beta = next(entry for entry in mutant.before.graph.node[0].attribute if entry.name == "beta")
    beta.CopyFrom(helper.make_attribute("beta", 1.0))
    assert verify(mutant.before, mutant.model, run=False).verdict is Verdict.EQUIVALENT


def test_every_fault_is_planted_somewhere():
    """Each of them has a place in one of the small nets."""
    models = [KINDS[kind](Net("float32", 0, 1.0)) for kind in KINDS]
    planted = {mutant.fault for model in models for mutant in mutants(model, folded(model), 2)}
    assert planted == {*FAULTS, *MISFOLDS}
