"""What can be measured, what is left alone, what is refused."""

import itertools

import numpy as np
import onnx
import pytest
from calibration.helpers import X, bn_model, moments, session, statistics_in
from networks import MODELS
from onnx import TensorProto, helper, numpy_helper

from bnfold.calibration import CalibrationError, calibrate, drift


def test_no_batchnorm_names_the_export():
    """A model without any says how to export one that has them."""
    with pytest.raises(CalibrationError, match=r"no BatchNormalization.*dynamo=False.*do_constant_folding=False"):
        calibrate(MODELS / "digits_resnet.decomposed.onnx", MODELS / "digits_train.npz")


def test_shared_statistics_are_split(here):
    """A module that is called twice: each call gets the statistics of what it meets, and a line says so."""
    model = bn_model()
    second = onnx.NodeProto()
    second.CopyFrom(model.graph.node[0])
    second.name, second.input[0], second.output[0] = "bn2", "normal", "normal2"
    model.graph.node.insert(1, second)
    model.graph.node[2].input[0] = "normal2"
    result = calibrate(model, X, executor=here)
    mean, var = moments(X)
    gamma, beta = (numpy_helper.to_array(t).astype(np.float64) for t in model.graph.initializer[:2])
    np.testing.assert_allclose(statistics_in(result.proto(), "bn"), (mean, var), rtol=1e-6, atol=1e-6)
    twice = beta, gamma**2 * var / (var + np.float32(1e-5))
    np.testing.assert_allclose(statistics_in(result.proto(), "bn2"), twice, rtol=1e-6, atol=1e-6)
    assert "bn, bn2 shared the statistics 'var': each has its own now" in result.warnings
    onnx.checker.check_model(result.proto(), full_check=True)


def with_computed_mean(*, training):
    """What the exporter writes for track_running_stats=False: the mean of the batch, once more."""
    model = bn_model(training=training)
    node = helper.make_node("ReduceMean", ["x"], ["computed"], axes=[0, 2, 3], keepdims=0)
    model.graph.node.insert(0, node)
    model.graph.node[1].input[3] = "computed"
    return model


def test_computed_statistics_are_refused(here):
    """In inference mode, a mean that depends on the input is none that could be stored."""
    with pytest.raises(CalibrationError, match="bn: its statistics are computed: computed is computed from an input"):
        calibrate(with_computed_mean(training=False), X, executor=here)


@pytest.mark.parametrize("method", ["sequential", "paper", "pooled", "ema"])
def test_computed_statistics_in_training_mode_count_as_missing(method, here):
    """There they touch nothing but the running statistics; what computed them goes."""
    model = with_computed_mean(training=True)
    result = calibrate(model, X, method=method, momentum=0, batch_size=8, executor=here)
    mean, var = moments(X)
    var *= 128 / 127 if method == "paper" else 1
    np.testing.assert_allclose(statistics_in(result.proto()), (mean, var), rtol=1e-6, atol=1e-6)
    assert [node.op_type for node in result.proto().graph.node] == ["BatchNormalization", "Identity"]
    assert list(result.proto().graph.node[0].output) == ["normal"]


def test_what_is_missing_is_not_compared(here):
    """There is no drift from statistics that no model holds, and no prior in them."""
    model = with_computed_mean(training=True)
    for use in (lambda: drift(model, X, executor=here), lambda: calibrate(model, X, prior=4, executor=here)):
        with pytest.raises(CalibrationError, match="bn: holds no statistics: calibrate it first"):
            use()


def test_running_statistics_may_be_handed_on(here):
    """From call to call, in training mode: no output depends on them."""
    model = bn_model(training=True)
    second = onnx.NodeProto()
    second.CopyFrom(model.graph.node[0])
    second.name, second.input[0] = "bn2", "normal"
    second.input[3:], second.output[:] = ["new_mean", "new_var"], ["normal2", "newer_mean", "newer_var"]
    model.graph.node.insert(1, second)
    model.graph.node[2].input[0] = "normal2"
    result = calibrate(model, X, executor=here)
    np.testing.assert_allclose(statistics_in(result.proto(), "bn")[0], moments(X)[0], atol=1e-6)
    np.testing.assert_allclose(
        statistics_in(result.proto(), "bn2")[0], numpy_helper.to_array(model.graph.initializer[1]), atol=1e-6
    )


