"""The calibrated model is an inference model with the new statistics, and otherwise the old one."""

import numpy as np
import onnx
import pytest
from calibration.helpers import TRAIN, bn_model, moments, session, statistics_in
from networks import MODELS
from onnx import helper, numpy_helper

from bnfold.calibration import CalibrationError, calibrate

X = np.random.default_rng(0).normal(2, 3, size=(16, 3, 4, 4)).astype(np.float32)


@pytest.mark.parametrize("opset", [9, 13, 14, 17])
def test_training_mode_is_gone(opset, here):
    """One output, no training attribute; three or five outputs before."""
    model = bn_model(opset=opset, training=True)
    model.graph.output.append(helper.make_tensor_value_info("new_mean", 1, [3]))
    result = calibrate(model, X, executor=here).proto()
    onnx.checker.check_model(result, full_check=True)
    (node,) = (node for node in result.graph.node if node.op_type == "BatchNormalization")
    assert list(node.output) == ["normal"]
    assert "training_mode" not in {attribute.name for attribute in node.attribute}
    assert [output.name for output in result.graph.output] == ["y"]


def test_it_normalises_the_data(here):
    """Gamma * (x - mean) / sqrt(var + epsilon) + beta over the calibration data has mean beta and deviation gamma."""
    result = calibrate(bn_model(training=True), X, executor=here).proto()
    (y,) = session(result).run(["y"], {"x": X})
    tensors = {tensor.name: numpy_helper.to_array(tensor) for tensor in result.graph.initializer}
    np.testing.assert_allclose(moments(y)[0], tensors["beta"], atol=1e-6)
    np.testing.assert_allclose(np.sqrt(moments(y)[1]), tensors["gamma"], rtol=1e-5)


def test_nothing_else_changes(here):
    """Apart from statistics and training mode, the file says what it said."""
    before = onnx.load(MODELS / "digits_resnet.onnx")
    after = calibrate(MODELS / "digits_resnet.onnx", TRAIN, executor=here, check=False).proto()
    changed = {name for node in before.graph.node if node.op_type == "BatchNormalization" for name in node.input[3:]}
    assert [t.name for t in after.graph.initializer] == [t.name for t in before.graph.initializer]
    for old, new in zip(before.graph.initializer, after.graph.initializer, strict=True):
        assert (old == new) != (old.name in changed)
        assert old.data_type == new.data_type
    assert list(after.graph.node) == list(before.graph.node)


def test_the_model_given_is_not_changed(here):
    """A ModelProto stays as it is."""
    model = bn_model(training=True)
    before = model.SerializeToString()
    calibrate(model, X, executor=here)
    assert model.SerializeToString() == before


def test_computed_constants_become_initializers(here):
    """Statistics behind Constant, CastLike and Expand are replaced, and what made them goes."""
    model = bn_model(before=[("Identity", {})])
    makers = [
        helper.make_node("Constant", [], ["zero"], value_float=0.0),
        helper.make_node("CastLike", ["zero", "x"], ["typed"]),
        helper.make_node("Expand", ["typed", "size"], ["made"]),
    ]
    nodes = [*makers, *model.graph.node]
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    model.graph.initializer.append(numpy_helper.from_array(np.array([3]), "size"))
    model.graph.node[4].input[3] = "made"
    del model.graph.initializer[2]
    result = calibrate(model, X, executor=here).proto()
    assert [node.op_type for node in result.graph.node] == ["Identity", "BatchNormalization", "Identity"]
    assert {tensor.name for tensor in result.graph.initializer} == {"gamma", "beta", "var", "bn_mean"}
    np.testing.assert_allclose(statistics_in(result)[0], moments(X)[0], atol=1e-6)


def test_a_tensor_that_others_read_stays(here):
    """Beta and mean are the same zeros: mean gets a tensor of its own."""
    model = bn_model(beta=np.zeros(3))
    model.graph.node[0].input[3] = "beta"
    result = calibrate(model, X, executor=here).proto()
    node = result.graph.node[0]
    assert node.input[2] == "beta"
    assert node.input[3] == "bn_mean"
    np.testing.assert_array_equal(numpy_helper.to_array(result.graph.initializer[1]), 0)


def test_statistics_have_to_fit_their_type(here):
    """A variance over 65504 in float16, at an opset that has one type for all."""
    x = (X * 300).astype(np.float16)
    with pytest.raises(CalibrationError, match=r"bn: a statistic of 8\.\d+e\+05 does not fit float16, .*opset 14"):
        calibrate(bn_model(kind=np.float16, opset=13), x, executor=here, check=False)


