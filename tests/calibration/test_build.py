"""What graphs measure is what numpy measures in float64."""

import numpy as np
import onnx
import pytest
from calibration.helpers import bn_model, moments, statistics_in
from onnx import helper, numpy_helper

from bnfold.calibration import calibrate
from bnfold.calibration.place import RunOptions, measuring
from bnfold.model_io import load

METHODS = ["sequential", "pooled"]
TOLERANCE = {np.float16: 2e-3, np.float32: 2e-6, np.float64: 1e-12}


def sample(rank, kind=np.float32, shift=0.0, rows=12):
    """Values with a mean per channel."""
    rng = np.random.default_rng(rank)
    x = rng.normal(size=(rows, 3, *(5, 4, 2)[: rank - 2])) + rng.normal(size=(3, *(1,) * (rank - 2))) + shift
    return x.astype(kind)


def measured(model, x, here, **arguments):
    """What a model's BatchNormalization holds after a calibration."""
    layer = calibrate(model, x, executor=here, batch_size=5, check=False, **arguments).layers[0]
    return layer.measured.mean, layer.measured.var


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("arithmetic", [False, True], ids=["training-node", "arithmetic"])
@pytest.mark.parametrize("opset", [7, 9, 14, 15, 17, 18, 21])
def test_every_opset(opset, arithmetic, method, here):
    """Training-mode BatchNormalization before and after opset 14; axes of reductions before and after 18."""
    x = sample(4)
    mean, var = measured(bn_model(opset=opset), x, here, method=method, arithmetic=arithmetic)
    np.testing.assert_allclose(mean, moments(x)[0], atol=1e-6)
    np.testing.assert_allclose(var, moments(x)[1], rtol=2e-6)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("arithmetic", [False, True], ids=["training-node", "arithmetic"])
@pytest.mark.parametrize("kind", [np.float16, np.float32, np.float64])
@pytest.mark.parametrize("rank", [2, 3, 4, 5])
def test_every_rank_and_type(rank, kind, arithmetic, method, here):
    """Rank 2 and float16 are measured in float64, float64 stays what it is."""
    x = sample(rank, kind)
    mean, var = measured(bn_model(rank=rank, kind=kind), x, here, method=method, arithmetic=arithmetic)
    tight = 1e-7 if kind == np.float32 and rank > 2 else 1e-12
    np.testing.assert_allclose(mean, moments(x)[0], atol=20 * tight)
    np.testing.assert_allclose(var, moments(x)[1], rtol=20 * tight)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("arithmetic", [False, True], ids=["training-node", "arithmetic"])
def test_large_means(arithmetic, method, here):
    """Where mean / std is 1000, float64 is taken, and the error is that of the data's own rounding."""
    x = sample(4, shift=1000.0, rows=40)
    mean, var = measured(bn_model(), x, here, method=method, arithmetic=arithmetic)
    np.testing.assert_allclose(mean, moments(x)[0], rtol=1e-13)
    np.testing.assert_allclose(var, moments(x)[1], rtol=1e-9)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("arithmetic", [False, True], ids=["training-node", "arithmetic"])
def test_large_means_behind_blank_samples(arithmetic, method, here):
    """Samples that do not vary at all, the first ones of a set of padded images say, hide no large mean."""
    x = sample(4, shift=10000.0, rows=40)
    x[:2] = 10000
    mean, var = measured(bn_model(), x, here, method=method, arithmetic=arithmetic)
    np.testing.assert_allclose(mean, moments(x)[0], rtol=1e-13)
    np.testing.assert_allclose(var, moments(x)[1], rtol=1e-9)


@pytest.mark.parametrize("opset", [14, 15, 16])
@pytest.mark.parametrize("axis", ["", "n"])
def test_bfloat16(axis, opset, here):
    """There is no kernel, neither for training nor for inference, nor for a Scan before opset 16: its input is cast."""
    model = bn_model(opset=opset, before=[("Cast", {"to": 16})], after=[("Cast", {"to": 1})])
    model.graph.input[0].type.tensor_type.shape.dim[0].dim_param = axis
    for tensor in model.graph.initializer:
        values = numpy_helper.to_array(tensor)
        tensor.CopyFrom(helper.make_tensor(tensor.name, 16, values.shape, values))
    x = sample(4)
    rounded = (x.view(np.uint32) + 0x7FFF + ((x.view(np.uint32) >> 16) & 1) & 0xFFFF0000).view(np.float32)
    for method in METHODS:
        mean, var = measured(model, x, here, method=method)
        np.testing.assert_allclose(mean, moments(rounded)[0], atol=1e-12)
        np.testing.assert_allclose(var, moments(rounded)[1], rtol=1e-12)


def test_one_statistic_per_feature_map(here):
    """A pixel of its own mean does not get statistics of its own (3.2 of the paper)."""
    x = sample(4)
    x[:, :, 0, 0] += 7
    result = calibrate(bn_model(), x, executor=here, check=False)
    assert result.layers[0].mean.shape == (3,)
    np.testing.assert_allclose(result.layers[0].mean, moments(x)[0], atol=1e-6)