def test_an_output_beside_what_computed_statistics_stays(here):
    """Of a Split, one half is an output of the graph."""
    model = bn_model(training=True)
    model.graph.node.insert(0, helper.make_node("ReduceMean", ["x"], ["all"], axes=[0, 2, 3], keepdims=0))
    model.graph.node.insert(1, helper.make_node("Concat", ["all", "all"], ["double"], axis=0))
    model.graph.node.insert(2, helper.make_node("Split", ["double"], ["mine", "yours"], axis=0))
    model.graph.node[3].input[3] = "mine"
    model.graph.output.append(helper.make_tensor_value_info("yours", TensorProto.FLOAT, [3]))
    result = calibrate(model, X, executor=here)
    onnx.checker.check_model(result.proto(), full_check=True)


def in_functions(calls):
    """So many calls of a function that calls one with a BatchNormalization, and one call of a function without."""
    names = ["x", "gamma", "beta", "mean", "var"]
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("my", 1)]
    inner = [
        helper.make_node("Neg", ["x"], ["minus"]),
        helper.make_node("BatchNormalization", ["minus", *names[1:]], ["y"]),
    ]
    outer = [helper.make_node("Inner", names, ["y"], domain="my")]
    other = [helper.make_node("Identity", ["x"], ["y"])]
    model = bn_model()
    model.functions.append(helper.make_function("my", "Inner", names, ["y"], inner, opsets))
    model.functions.append(helper.make_function("my", "Outer", names, ["y"], outer, opsets))
    model.functions.append(helper.make_function("my", "Other", ["x"], ["y"], other, opsets))
    model.opset_import.append(helper.make_opsetid("my", 1))
    values = ["x", *(f"made_{call}" for call in range(calls))]
    del model.graph.node[:]
    for at, to in itertools.pairwise(values):
        model.graph.node.append(helper.make_node("Outer", [at, *names[1:]], [to], domain="my"))
    model.graph.node.append(helper.make_node("Other", [values[-1]], ["y"], domain="my"))
    return model


def test_functions_are_written_out(here):
    """Each call has statistics of its own; a function without a BatchNormalization stays."""
    result = calibrate(in_functions(2), X, executor=here)
    first, second = result.layers
    np.testing.assert_allclose(first.mean, -moments(X)[0], atol=1e-6)
    np.testing.assert_allclose(second.mean, -numpy_helper.to_array(in_functions(2).graph.initializer[1]), atol=1e-6)
    assert [function.name for function in result.proto().functions] == ["Other"]
    assert "functions with BatchNormalizations are written out: Inner, Outer" in result.warnings
    assert result.residual < 1e-6
    onnx.checker.check_model(result.proto(), full_check=True)


def by_sample(samples, opset=17, back=True):
    """Instance normalization as exporters spell it, with the samples in the channels, behind a BatchNormalization."""
    model = bn_model(opset=opset, training=True, batch=samples)
    shapes = {"apart": [1, samples * 3, 4, 4], "together": [samples, 3, 4, 4]}
    tensors = {name: np.array(shape) for name, shape in shapes.items()}
    rng = np.random.default_rng(1)
    tensors |= {name: np.tile(rng.uniform(1, 2, 3), samples).astype(np.float32) for name in ("g", "b", "m", "v")}
    model.graph.initializer.extend(numpy_helper.from_array(array, name) for name, array in tensors.items())
    node = onnx.NodeProto()
    node.CopyFrom(model.graph.node[0])
    node.name = "each"
    node.input[:] = ["reshaped", "g", "b", "m", "v"]
    node.output[:] = ["n", "n_mean", "n_var", "n_saved_mean", "n_saved_var"][: len(node.output)]
    del model.graph.node[1:]
    model.graph.node[0].input[0], model.graph.node[0].output[0] = "between", "y"
    nodes = [
        helper.make_node("Reshape", ["x", "apart"], ["reshaped"]),
        node,
        helper.make_node("Reshape", ["n", "together"], ["between"]),
        *model.graph.node,
    ]
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    del model.graph.input[:], model.graph.output[:]
    for entries, name in ((model.graph.input, "x"), (model.graph.output, "y")):
        entries.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, [samples, 3, 4, 4]))
    return model, tensors["g"][:3].astype(np.float64), tensors["b"][:3].astype(np.float64)


