"""The trained networks in models/ fold as expected, and recognise as many digits as before."""

import numpy as np
import onnx
import onnxruntime
import pytest
from helpers import assert_nothing_dead, assert_same_interface, folded
from networks import FILES, MODELS, NETWORKS

from bnfold.folding import plan
from bnfold.folding.record import Outcome
from bnfold.model_io import load, to_proto

IMAGES = np.load(MODELS / "digits_test.npz")["image"]
LABELS = np.load(MODELS / "digits_labels.npz")["test"]


def logits(model):
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return session.run(["logits"], {"image": IMAGES})[0]


@pytest.mark.parametrize("file", [file for file in FILES if ".train" not in file])
def test_accuracy_before_is_accuracy_after(file):
    """The folded network gives the same answers, and logits that differ by float32 rounding only."""
    before = onnx.load(MODELS / file)
    planned = plan(load(MODELS / file))
    after = to_proto(planned.model)
    onnx.checker.check_model(after, full_check=True)
    assert_same_interface(before, after)
    assert_nothing_dead(before, after)
    assert planned.changes
    expected, actual = logits(before), logits(after)
    assert np.count_nonzero(actual.argmax(1) == LABELS) == np.count_nonzero(expected.argmax(1) == LABELS)
    np.testing.assert_allclose(actual, expected, rtol=0, atol=1e-5 * np.abs(expected).max())
    assert not folded(after)[0].changes


@pytest.mark.parametrize(
    ("file", "outcomes", "nodes"),
    [
        ("digits_resnet.onnx", (8, 0, 0), (29, 20)),
        ("digits_resnet.decomposed.onnx", (0, 0, 0), (36, 20)),
        ("digits_preact.onnx", (5, 7, 0), (40, 35)),
        ("digits_preact.decomposed.onnx", (0, 0, 0), (76, 35)),
        ("digits_mlp.onnx", (3, 0, 0), (32, 20)),
        ("digits_mlp.decomposed.onnx", (0, 0, 0), (39, 20)),
    ],
)
def test_what_folds(file, outcomes, nodes):
    """BatchNormalizations folded, reduced and kept; and the number of nodes before and after."""
    planned = plan(load(MODELS / file))
    assert tuple(planned.count(outcome) for outcome in (Outcome.FOLDED, Outcome.REDUCED, Outcome.KEPT)) == outcomes
    assert (planned.nodes_before, planned.nodes_after) == nodes


@pytest.mark.parametrize("file", [file for file in FILES if ".train" in file])
def test_training_forms_stay(file):
    """Every BatchNormalization in training mode stays, and says that it wants calibration."""
    planned = plan(load(MODELS / file))
    norms = [entry for entry in planned.entries if entry.is_batchnorm]
    assert norms
    for entry in norms:
        assert entry.outcome is Outcome.KEPT
        assert [refusal.reason.name for refusal in entry.refusals] == ["TRAINING_MODE"]
        assert "bnfold calibrate" in str(entry.refusals[0])


@pytest.mark.parametrize("name", NETWORKS)
def test_the_decomposed_form_ends_as_small(name):
    """Decomposed or whole, the same operators with weights are left."""
    whole, decomposed = (to_proto(plan(load(MODELS / f"{name}{form}.onnx")).model) for form in ("", ".decomposed"))
    for op_type in ("Conv", "MatMul", "Gemm"):
        assert count(whole, op_type) == count(decomposed, op_type)


def count(model, op_type):
    return sum(node.op_type == op_type for node in model.graph.node)
