"""Sequential statistics are exact, whatever the batch size, the memory and the cuts."""

import numpy as np
import onnx
import pytest
from calibration.helpers import TRAIN, Here, X, moments, session
from networks import MODELS, NETWORKS
from onnx import helper, numpy_helper
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static

from bnfold.calibration import calibrate
from bnfold.calibration.measuring.cuts import Budget, choose
from bnfold.calibration.measuring.segments import START, Segments
from bnfold.calibration.measuring.targets import survey
from bnfold.calibration.result import Layer
from bnfold.calibration.statistics.moments import Statistics
from bnfold.graph import Graph
from bnfold.model_io import load


def stack(layers, name):
    """All means or variances in one vector, in units of the standard deviation or of the variance."""
    return np.concatenate([getattr(layer.measured, name) for layer in layers])


@pytest.fixture(scope="module")
def whole():
    """Statistics of the training set in one batch, for each network."""
    return {
        name: calibrate(MODELS / f"{name}.train.onnx", TRAIN, batch_size=1000, executor=Here()) for name in NETWORKS
    }


@pytest.mark.parametrize("size", [7, 32])
@pytest.mark.parametrize("name", NETWORKS)
def test_any_batch_size(name, size, whole, here):
    """7, 32 and the whole set give the same, to 1e-6."""
    found = calibrate(MODELS / f"{name}.train.onnx", TRAIN, batch_size=size, executor=here, check=False)
    for layer, other in zip(found.layers, whole[name].layers, strict=True):
        std = np.sqrt(other.var + layer.epsilon)
        np.testing.assert_allclose(layer.measured.mean / std, other.measured.mean / std, atol=1e-6)
        np.testing.assert_allclose(layer.measured.var, other.measured.var, rtol=1e-6)


def test_batches_of_one(here):
    """Where a training-mode pass has no variance at all (rank 2)."""
    data = {"image": np.load(TRAIN)["image"][:64]}
    one, many = (
        calibrate(MODELS / "digits_resnet.train.onnx", data, batch_size=size, executor=here, check=False)
        for size in (1, 64)
    )
    np.testing.assert_allclose(stack(one.layers, "var"), stack(many.layers, "var"), rtol=1e-6)


@pytest.mark.parametrize("name", NETWORKS)
def test_it_is_training_mode_on_the_whole_set(name, whole, here):
    """Sequential statistics are those of one training-mode batch of all samples."""
    pooled = calibrate(MODELS / f"{name}.train.onnx", TRAIN, batch_size=1000, method="pooled", executor=here)
    np.testing.assert_allclose(stack(pooled.layers, "var"), stack(whole[name].layers, "var"), rtol=3e-6)


@pytest.mark.parametrize("name", NETWORKS)
def test_the_residual_is_tiny(name, whole):
    """The calibrated model meets what it holds."""
    assert whole[name].residual < 1e-6


def test_the_residual_is_measured_on_the_result(whole):
    """Numpy's statistics of what stands before each BatchNormalization of the written model are those it holds."""
    model = whole["digits_resnet"].proto()
    nodes = [node for node in model.graph.node if node.op_type == "BatchNormalization"]
    model.graph.output.extend(onnx.ValueInfoProto(name=node.input[0]) for node in nodes)
    values = session(model).run([node.input[0] for node in nodes], {"image": np.load(TRAIN)["image"]})
    for layer, value in zip(whole["digits_resnet"].layers, values, strict=True):
        mean, var = moments(value)
        np.testing.assert_allclose(layer.var, var, rtol=2e-6)
        np.testing.assert_allclose(layer.mean, mean, atol=2e-6 * np.sqrt(var.max()))


@pytest.mark.parametrize(
    ("memory", "disk"),
    [
        pytest.param(0, 1 << 40, id="on-disk"),
        pytest.param(1 << 20, 1 << 40, id="some-on-disk"),
        pytest.param(0, 0, id="recomputed"),
        pytest.param(3 << 20, 0, id="some-recomputed"),
    ],
)
@pytest.mark.parametrize("name", ["digits_resnet", "digits_preact"])
def test_little_memory(name, memory, disk, whole):
    """What does not fit is spilled or computed again; the statistics stay the same."""
    found = calibrate(MODELS / f"{name}.train.onnx", TRAIN, cache_memory=memory, cache_disk=disk, check=False)
    np.testing.assert_allclose(stack(found.layers, "var"), stack(whole[name].layers, "var"), rtol=1e-6)
    assert found.cuts.peak * 1000 <= memory + disk
    assert (found.cuts.work > found.cuts.least) == (memory < 10 << 20)