@pytest.mark.parametrize("method", ["sequential", "pooled"])
@pytest.mark.parametrize(("samples", "opset"), [(4, 17), (4, 9), (1, 17)])
def test_normalisation_of_each_sample_stays_that(samples, opset, method, here):
    """It becomes an InstanceNormalization, which computes the same; the layer behind it meets just that."""
    model, gamma, beta = by_sample(samples, opset)
    result = calibrate(model, X, method=method, executor=here)
    x = X.astype(np.float64)
    each = (x - x.mean((2, 3), keepdims=True)) / np.sqrt(x.var((2, 3), keepdims=True) + np.float32(1e-5))
    each = each * gamma[:, None, None] + beta[:, None, None]
    assert [layer.name for layer in result.layers] == ["bn"]
    np.testing.assert_allclose(result.layers[0].mean, moments(each)[0], rtol=1e-6)
    np.testing.assert_allclose(result.layers[0].var, moments(each)[1], rtol=1e-5)
    assert any("each normalises each sample by itself" in warning for warning in result.warnings)
    onnx.checker.check_model(result.proto(), full_check=True)
    (y,) = session(result.proto()).run(None, {"x": X[:samples]})
    tensors = {t.name: numpy_helper.to_array(t) for t in result.proto().graph.initializer}
    parameters = (tensors[name].astype(np.float64)[:, None, None] for name in ("gamma", "beta", "mean", "var"))
    scale, shift, mean, var = parameters
    np.testing.assert_allclose(y, scale * (each[:samples] - mean) / np.sqrt(var + 1e-5) + shift, atol=1e-5)


def test_nothing_but_normalisation_of_each_sample(here):
    """Population statistics would make another model of it: refused, and it is said what it is."""
    model, *_ = by_sample(4)
    model.graph.node[-1].CopyFrom(helper.make_node("Identity", ["between"], ["y"]))
    with pytest.raises(
        CalibrationError, match=r"nothing to calibrate: each normalises each sample by itself.*InstanceN"
    ):
        calibrate(model, X, executor=here)


def test_channels_that_a_reshape_made_of_one_sample_are_calibrated(here):
    """What stands on the first axis in front of the Reshape is no sample: the model takes one."""
    model = bn_model(channels=12, training=True, batch=1)
    for name, shape in (("steps", [4, 3, 4, 4]), ("stacked", [1, 12, 4, 4])):
        model.graph.initializer.append(numpy_helper.from_array(np.array(shape), name))
    model.graph.node.insert(0, helper.make_node("Reshape", ["x", "steps"], ["apart"]))
    model.graph.node.insert(1, helper.make_node("Reshape", ["apart", "stacked"], ["together"]))
    model.graph.node[2].input[0] = "together"
    x = np.random.default_rng(0).normal(size=(8, 12, 4, 4)).astype(np.float32)
    np.testing.assert_allclose(calibrate(model, x, executor=here).layers[0].mean, moments(x)[0], atol=1e-6)