@pytest.mark.parametrize("rank", [2, 4])
def test_rows_may_depend_on_data(rank, here):
    """A value whose number of rows depends on the data, even without any: counts come from the graph."""
    model = bn_model(rank=rank)
    last = list(range(1, rank))
    nodes = list(model.graph.node)
    nodes[0].input[0] = "some"
    parts = [
        helper.make_node("ReduceMax", ["x"], ["largest"], axes=last, keepdims=0),
        helper.make_node("Greater", ["largest", "limit"], ["chosen"]),
        helper.make_node("Compress", ["x", "chosen"], ["some"], axis=0),
    ]
    del model.graph.node[:]
    model.graph.node.extend([*parts, *nodes])
    model.graph.initializer.append(numpy_helper.from_array(np.float32(1.5), "limit"))
    x = np.random.default_rng(0).normal(size=(40, *(3, 2, 1)[: rank - 1])).astype(np.float32)
    x[:8] = np.minimum(x[:8], 0)  # of the first batch nothing is left
    kept = x[x.max(tuple(last)) > 1.5]
    assert 2 < len(kept) < 30
    layer = calibrate(model, x, executor=here, batch_size=8, check=False).layers[0]
    assert layer.measured.count == kept[:, 0].size
    np.testing.assert_allclose(layer.measured.mean, moments(kept)[0], rtol=1e-6)
    for method in ("sequential", "paper", "pooled", "ema"):
        empty = calibrate(model, np.minimum(x, 0), method=method, executor=here)
        assert any("nothing reached bn" in warning for warning in empty.warnings)
        np.testing.assert_array_equal(statistics_in(empty.proto())[1], 1)


@pytest.mark.parametrize("kind", [np.float16, np.float32, np.float64])
@pytest.mark.parametrize("opset", [9, 13, 17])
@pytest.mark.parametrize("rank", [3, 4])
def test_one_sample_after_the_other(rank, opset, kind, here):
    """It is known that there are samples where their axis has a name or a size. They are the same bits either way."""
    x = sample(rank, kind)
    found = []
    for axis in ({}, {"dim_param": "n"}, {"dim_value": 4}):
        model = bn_model(rank=rank, opset=opset, kind=kind)
        dims = model.graph.input[0].type.tensor_type.shape.dim
        dims[0].CopyFrom(onnx.TensorShapeProto.Dimension(**axis))
        result = calibrate(model, x, executor=here, batch_size=4)
        found.append((result.layers[0].measured, result.residual))
    for measured_so, residual in found[1:]:
        np.testing.assert_array_equal(measured_so.mean, found[0][0].mean)
        np.testing.assert_array_equal(measured_so.var, found[0][0].var)
        assert residual == found[0][1]


@pytest.mark.parametrize("computed", [False, True], ids=["constant-gamma", "computed-gamma"])
def test_behind_a_frozen_node(computed, here):
    """With 16 channels it is written as a convolution if gamma is constant; what is met behind it is the same."""
    model = bn_model(channels=16, after=[("Relu", {})])
    gamma, beta = (numpy_helper.to_array(tensor) for tensor in model.graph.initializer[:2])
    if computed:
        model.graph.node.insert(0, helper.make_node("Neg", ["gamma"], ["less"]))
        model.graph.node.insert(1, helper.make_node("ReduceMax", ["x"], ["one"], axes=[0, 1, 2, 3], keepdims=0))
        model.graph.node.insert(2, helper.make_node("Mul", ["less", "one"], ["changed"]))
        model.graph.node[3].input[1] = "changed"
    model.graph.node[-1].CopyFrom(helper.make_node("BatchNormalization", ["after_0", *"gbmv"], ["y"], "bn2"))
    zeros, ones = np.zeros(16, np.float32), np.ones(16, np.float32)
    for name, values in zip("gbmv", (ones, zeros, zeros, ones), strict=True):
        model.graph.initializer.append(numpy_helper.from_array(values, name))
    x = np.random.default_rng(0).normal(3, 2, (12, 16, 5, 4)).astype(np.float32)
    mean, var = moments(x)
    gamma = -gamma * x.max() if computed else gamma
    scale = gamma / np.sqrt(var + 1e-5)
    behind = np.maximum((x.swapaxes(1, 3) - mean) * scale + beta, 0).swapaxes(1, 3)
    layer = calibrate(model, x, batch_size=12, executor=here).layers[1]
    np.testing.assert_allclose(layer.measured.mean, moments(behind)[0], rtol=2e-6, atol=1e-6)
    np.testing.assert_allclose(layer.measured.var, moments(behind)[1], rtol=3e-6, atol=1e-9)
    assert layer.residual < 1e-6


@pytest.mark.parametrize("arithmetic", [False, True], ids=["training-node", "arithmetic"])
def test_a_model_with_names_of_our_own(arithmetic, here):
    """What programs add has names that no value of the model begins with."""
    model, x = bn_model(before=[("Relu", {}), ("Relu", {})]), sample(4)
    for index in range(2):
        model.graph.node[index].output[0] = model.graph.node[index + 1].input[0] = f"bnfold_constant_{index}"
    layer = calibrate(model, x, executor=here, arithmetic=arithmetic).layers[0]
    np.testing.assert_allclose(layer.mean, moments(np.maximum(x, 0))[0], atol=1e-6)


@pytest.mark.parametrize(("between", "op_types"), [("Relu", {"Conv"}), ("Round", {"BatchNormalization"})])
def test_how_a_frozen_node_is_written(between, op_types, here):
    """As a convolution, which ONNX Runtime fuses, in a float model; as itself where its last bit may become a step."""
    model = bn_model(channels=16, before=[("BatchNormalization", {})], after=[(between, {})])
    model.graph.node[0].input.extend(["gamma", "beta", "mean", "var"])
    x = np.random.default_rng(0).normal(size=(4, 16, 5, 4)).astype(np.float32)
    with measuring(load(model), x, RunOptions(executor=here)) as (subject, _):
        zeros, ones = [np.zeros(16)] * 2, [np.ones(16)] * 2
        subject.in_inference_mode(zeros, ones, "")
        program = max(subject.engine.folder.glob("*/program-*.onnx"), key=lambda path: path.stat().st_mtime_ns)
        nodes = onnx.load(program).graph.node
    frozen = {node.op_type for node in nodes if node.output[0] == "before_0"}
    assert frozen == op_types
    assert "Scan" in {node.op_type for node in nodes}  # one sample after the other