def schedule(name):
    graph = Graph(load(MODELS / f"{name}.onnx"), assume_constant=True)
    return Segments(graph, survey(graph).targets), graph


@pytest.mark.parametrize("name", NETWORKS)
def test_every_node_runs_once(name):
    """With all cuts, no node that depends on the input runs in two segments, and none that is needed is left out."""
    segments, graph = schedule(name)
    targets = survey(graph).targets
    runs = []
    for number in range(segments.count):
        before = segments.crossing(number - 1) if number else []
        keeps = [value for value in segments.crossing(number) if value not in before]
        ops = segments.between(number - 1, [*(targets[k].x for k in segments.measured(number)), *keeps])
        runs += [op for op in ops if any(v.is_input for v in op.inputs if v) or op.type not in ("Constant",)]
    conv = [op for op in runs if op.type in ("Conv", "BatchNormalization", "Relu", "Add", "AveragePool")]
    assert len(conv) == len(set(conv))
    assert {target.x.producer for target in targets} - {None} <= set(runs)


def test_depths():
    """Those of the residual network: a shortcut is measured with the first of its block."""
    segments, _ = schedule("digits_resnet")
    assert segments.measured_in == [0, 1, 2, 3, 4, 3, 5, 6]


def test_cuts_follow_the_budget():
    """All cuts where everything fits, the start alone where nothing does."""
    segments, graph = schedule("digits_resnet")
    sizes = {value.name: 1000 for op in graph.ops() for value in op.outputs if value}
    shapes = dict.fromkeys(sizes, (1, 250))
    roomy = choose(segments, sizes, shapes, 100, Budget(1 << 30, 0))
    none = choose(segments, sizes, shapes, 100, Budget(0, 0))
    assert roomy.chosen == tuple(range(segments.count))
    assert roomy.work == roomy.least
    assert none.chosen == (segments.count - 1,)
    assert none.work > 2 * none.least
    assert segments.crossing(START) == []


class Few(CalibrationDataReader):
    """Some of the digits, for the ranges of activations."""

    def __init__(self):
        self._batches = iter(np.split(np.load(TRAIN)["image"][:320], 10))

    def get_next(self):
        batch = next(self._batches, None)
        return None if batch is None else {"image": batch}


def met(model, images):
    """The largest relative difference between what BatchNormalizations of a model hold and meet when it runs."""
    tensors = {tensor.name: numpy_helper.to_array(tensor).astype(np.float64) for tensor in model.graph.initializer}
    nodes = [node for node in model.graph.node if node.op_type == "BatchNormalization"]
    seen = onnx.ModelProto()
    seen.CopyFrom(model)
    known = {entry.name for entry in seen.graph.output}
    names = dict.fromkeys(node.input[0] for node in nodes)
    seen.graph.output.extend(onnx.ValueInfoProto(name=name) for name in names if name not in known)
    values = dict(zip(names, session(seen).run(list(names), {"image": images}), strict=True))
    worst = 0.0
    for node in nodes:
        (mean, var), held = moments(values[node.input[0]]), tensors[node.input[4]] + 1e-5
        worst = max(worst, np.max(np.abs(mean - tensors[node.input[3]]) / np.sqrt(held)))
        worst = max(worst, np.max(np.abs(var + 1e-5 - held) / held))
    return worst


@pytest.mark.parametrize("name", ["digits_resnet", "digits_preact"])
def test_the_residual_of_a_quantised_model_is_that_of_the_model(name, tmp_path, here):
    """A last bit may be a whole step there, so what is measured is the model's own arithmetic."""
    path = tmp_path / "quantised.onnx"
    kinds = {"op_types_to_quantize": ["Conv", "Gemm", "Add"], "per_channel": True, "weight_type": QuantType.QInt8}
    quantize_static(MODELS / f"{name}.onnx", path, Few(), quant_format=QuantFormat.QDQ, **kinds)
    result = calibrate(path, TRAIN, executor=here)
    assert met(result.proto(), np.load(TRAIN)["image"]) < 1e-5
    assert result.residual < 1e-5
    assert not any("meets other statistics" in warning for warning in result.warnings)


def test_the_limit_of_a_residual_depends_on_the_type(here):
    """Half precision rounds differently in segments and in one piece, which is no fault."""
    model = onnx.load(MODELS / "digits_resnet.onnx")
    floats = (t for t in model.graph.initializer if t.data_type == onnx.TensorProto.FLOAT)
    for tensor in floats:
        tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor).astype(np.float16), tensor.name))
    for entry in (*model.graph.input, *model.graph.output):
        entry.type.tensor_type.elem_type = onnx.TensorProto.FLOAT16
    result = calibrate(model, np.load(TRAIN)["image"].astype(np.float16), executor=here)
    assert 1e-5 < result.residual < 1e-3
    assert not any("meets other statistics" in warning for warning in result.warnings)