def test_a_batch_of_one_may_be_on_purpose(here):
    """Nobody can tell: it is calibrated, with a warning that says how to keep it. Not in inference mode."""
    told = "the model takes one sample at a time"
    assert any(told in line for line in calibrate(bn_model(training=True, batch=1), X, executor=here).warnings)
    assert not any(told in line for line in calibrate(bn_model(batch=1), X, executor=here).warnings)
    assert not any(told in line for line in calibrate(bn_model(training=True), X, executor=here).warnings)


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
    assert calibrate(model, X, executor=here).page(verbose=True).table  # there is no ratio to what makes no sense


@pytest.mark.parametrize("name", ["gamma", "mean", "var"])
def test_a_sparse_initializer_is_one(name, here):
    """Nobody has to give it, and what is measured is the same."""
    dense = bn_model()
    model = bn_model()
    tensors = model.graph.initializer
    (place,) = (place for place, tensor in enumerate(tensors) if tensor.name == name)
    array = numpy_helper.to_array(tensors[place])
    indices = numpy_helper.from_array(np.arange(array.size), "indices")
    values = numpy_helper.from_array(array.reshape(-1), name)
    model.graph.sparse_initializer.append(helper.make_sparse_tensor(values, indices, array.shape))
    del tensors[place]
    expected, found = (calibrate(each, X, executor=here).layers[0] for each in (dense, model))
    np.testing.assert_array_equal(found.mean, expected.mean)
    np.testing.assert_array_equal(found.var, expected.var)
    assert drift(model, X, executor=here).layers[0].score == drift(dense, X, executor=here).layers[0].score


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
    assert "warning: inner is in the body of an If, " in str(result)
    assert [layer.name for layer in result.layers] == ["bn"]
    then = next(a.g for a in result.proto().graph.node[-1].attribute if a.name == "then_branch")
    assert list(then.node[0].input) == ["normal", "gamma", "beta", "mean2", "var2"]
    assert "warning: inner is in the body of an If" in str(result)
    assert "warning: inner is in the body of an If" in str(drift(with_branch(), X, executor=here))


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


def three(training=False):
    """`x`, bn0, bn1, bn2, `y`, each with statistics of its own."""
    model = bn_model(training=training)
    first = model.graph.node[0]
    for number in (1, 2):
        node = onnx.NodeProto()
        node.CopyFrom(first)
        node.name = f"bn{number}"
        node.input[0] = f"normal{number - 1}"
        node.input[3:] = [f"mean{number}", f"var{number}"]
        node.output[:] = [f"{name}{number}" for name in first.output]
        model.graph.node.insert(number, node)
        for name, value in (("mean", 0.5), ("var", 2.0)):
            array = np.full(3, value, np.float32)
            model.graph.initializer.append(numpy_helper.from_array(array, f"{name}{number}"))
    first.name, first.output[0] = "bn0", "normal0"
    model.graph.node[-1].input[0] = "normal2"
    return model


@pytest.mark.parametrize("method", ["sequential", "pooled"])
@pytest.mark.parametrize(
    ("patterns", "calibrated"),
    [
        ({"only": ["bn2"]}, "bn2"),
        ({"only": ["bn*"], "keep": ["*1"]}, "bn0 bn2"),
        ({"keep": ["bn[01]"]}, "bn2"),
        ({"only": ["bn0", "bn1"]}, "bn0 bn1"),
    ],
)
def test_only_some(patterns, calibrated, method, here):
    """The others stay as they are, byte for byte, and what is measured is measured behind them."""
    model = three()
    result = calibrate(model, X, method=method, executor=here, **patterns)
    assert " ".join(layer.name for layer in result.layers) == calibrated
    value = X.astype(np.float64)
    gamma, beta = (numpy_helper.to_array(t).astype(np.float64)[:, None, None] for t in model.graph.initializer[:2])
    for node, old in zip(result.proto().graph.node[:3], model.graph.node, strict=False):
        assert node == old
        mean, var = (array.astype(np.float64) for array in statistics_in(result.proto(), node.name))
        if node.name in calibrated.split():
            np.testing.assert_allclose((mean, var), moments(value), rtol=1e-5, atol=1e-6)
        else:
            np.testing.assert_array_equal((mean, var), statistics_in(model, node.name))
        value = gamma * (value - mean[:, None, None]) / np.sqrt(var[:, None, None] + np.float32(1e-5)) + beta
    kept = 3 - len(result.layers)
    assert f"{kept} {'keeps its' if kept == 1 else 'keep their'} statistics, as asked" in str(result)
    assert "left as it is" not in str(result)