@pytest.mark.parametrize("method", ["sequential", "pooled"])
@pytest.mark.parametrize("opset", [14, 15, 17])
def test_statistics_that_float16_cannot_hold(opset, method, here):
    """They are float32 where the opset gives them a type of their own; what fits stays float16."""
    x = (X * 300).astype(np.float16)
    result = calibrate(bn_model(kind=np.float16, opset=opset), x, method=method, executor=here)
    onnx.checker.check_model(result.proto(), full_check=True)
    mean, var = statistics_in(result.proto())
    assert (mean.dtype, var.dtype) == (np.float32, np.float32)
    np.testing.assert_allclose(mean, moments(x)[0], rtol=1e-6)
    np.testing.assert_allclose(var, moments(x)[1], rtol=1e-6)
    if method == "sequential":
        assert result.residual < 1e-6
    gamma, beta = (
        numpy_helper.to_array(t).astype(np.float64)[:, None, None] for t in result.proto().graph.initializer[:2]
    )
    exact = gamma * (x - mean.astype(np.float64)[:, None, None]) / np.sqrt(var.astype(np.float64))[:, None, None] + beta
    (y,) = session(result.proto()).run(None, {"x": x})
    np.testing.assert_allclose(y, exact, atol=0.01)
    small = calibrate(bn_model(kind=np.float16, opset=opset), (X * 30).astype(np.float16), executor=here).proto()
    assert statistics_in(small)[1].dtype == np.float16


def test_saving(tmp_path, here):
    """Whole or not at all, and not over another file unless told."""
    result = calibrate(bn_model(training=True), X, tmp_path / "out.onnx", executor=here)
    assert onnx.load(tmp_path / "out.onnx") == result.proto()
    with pytest.raises(ValueError, match="already exists"):
        result.save(tmp_path / "out.onnx")
    result.save(tmp_path / "out.onnx", overwrite=True)
    with pytest.raises(ValueError, match="there is no folder"):
        calibrate(bn_model(), X, tmp_path / "none" / "out.onnx", executor=here)


def test_in_place(tmp_path, here):
    """The model's own file, on request only."""
    path = tmp_path / "model.onnx"
    onnx.save(bn_model(training=True), path)
    with pytest.raises(ValueError, match="is the input itself"):
        calibrate(path, X, path, executor=here)
    calibrate(path, X, in_place=True, executor=here)
    np.testing.assert_allclose(statistics_in(onnx.load(path))[0], moments(X)[0], atol=1e-6)


def test_an_input_with_a_default_stays(here):
    """A caller may give it: of a Dropout that was in training mode, say. Below IR version 4 it is none."""
    for version, kept in ((8, ["x", "mode"]), (3, ["x"])):
        model = bn_model(before=[("Dropout", {})], opset=14)
        dropout = next(node for node in model.graph.node if node.op_type == "Dropout")
        dropout.input.extend(["ratio", "mode"])
        model.graph.initializer.extend(
            [numpy_helper.from_array(np.float32(0.5), "ratio"), numpy_helper.from_array(np.array(True), "mode")]
        )
        model.graph.input.append(helper.make_tensor_value_info("mode", onnx.TensorProto.BOOL, []))
        if version < 4:
            have = {entry.name for entry in model.graph.input}
            model.graph.input.extend(
                helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims)
                for tensor in model.graph.initializer
                if tensor.name not in have
            )
        model.ir_version = version
        result = calibrate(model, X, executor=here, check=False).proto()
        assert [entry.name for entry in result.graph.input if entry.name in ("x", "mode")] == kept


def test_what_is_said_of_a_statistic_stays(here):
    """Its doc string, and its metadata."""
    model = bn_model()
    for tensor in model.graph.initializer:
        tensor.doc_string = f"about {tensor.name}"
        tensor.metadata_props.add(key="made", value="by hand")
    result = calibrate(model, X, executor=here, check=False).proto()
    for tensor in result.graph.initializer:
        assert tensor.doc_string == f"about {tensor.name}"
        assert [entry.key for entry in tensor.metadata_props] == ["made"]


def test_notes_on_outputs_that_go(here):
    """The running statistics of training mode are gone, and what was noted of their shapes."""
    model = bn_model(training=True, opset=14)
    node = next(node for node in model.graph.node if node.op_type == "BatchNormalization")
    model.graph.value_info.extend(helper.make_tensor_value_info(name, 1, [3]) for name in node.output[1:])
    assert len(node.output) == 3
    result = calibrate(model, X, executor=here, check=False).proto()
    assert not {entry.name for entry in result.graph.value_info} & {*node.output[1:]}
