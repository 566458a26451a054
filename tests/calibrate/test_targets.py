"""What can be measured, what is left alone, what is refused."""

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from small import MODELS, bn_model, statistics_in

from bnfold.calibrate import CalibrationError, calibrate, drift

X = np.random.default_rng(0).normal(size=(8, 3, 4, 4)).astype(np.float32)


def test_no_batchnorm_names_the_export():
    """A model without any says how to export one that has them."""
    with pytest.raises(CalibrationError, match=r"no BatchNormalization.*dynamo=False.*do_constant_folding=False"):
        calibrate(MODELS / "digits_resnet.decomposed.onnx", MODELS / "digits_train.npz")


def test_shared_statistics_are_refused(here):
    """Two nodes with the same mean: whose should it be?"""
    model = bn_model()
    second = onnx.NodeProto()
    second.CopyFrom(model.graph.node[0])
    second.name, second.input[0], second.output[0] = "bn2", "normal", "normal2"
    model.graph.node.insert(1, second)
    model.graph.node[2].input[0] = "normal2"
    with pytest.raises(CalibrationError, match="bn, bn2 share the statistics 'mean'"):
        calibrate(model, X, executor=here)


def test_computed_statistics_are_refused(here):
    """A mean that depends on the input is none that could be stored."""
    model = bn_model()
    node = helper.make_node("ReduceMean", ["x"], ["computed"], axes=[0, 2, 3], keepdims=0)
    model.graph.node.insert(0, node)
    model.graph.node[1].input[3] = "computed"
    with pytest.raises(CalibrationError, match="bn: its statistics are computed"):
        calibrate(model, X, executor=here)


def test_read_statistics_are_refused(here):
    """Running statistics that something reads would be gone."""
    model = bn_model(training=True)
    model.graph.node.append(helper.make_node("Neg", ["new_mean"], ["minus"], "reader"))
    model.graph.output.append(helper.make_tensor_value_info("minus", 1, [3]))
    with pytest.raises(CalibrationError, match="'new_mean' are read by reader"):
        calibrate(model, X, executor=here)


@pytest.mark.parametrize(("value", "message"), [(np.nan, "not finite"), (-1.0, "a variance of -1")])
def test_senseless_statistics(value, message, here):
    """They are no matter to methods that replace them, and an error where they are used."""
    model = bn_model(var=np.array([1, value, 1]))
    for use in (
        lambda: drift(model, X, executor=here),
        lambda: calibrate(model, X, method="ema", executor=here),
        lambda: calibrate(model, X, prior=4, executor=here),
    ):
        with pytest.raises(CalibrationError, match=f"bn: holds .*{message}"):
            use()
    for method in ("sequential", "pooled", "ema"):
        assert calibrate(model, X, method=method, reset=True, executor=here).layers[0].var.min() > 0


def test_wrong_number_of_channels(here):
    """Statistics of four channels for an input of three."""
    four = {name: np.ones(4) for name in ("gamma", "beta", "mean", "var")}
    with pytest.raises(CalibrationError, match=r"bn: has statistics of 4 channels, its input is \[2, 3, 4, 4\]"):
        calibrate(bn_model(**four), X, executor=here)


def with_branch():
    """A model with a second BatchNormalization, inside an If."""
    model = bn_model()
    inner = helper.make_node("BatchNormalization", ["normal", "gamma", "beta", "mean2", "var2"], ["b"], "inner")
    for name in ("mean2", "var2"):
        model.graph.initializer.append(numpy_helper.from_array(np.ones(3, np.float32), name))
    output = [helper.make_tensor_value_info("b", TensorProto.FLOAT, None)]
    other = helper.make_node("Identity", ["normal"], ["b"])
    branches = {
        "then_branch": helper.make_graph([inner], "then", [], output),
        "else_branch": helper.make_graph([other], "else", [], output),
    }
    model.graph.initializer.append(numpy_helper.from_array(np.array(True), "yes"))
    model.graph.node[-1].CopyFrom(helper.make_node("If", ["yes"], ["y"], "if", **branches))
    return model


def test_a_branch_is_left_alone(here):
    """A BatchNormalization in the body of an If is reported and stays as it is; the others are measured."""
    result = calibrate(with_branch(), X, executor=here)
    assert [(entry.name, entry.why[:25]) for entry in result.skipped] == [("inner", "is in the body of an If, ")]
    assert [layer.name for layer in result.layers] == ["bn"]
    then = next(a.g for a in result.proto().graph.node[-1].attribute if a.name == "then_branch")
    assert list(then.node[0].input) == ["normal", "gamma", "beta", "mean2", "var2"]
    assert "inner is in the body of an If" in str(result)


def test_only_branches_is_an_error(here):
    """Where none can be measured there is no result."""
    model = with_branch()
    model.graph.node[0].CopyFrom(helper.make_node("Identity", ["x"], ["normal"]))
    with pytest.raises(CalibrationError, match="no BatchNormalization can be measured: inner is in the body"):
        calibrate(model, X, executor=here)


def test_missing_statistics_are_added(here):
    """A node whose mean and variance are left out gets them."""
    model = bn_model()
    model.graph.node[0].input[3] = model.graph.node[0].input[4] = ""
    result = calibrate(model, X, executor=here)
    np.testing.assert_allclose(statistics_in(result.proto())[0], X.mean((0, 2, 3)), atol=1e-6)


def test_a_silent_dynamo_export_is_recognised(here):
    """PyTorch's exporter writes what a node was, even where it made another of it."""
    model = bn_model()
    entry = model.graph.node[0].metadata_props.add()
    entry.key = "pkg.torch.onnx.fx_node"
    entry.value = "call_function[target=torch.ops.aten._native_batch_norm_legit_functional.default](…)"
    result = calibrate(model, X, executor=here)
    assert any("inference nodes of 1 BatchNormalizations" in warning for warning in result.warnings)


def test_random_operators_are_reported(here):
    """They make two runs differ."""
    model = bn_model(before=[("RandomNormalLike", {"dtype": 1})])
    result = calibrate(model, X, executor=here)
    assert any("RandomNormalLike" in warning for warning in result.warnings)


@pytest.mark.parametrize("method", ["sequential", "paper"])
def test_dropout_drops_nothing(method, here):
    """It is in inference mode while statistics are measured, and in the result."""
    model = bn_model()
    for name, value in (("ratio", np.float32(0.5)), ("mode", np.array(True))):
        model.graph.initializer.append(numpy_helper.from_array(np.asarray(value), name))
    model.graph.node.insert(0, helper.make_node("Dropout", ["x", "ratio", "mode"], ["thin"]))
    model.graph.node[1].input[0] = "thin"
    result = calibrate(model, X, method=method, executor=here)
    np.testing.assert_allclose(result.layers[0].mean, X.mean((0, 2, 3)), atol=1e-6)
    assert list(result.proto().graph.node[0].input) == ["x", "ratio"]
    assert "mode" not in {tensor.name for tensor in result.proto().graph.initializer}
    assert any("Dropout" in warning for warning in result.warnings)