@pytest.mark.parametrize("method", ["sequential", "pooled"])
@pytest.mark.parametrize("opset", [9, 17])
def test_kept_in_training_mode(method, opset, here):
    """It normalises by the batch, as it did, and a warning says what that means."""
    model = bn_model(opset=opset, training=True)
    second = onnx.NodeProto()
    second.CopyFrom(model.graph.node[0])
    second.name, second.input[0] = "bn2", "normal"
    second.output[:] = [f"{name}2" for name in second.output]
    model.graph.node.insert(1, second)
    model.graph.node[2].input[0] = "normal2"
    result = calibrate(model, X * 3 + 1, method=method, batch_size=8, keep=["bn"], executor=here)
    assert result.proto().graph.node[0] == model.graph.node[0]
    gamma, beta = (numpy_helper.to_array(t).astype(np.float64) for t in model.graph.initializer[:2])
    (layer,) = result.layers
    np.testing.assert_allclose(layer.mean, beta, atol=1e-6)
    np.testing.assert_allclose(layer.var, gamma**2, rtol=1e-4)
    assert any("bn kept in training mode" in warning for warning in result.warnings)


def test_what_is_not_measured_may_be_malformed(here):
    """A Cast that reads nothing, and a BatchNormalization that stays, whose mode is a text."""
    model = bn_model()
    bad = helper.make_node(
        "BatchNormalization", ["x", "gamma", "beta", "mean", "var"], ["odd"], "odd", training_mode="no"
    )
    model.graph.node.extend([helper.make_node("Cast", [], ["none"], to=TensorProto.INT8), bad])
    (layer,) = calibrate(model, X, keep=["odd"], executor=here).layers
    np.testing.assert_allclose((layer.mean, layer.var), moments(X), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize(
    ("patterns", "message"),
    [
        ({"only": ["bn3"]}, "no BatchNormalization matches 'bn3'; near it: bn"),
        ({"keep": ["features*"]}, r"no BatchNormalization matches 'features\*'"),
        ({"keep": ["*"]}, "every BatchNormalization is kept by its name"),
        ({"keep": "bn1"}, "only and keep are lists of patterns"),
    ],
)
def test_patterns_that_cannot_be_meant(patterns, message, here):
    """A pattern that matches nothing is a mistake, and so is a text in place of a list."""
    with pytest.raises(CalibrationError, match=message):
        calibrate(three(), X, executor=here, **patterns)


@pytest.mark.parametrize("verb", [calibrate, drift])
def test_what_normalises_no_tensor_is_refused(verb, here):
    """But a sequence."""
    model = bn_model()
    model.graph.node.insert(0, helper.make_node("SequenceEmpty", [], ["none"]))
    model.graph.node[1].input[0] = "none"
    with pytest.raises(CalibrationError, match="bn: its input is no tensor"):
        verb(model, X, executor=here)


def test_what_normalises_nothing_is_left_alone(here):
    """A BatchNormalization in training mode whose input is omitted, beside one that has it."""
    model = bn_model()
    nothing = helper.make_node(
        "BatchNormalization", ["", "gamma", "beta", "mean", "var"], ["odd"], "odd", training_mode=1
    )
    model.graph.node.append(nothing)
    (layer,) = calibrate(model, X, executor=here).layers
    np.testing.assert_allclose((layer.mean, layer.var), moments(X), rtol=1e-6, atol=1e-6)