@pytest.mark.parametrize(
    ("residual", "error", "is_warned_of"),
    [
        pytest.param(9e-6, 0.0, False, id="rounding"),
        pytest.param(7e-5, 0.1, False, id="far below what sampling leaves open"),
        pytest.param(7e-5, 0.001, True, id="beside what many samples say"),
        pytest.param(7e-5, np.nan, True, id="of a single sample"),
        pytest.param(np.nan, 0.1, True, id="not known"),
        pytest.param(None, 0.1, False, id="not checked"),
    ],
)
def test_a_residual_is_held_against_the_standard_errors(residual, error, is_warned_of):
    """What rounding adds in a deep network is no fault where the statistics are known a hundred times worse."""
    one, zero = np.ones(1), np.zeros(1)
    measured = Statistics(1000, zero, one, np.full(1, error), np.full(1, error / 2))
    layer = Layer("bn", zero, one, zero, one, measured, 0.0, residual)
    assert layer.meets_others(1e-5) is is_warned_of


def casts(kind):
    """`made` as another type, and back again for two readers in different segments."""
    back = [helper.make_node("Cast", ["other"], [name], to=onnx.TensorProto.FLOAT) for name in ("first", "again")]
    return [helper.make_node("Cast", ["made"], ["other"], to=kind), *back]


def quantised(kind):
    """Likewise on a grid."""
    grid = ["scale", f"zero_{onnx.TensorProto.DataType.Name(kind)}"]
    back = [helper.make_node("DequantizeLinear", ["other", *grid], [name]) for name in ("first", "again")]
    return [helper.make_node("QuantizeLinear", ["made", *grid], ["other"]), *back]


def in_a_sequence():
    back = [helper.make_node("SequenceAt", ["other", "number"], [name]) for name in ("first", "again")]
    return [helper.make_node("SequenceConstruct", ["made"], ["other"]), *back]


@pytest.mark.parametrize("workers", [1, 2], ids=["in memory", "in files"])
@pytest.mark.parametrize(
    "nodes",
    [
        pytest.param(casts(onnx.TensorProto.BFLOAT16), id="bfloat16"),
        pytest.param(casts(onnx.TensorProto.FLOAT8E4M3FN), id="float8"),
        pytest.param(casts(onnx.TensorProto.STRING), id="text"),
        pytest.param(casts(onnx.TensorProto.FLOAT16), id="float16"),
        pytest.param(quantised(onnx.TensorProto.INT4), id="int4"),
        pytest.param(quantised(onnx.TensorProto.INT8), id="int8"),
        pytest.param(in_a_sequence(), id="a sequence"),
    ],
)
def test_values_that_numpy_has_no_type_for(nodes, workers):
    """They cannot wait for the next segment, which makes them again."""
    zeros = [
        helper.make_tensor(f"zero_{onnx.TensorProto.DataType.Name(kind)}", kind, [], [0])
        for kind in (onnx.TensorProto.INT4, onnx.TensorProto.INT8)
    ]
    constants = {"scale": np.float32(0.25), "number": np.int64(0)} | {
        f"{name}{index}": np.full(3, value, np.float32)
        for index in range(3)
        for name, value in (("gamma", 1), ("beta", 0), ("mean", 0), ("var", 1))
    }

    def norm(index, x, y):
        inputs = [x, *(f"{name}{index}" for name in ("gamma", "beta", "mean", "var"))]
        return helper.make_node("BatchNormalization", inputs, [y], f"bn{index}")

    body = [
        norm(0, "x", "made"),
        *nodes,
        norm(1, "first", "second"),
        helper.make_node("Add", ["second", "again"], ["sum"]),
    ]
    graph = helper.make_graph(
        [*body, norm(2, "sum", "y")],
        "g",
        [helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, ["N", 3, 4, 4])],
        [helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, ["N", 3, 4, 4])],
        [*(numpy_helper.from_array(np.asarray(array), name) for name, array in constants.items()), *zeros],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)
    result = calibrate(model, X, batch_size=3, workers=workers, executor=Here() if workers == 1 else None)
    made = result.proto()
    made.graph.output.extend(onnx.ValueInfoProto(name=name) for name in ("first", "sum"))
    values = session(made).run(["first", "sum"], {"x": X})
    for layer, value in zip(result.layers, (X, *values), strict=True):
        mean, var = moments(value)
        np.testing.assert_allclose(layer.measured.mean, mean, atol=1e-6)
        np.testing.assert_allclose(layer.measured.var, var, rtol=1e-5)
