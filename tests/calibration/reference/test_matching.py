"""Layers are matched to those of a float model: the means that numpy finds, and nothing that is not a twin."""

import json

import numpy as np
import onnx
import pytest
from calibration.helpers import Here, session
from click.testing import CliRunner
from numpy.lib.stride_tricks import sliding_window_view
from onnx import TensorProto, helper, numpy_helper
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static

from bnfold.calibration import CalibrationError, calibrate
from bnfold.commands import program

RNG = np.random.default_rng(5)
DATA = RNG.normal(0.3, 1, (40, 3, 6, 6)).astype(np.float32)
WEIGHTS = {
    "w1": RNG.normal(0, 0.4, (8, 3, 3, 3)), "b1": RNG.normal(0, 0.3, 8),
    "w2": RNG.normal(0, 0.3, (8, 8, 3, 3)), "b2": RNG.normal(0, 0.3, 8),
    "w3": RNG.normal(0, 0.5, (4, 8)), "b3": RNG.normal(0, 0.3, 4),
}  # fmt: skip
LAYERS = "conv1", "conv2", "dense"


def net(weights=WEIGHTS, *, prefix="", opset=17, nodes=None, **extra):
    """Conv, Relu, Conv, Relu, pool, Gemm, with names that start alike."""
    if nodes is None:
        nodes = [
            helper.make_node("Conv", ["x", "w1", "b1"], ["c1"], "conv1", pads=[1] * 4),
            helper.make_node("Relu", ["c1"], ["r1"]),
            helper.make_node("Conv", ["r1", "w2", "b2"], ["c2"], "conv2"),
            helper.make_node("Relu", ["c2"], ["r2"]),
            helper.make_node("GlobalAveragePool", ["r2"], ["p"]),
            helper.make_node("Flatten", ["p"], ["f"]),
            helper.make_node("Gemm", ["f", "w3", "b3"], ["y"], "dense", transB=1),
        ]
    for node in nodes:
        node.name = prefix + node.name if node.name else ""
        node.input[:] = [name if name in ("x", "") else prefix + name for name in node.input]
        node.output[:] = [name if name == "y" else prefix + name for name in node.output]
    tensors = {
        name: array if array.dtype.kind in "iu" else array.astype(np.float32)
        for name, array in (weights | extra).items()
    }
    graph = helper.make_graph(
        nodes, "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 3, 6, 6])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(array, prefix + name) for name, array in tensors.items()],
    )  # fmt: skip
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=10)


def coarse(weights=WEIGHTS, levels=3):
    """The weights on few levels, biases as they are."""
    return {
        name: np.round(array / np.abs(array).max() * levels) * np.abs(array).max() / levels if name[0] == "w" else array
        for name, array in weights.items()
    }


def conv(x, w, b, pad):
    x = np.pad(x, [(0, 0), (0, 0), (pad, pad), (pad, pad)])
    return np.einsum("nchwij,ocij->nohw", sliding_window_view(x, (3, 3), (2, 3)), w) + b[:, None, None]


def through(weights, correct=lambda _name, y: (np.ones(y.shape[1]), np.zeros(y.shape[1]))):
    """What the three layers make of the data in float64, each corrected by what `correct` says of it."""

    def corrected(name, y):
        scale, shift = (vector.reshape(-1, *[1] * (y.ndim - 2)) for vector in correct(name, y))
        return scale * y + shift

    w = {name: array.astype(np.float32).astype(np.float64) for name, array in weights.items()}
    first = corrected("conv1", conv(DATA.astype(np.float64), w["w1"], w["b1"], 1))
    second = corrected("conv2", conv(np.maximum(first, 0), w["w2"], w["b2"], 0))
    third = corrected("dense", np.maximum(second, 0).mean((2, 3)) @ w["w3"].T + w["b3"])
    return dict(zip(LAYERS, (first, second, third), strict=True))


def moments(y):
    axes = tuple(axis for axis in range(y.ndim) if axis != 1)
    return y.mean(axes), y.std(axes)


def oracle(method):
    """The corrections that make means (and deviations) those of the float weights, one layer after the other."""
    should = {name: moments(y) for name, y in through(WEIGHTS).items()}
    found = {}

    def correct(name, y):
        mean, std = moments(y)
        scale = should[name][1] / std if method == "mean-variance" else np.ones(len(mean))
        found[name] = scale, should[name][0] - scale * mean
        return found[name]

    through(coarse(), correct)
    return found


def tensors(model):
    return {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}


def seen(model, names, data=DATA):
    """Values of a model as ONNX Runtime computes them, node by node as they stand."""
    open_model = onnx.ModelProto()
    open_model.CopyFrom(model)
    known = {entry.name for entry in open_model.graph.output}
    open_model.graph.output.extend(onnx.ValueInfoProto(name=name) for name in names if name not in known)
    return dict(zip(names, session(open_model).run(list(names), {"x": data}), strict=True))


def match(model, reference, *, data=DATA, **options):
    return calibrate(model, data, reference=reference, executor=Here(), **options)


@pytest.mark.parametrize("batch_size", [7, 40])
@pytest.mark.parametrize("method", ["mean", "mean-variance"])
def test_it_is_the_oracles_correction(method, batch_size):
    """Biases and weights are those that numpy finds in float64, whatever the batch size, and so are the figures."""
    result = match(net(coarse()), net(), method=method, batch_size=batch_size)
    found, before = tensors(result.proto()), coarse()
    for layer, (name, (scale, shift)), number in zip(result.layers, oracle(method).items(), "123", strict=True):
        assert (layer.name, layer.twin, layer.is_named) == (name, name, True)
        weight, bias = before[f"w{number}"], before[f"b{number}"]
        np.testing.assert_allclose(found[f"b{number}"], scale * bias + shift, atol=3e-6)
        np.testing.assert_allclose(
            found[f"w{number}"], scale.reshape(-1, *[1] * (weight.ndim - 1)) * weight, rtol=3e-6, atol=1e-7
        )
    first, should = through(coarse()), through(WEIGHTS)
    for layer in result.layers:
        (mean, _), (goal, std) = moments(first[layer.name]), moments(should[layer.name])
        assert layer.off_before == pytest.approx((np.abs(mean - goal) / std).max(), rel=1e-3)
    assert result.residual < 1e-6
    assert max(layer.spread for layer in result.layers) < (1e-6 if method == "mean-variance" else 1)


def test_the_reference_and_the_model_stay_as_they_are(tmp_path):
    """Neither file is touched, and the result is a new one."""
    for name, model in (("q.onnx", net(coarse())), ("f.onnx", net())):
        onnx.save(model, tmp_path / name)
    before = [(tmp_path / name).read_bytes() for name in ("q.onnx", "f.onnx")]
    match(tmp_path / "q.onnx", tmp_path / "f.onnx", output=tmp_path / "out.onnx")
    assert [(tmp_path / name).read_bytes() for name in ("q.onnx", "f.onnx")] == before
    (value,) = seen(onnx.load(tmp_path / "out.onnx"), ["y"]).values()
    np.testing.assert_allclose(value.mean(0), through(WEIGHTS)["dense"].mean(0), atol=1e-5)


class Reader(CalibrationDataReader):
    """The data, once."""

    def __init__(self):
        self._batches = iter(np.array_split(DATA, 4))

    def get_next(self):
        return next(({"x": batch} for batch in self._batches), None)


@pytest.fixture(scope="module", params=["tensor", "channel"])
def quantised(request, tmp_path_factory):
    """The net in int8, with integers in DequantizeLinear nodes and with operators on integers."""
    folder = tmp_path_factory.mktemp("quantised")
    onnx.save(net(coarse(levels=5)), folder / "f.onnx")
    for form in QuantFormat:
        quantize_static(
            folder / "f.onnx", folder / f"{form.name}.onnx", Reader(), quant_format=form,
            activation_type=QuantType.QUInt8, weight_type=QuantType.QInt8, per_channel=request.param == "channel",
        )  # fmt: skip
    return {form: onnx.load(folder / f"{form.name}.onnx") for form in QuantFormat}


@pytest.mark.parametrize("method", ["mean", "mean-variance"])
@pytest.mark.parametrize("form", list(QuantFormat), ids=lambda form: form.name)
def test_integers_stay_on_their_grid(form, method, quantised):
    """Every mean is the twin's to half a step of the int32 bias, weights are the same integers, and it still runs."""
    model = quantised[form]
    result = match(model, net(), method=method)
    made, before = result.proto(), tensors(model)
    assert [layer.twin for layer in result.layers] == list(LAYERS)
    assert max(layer.off_before for layer in result.layers) > 0.02
    assert result.residual < 1e-3
    if method == "mean-variance":
        assert max(layer.spread for layer in result.layers) < 1e-3
    onnx.checker.check_model(made, full_check=True)
    after = tensors(made)
    integers = [name for name, array in before.items() if array.dtype == np.int8 and array.ndim > 1]
    assert len(integers) == 3
    for name in integers:
        np.testing.assert_array_equal(after[name], before[name])
    goal = through(WEIGHTS)
    (before, now) = (next(iter(seen(m, ["y"]).values())).mean(0) - goal["dense"].mean(0) for m in (model, made))
    assert np.abs(now).max() < 0.06 < np.abs(before).max()  # the output has a grid, too, of steps of that size
    if form is QuantFormat.QDQ:
        assert [node.op_type for node in made.graph.node] == [node.op_type for node in model.graph.node]
        outputs = {node.name: node.output[0] for node in made.graph.node if node.name in LAYERS}
        for name, value in zip(outputs, seen(made, outputs.values()).values(), strict=True):
            mean, std = moments(goal[name])
            assert (np.abs(moments(value)[0] - mean) / std).max() < 1e-3


def test_the_bias_of_a_dequantized_layer_is_within_half_a_step():
    """By hand: a Conv with int8 weights and an int32 bias, whose mean then is off by half a step at the most."""
    steps = {"sx": np.float32(0.05), "sw": np.full(8, 0.01), "sb": np.full(8, 0.05 * 0.01)}
    quantities = {
        "w": np.round(WEIGHTS["w1"] / 0.01).clip(-127, 127).astype(np.int8),
        "b": np.round(WEIGHTS["b1"] / 5e-4).astype(np.int32) + 500,
        "zx": np.array(128, np.uint8),
    }
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "sx", "zx"], ["xq"]),
        helper.make_node("DequantizeLinear", ["xq", "sx", "zx"], ["xd"]),
        helper.make_node("DequantizeLinear", ["w", "sw"], ["wd"], axis=0),
        helper.make_node("DequantizeLinear", ["b", "sb"], ["bd"], axis=0),
        helper.make_node("Conv", ["xd", "wd", "bd"], ["y"], "conv1", pads=[1] * 4),
    ]
    arrays = {name: np.asarray(array) for name, array in (steps | quantities).items()}
    reference = net(nodes=[helper.make_node("Conv", ["x", "w1", "b1"], ["y"], "conv1", pads=[1] * 4)])
    result = match(net(arrays, nodes=nodes), reference)
    (value,) = seen(result.proto(), ["y"]).values()
    goal = conv(DATA.astype(np.float64), WEIGHTS["w1"], WEIGHTS["b1"], 1).mean((0, 2, 3))
    apart = np.abs(value.astype(np.float64).mean((0, 2, 3)) - goal)
    assert apart.max() < 5e-4 / 2 + 1e-5
    assert tensors(result.proto())["b"].dtype == np.int32


# --- which layer is which ------------------------------------------------------------------------------------


def test_by_order():
    """Where no name is the same, if both line up and the weights are alike; that is said."""
    result = match(net(coarse()), net(prefix="other/"))
    assert [(layer.twin, layer.is_named) for layer in result.layers] == [
        ("other/conv1", False),
        ("other/conv2", False),
        ("other/dense", True),  # which makes y in both
    ]
    assert "2 of them by their order" in str(result)
    assert result.residual < 1e-6


def test_a_quantizers_names_are_those_of_the_model():
    """`_quant` and `_quantized` are what ONNX Runtime adds."""
    model = net(coarse())
    for node in model.graph.node:
        node.name = node.name and f"{node.name}_quant"
    assert all(layer.is_named for layer in match(model, net()).layers)


def other(name, array):
    return net(WEIGHTS | {name: array})


SCALED = np.where(np.arange(8) == 3, 4.0, 1.0)


@pytest.mark.parametrize(
    ("reference", "why"),
    [
        pytest.param(
            other("w2", np.roll(WEIGHTS["w2"], 3, 0)), "has weights that are not those of its twin conv2", id="weights"
        ),
        pytest.param(
            other("w2", WEIGHTS["w2"] * SCALED.reshape(-1, 1, 1, 1)),
            "in channel 3 they are 0.25 times as large",
            id="scaled",
        ),
        pytest.param(
            net(WEIGHTS | {"w2": RNG.normal(size=(6, 8, 3, 3)), "b2": np.zeros(6), "w3": RNG.normal(size=(4, 6))}),
            "has 8 channels, and its twin conv2 6",
            id="channels",
        ),
    ],
)
def test_what_is_no_twin_is_left(reference, why):
    """Each breaks one condition of a pair; the layer is named with the reason, and its bias stays."""
    weights = {name: np.round(array * 128) / 128 for name, array in WEIGHTS.items()}
    result = match(net(weights), reference)
    assert "conv2" not in [layer.name for layer in result.layers]
    (skipped,) = [entry for entry in result.skipped if entry.name == "conv2"]
    assert why in skipped.why
    assert f"conv2 {skipped.why}; it is left as it is" in str(result)
    np.testing.assert_array_equal(tensors(result.proto())["b2"], weights["b2"].astype(np.float32))


def test_names_that_say_different_things():
    """A node called like one layer, with weights called like another, is neither's; no guess is made."""
    square = {"w1": WEIGHTS["w2"], "w2": WEIGHTS["w2"] + 0.01}

    def two(first, second):
        nodes = [
            helper.make_node("Conv", ["h", first, "b1"], ["c1"], "conv1", pads=[1] * 4),
            helper.make_node("Conv", ["c1", second, "b2"], ["y"], "conv2", pads=[1] * 4),
        ]
        head = helper.make_node("Conv", ["x", "w0"], ["h"], "head")
        return net(square | {"w0": WEIGHTS["w1"], "b1": WEIGHTS["b1"], "b2": WEIGHTS["b2"]}, nodes=[head, *nodes])

    result = match(two("w2", "w1"), two("w1", "w2"))
    assert [layer.name for layer in result.layers] == ["head"]
    assert all("several layers of the reference: conv" in entry.why for entry in result.skipped)


def numbered(weights, *, name):
    """A Conv whose names are given, behind another: the second has as many channels whatever the first has."""
    first = helper.make_node("Conv", ["x", "v"], ["c"], "first")
    second = helper.make_node("Conv", ["c", "w"], ["y"], name)
    return net(weights, nodes=[first, second])


@pytest.mark.parametrize(("name", "is_matched"), [("block/conv", True), ("conv_7", False)])
def test_a_number_is_no_name_of_weights_that_are_not_alike(name, is_matched):
    """Where inputs were pruned, weights cannot be compared; and numbers go on to other layers in another export."""
    weights = {"v": RNG.normal(0, 1, (8, 3, 1, 1)), "w": RNG.normal(0, 1, (4, 8, 1, 1))}
    pruned = {"v": weights["v"][:6], "w": weights["w"][:, :6]}
    ours, theirs = numbered(pruned, name=name), numbered(weights, name=name)
    for model, value in ((ours, "w_1"), (theirs, "w_1")):  # as exporters call them: the node alone has a name
        model.graph.node[1].input[1] = model.graph.initializer[1].name = value
        model.graph.node[1].output[0] = model.graph.output[0].name = "y_0"
    if is_matched:
        assert [layer.name for layer in match(ours, theirs).layers] == [name]
    else:
        with pytest.raises(CalibrationError, match="nothing to match"):
            match(ours, theirs)


def batchnorm(y, name):
    return helper.make_node("BatchNormalization", [f"{name}_y", "gamma", "beta", "mean", "var"], [y], f"{name}_bn")


PARAMETERS = {
    "gamma": RNG.uniform(0.5, 2, 8), "beta": RNG.normal(size=8),
    "mean": RNG.normal(size=8), "var": RNG.uniform(0.5, 2, 8),
}  # fmt: skip


def unfolded():
    nodes = [
        helper.make_node("Conv", ["x", "w1"], ["conv1_y"], "conv1", pads=[1] * 4),
        batchnorm("y", "conv1"),
    ]
    return net({"w1": WEIGHTS["w1"]} | PARAMETERS, nodes=nodes)


def folded(shift=0.0):
    scale = PARAMETERS["gamma"] / np.sqrt(PARAMETERS["var"] + 1e-5)
    weight = WEIGHTS["w1"] * scale.reshape(-1, 1, 1, 1)
    bias = PARAMETERS["beta"] - scale * PARAMETERS["mean"] + shift
    nodes = [helper.make_node("Conv", ["x", "w1", "b1"], ["y"], "conv1", pads=[1] * 4)]
    return net(coarse({"w1": weight}, levels=7) | {"b1": bias}, nodes=nodes)


def test_a_reference_that_is_not_folded():
    """A folded layer is compared with what stands behind the BatchNormalization of its twin."""
    result = match(folded(), unfolded())
    value, goal = (next(iter(seen(model, ["y"]).values())).mean((0, 2, 3)) for model in (result.proto(), unfolded()))
    np.testing.assert_allclose(value, goal, atol=1e-5)


def test_a_fold_of_something_else():
    """If what they add is far apart, one is not the fold of the other."""
    with pytest.raises(CalibrationError, match=r"conv1 adds other numbers than its twin conv1: .* standard deviations"):
        match(folded(shift=9.0), unfolded())


@pytest.mark.parametrize("method", ["mean", "mean-variance"])
def test_a_model_with_its_batchnormalizations(method):
    """Then beta and gamma take the correction, and weights stay on whatever grid they are."""
    model = unfolded()
    (weight,) = [tensor for tensor in model.graph.initializer if tensor.name == "w1"]
    weight.CopyFrom(numpy_helper.from_array(coarse()["w1"].astype(np.float32), "w1"))
    result = match(model, unfolded(), method=method)
    np.testing.assert_array_equal(tensors(result.proto())["w1"], tensors(model)["w1"])
    value, goal = (next(iter(seen(m, ["y"]).values())) for m in (result.proto(), unfolded()))
    np.testing.assert_allclose(value.mean((0, 2, 3)), goal.mean((0, 2, 3)), atol=1e-5)
    if method == "mean-variance":
        np.testing.assert_allclose(value.std((0, 2, 3)), goal.std((0, 2, 3)), rtol=1e-5)


# --- what layers look like -----------------------------------------------------------------------------------


def product(weights, *between, **attributes):
    """A MatMul over the last axis of rank 3, and what comes behind it."""
    nodes = [
        helper.make_node("Reshape", ["x", "sizes"], ["rows"]),
        helper.make_node("MatMul", ["rows", "w"], ["y" if not between else "product"], "product"),
        *between,
    ]
    return net(weights | {"sizes": np.array([0, -1, 6])}, nodes=nodes, **attributes)


DENSE = {"w": RNG.normal(size=(6, 5)), "b": RNG.normal(size=5)}
ADD = helper.make_node("Add", ["product", "b"], ["y"], "bias")


@pytest.mark.parametrize("method", ["mean", "mean-variance"])
@pytest.mark.parametrize("between", [(), (ADD,)], ids=["alone", "with-add"])
def test_matrix_products(between, method):
    """Channels are the last axis; one without a bias gets an Add, behind which its output has its old name."""
    weights = DENSE if between else {"w": DENSE["w"]}
    model, reference = product(coarse(weights), *between), product(weights, *between)
    result = match(model, reference, method=method)
    value, goal = (next(iter(seen(m, ["y"]).values())).reshape(-1, 5) for m in (result.proto(), reference))
    np.testing.assert_allclose(value.mean(0), goal.mean(0), atol=1e-5)
    if method == "mean-variance":
        np.testing.assert_allclose(value.std(0), goal.std(0), rtol=1e-5)
    assert [node.op_type for node in result.proto().graph.node] == ["Reshape", "MatMul", "Add"]


def transposed(weights):
    nodes = [helper.make_node("ConvTranspose", ["x", "w", "b"], ["y"], "up", group=3)]
    return net(weights, nodes=nodes)


def scaled_gemm(weights):
    nodes = [
        helper.make_node("Flatten", ["x"], ["f"]),
        helper.make_node("Gemm", ["f", "w", "b"], ["y"], "dense", beta=0.5, alpha=2.0),
    ]
    return net(weights, nodes=nodes)


@pytest.mark.parametrize(
    ("make", "weights"),
    [
        pytest.param(
            transposed, {"w": RNG.normal(size=(3, 2, 3, 3)), "b": RNG.normal(size=6)}, id="transposed-grouped"
        ),
        pytest.param(scaled_gemm, {"w": RNG.normal(size=(108, 5)), "b": RNG.normal(size=(1, 5))}, id="gemm"),
    ],
)
def test_other_layers(make, weights):
    """Groups of a transposed convolution, alpha and beta of a Gemm."""
    result = match(make(coarse(weights)), make(weights), method="mean-variance")
    value, goal = (next(iter(seen(m, ["y"]).values())) for m in (result.proto(), make(weights)))
    for mine, theirs in zip(moments(value), moments(goal), strict=True):
        np.testing.assert_allclose(mine, theirs, rtol=2e-5, atol=2e-5)


def test_a_shared_bias_is_split():
    """Each layer gets its own; the other one does not change with it."""
    nodes = [
        helper.make_node("Conv", ["x", "w1", "b1"], ["c1"], "conv1"),
        helper.make_node("Conv", ["c1", "w2", "b1"], ["y"], "conv2"),
    ]
    model, reference = (net(weights, nodes=[*map(copied, nodes)]) for weights in (coarse(), WEIGHTS))
    result = match(model, reference)
    assert result.residual < 1e-6
    first, second = (node.input[2] for node in result.proto().graph.node)
    assert first != second


def copied(node):
    result = onnx.NodeProto()
    result.CopyFrom(node)
    return result


def test_dead_channels_are_not_scaled():
    """A channel without weights gets its mean, and nothing is divided by nothing."""
    weights = coarse()
    weights["w2"] = weights["w2"] * (np.arange(8) != 2).reshape(-1, 1, 1, 1)
    result = match(net(weights), net(), method="mean-variance")
    assert result.layers[1].scale[2] == 1
    assert result.residual < 1e-6


def test_a_channel_that_is_dead_in_the_reference():
    """It shall not vary, and what the coarse weights make of it is no reason to: it is scaled down."""
    weights = WEIGHTS | {"w2": WEIGHTS["w2"] * (np.arange(8) != 2).reshape(-1, 1, 1, 1)}
    noise = coarse() | {"w2": coarse(weights)["w2"] + 0.05 * (np.arange(8) == 2).reshape(-1, 1, 1, 1)}
    result = match(net(noise), net(weights), method="mean-variance")
    assert result.layers[1].scale[2] == pytest.approx(1e-3)
    assert result.layers[1].after.var[2] < 1e-5 * result.layers[1].before.var[2]


def test_blocks_of_steps():
    """4-bit weights with a step for each block of inputs: the steps are scaled, the integers stay."""
    weight = RNG.normal(size=(6, 5))
    scale = np.abs(weight.reshape(2, 3, 5)).max(1) / 7
    integers = np.round(weight / np.repeat(scale, 3, 0)).astype(np.int8)
    four = helper.make_tensor("q", TensorProto.INT4, integers.shape, integers.reshape(-1))
    model = product({"s": scale.astype(np.float32), "b": DENSE["b"]}, copied(ADD), opset=21)
    model.graph.initializer.append(four)
    model.graph.node.insert(1, helper.make_node("DequantizeLinear", ["q", "s"], ["w"], axis=0, block_size=3))
    reference = product({"w": weight, "b": DENSE["b"]}, copied(ADD))
    result = match(model, reference, method="mean-variance")
    value, goal = (next(iter(seen(m, ["y"]).values())).reshape(-1, 5) for m in (result.proto(), reference))
    np.testing.assert_allclose(value.mean(0), goal.mean(0), atol=1e-5)
    np.testing.assert_allclose(value.std(0), goal.std(0), rtol=1e-5)


def test_half_precision():
    """Means as near as a bias in float16 can bring them."""
    model, reference = (halved(net(weights)) for weights in (coarse(), WEIGHTS))
    result = match(model, reference, data=DATA.astype(np.float16), method="mean-variance")
    assert {array.dtype for array in tensors(result.proto()).values()} == {np.dtype(np.float16)}
    assert max(layer.off_before for layer in result.layers) > 0.05
    assert result.residual < 8e-3  # means of 5, whose last place is 4e-3, at deviations of 0.8


def halved(model):
    for tensor in model.graph.initializer:
        tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor).astype(np.float16), tensor.name))
    for entry in (*model.graph.input, *model.graph.output):
        entry.type.tensor_type.elem_type = TensorProto.FLOAT16
    return model


def test_initializers_that_have_to_be_inputs():
    """Before IR version 4 they do: an added bias is one, too, and the model is still one that ONNX Runtime takes."""
    models = []
    for weights in (coarse(), WEIGHTS):
        nodes = [helper.make_node("Conv", ["x", "w1"], ["y"], "conv1")]
        model = net({"w1": weights["w1"]}, nodes=nodes, opset=8)
        model.ir_version = 3
        model.graph.input.append(helper.make_tensor_value_info("w1", TensorProto.FLOAT, [8, 3, 3, 3]))
        models.append(model)
    result = match(*models)
    made = result.proto()
    assert {tensor.name for tensor in made.graph.initializer} < {entry.name for entry in made.graph.input}
    value, goal = (next(iter(seen(m, ["y"]).values())).mean((0, 2, 3)) for m in (result.proto(), models[1]))
    np.testing.assert_allclose(value, goal, atol=1e-5)


@pytest.mark.parametrize("method", ["mean", "mean-variance"])
def test_a_second_time_changes_nothing(method):
    """What was matched is matched."""
    once = match(net(coarse()), net(), method=method).proto()
    twice = match(once, net(), method=method)
    assert max(layer.off_before for layer in twice.layers) < 1e-6
    for name, array in tensors(twice.proto()).items():
        np.testing.assert_allclose(array, tensors(once)[name], rtol=1e-5, atol=1e-6)


# --- how sure it is ------------------------------------------------------------------------------------------


def test_the_error_is_that_of_the_difference():
    """Both models see the same samples: what one adds to both is not in it. By numpy, from the difference of each."""
    layer = match(net(coarse()), net()).layers[0]
    apart = through(WEIGHTS)["conv1"] - through(coarse())["conv1"]
    error = apart.mean((2, 3)).std(0, ddof=1) / np.sqrt(len(DATA))
    std = through(WEIGHTS)["conv1"].std((0, 2, 3))
    assert layer.error == pytest.approx((error / std).max(), rel=1e-2)


def test_too_few_samples():
    """How many would do is told; of one sample nothing is known."""
    text = str(match(net(coarse(levels=2)), net(), data=DATA[:2]))
    assert "samples would bring that to 0.05" in text
    assert "standard errors" not in str(match(net(coarse()), net(), data=DATA[:1], only=["conv*"]))


# --- what is refused -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "message"),
    [
        pytest.param({"method": "sequential"}, "the method sequential is for BatchNormalizations", id="method"),
        pytest.param({"method": "median"}, "there is no method 'median'", id="no-method"),
        pytest.param({"prior": 4}, "prior is for BatchNormalizations", id="prior"),
        pytest.param({"only": ["nothing"]}, "no layer matches 'nothing'", id="only"),
        pytest.param({"keep": ["*"]}, "nothing to match: every layer is kept by its name", id="keep"),
    ],
)
def test_refused(options, message):
    """One line each."""
    with pytest.raises(CalibrationError, match=message):
        match(net(coarse()), net(), **options)


def test_methods_of_a_reference_need_one():
    """Without it there is nothing to match."""
    with pytest.raises(CalibrationError, match="the method mean is for layers that have a twin in a --reference"):
        calibrate(net(), DATA, method="mean", executor=Here())


def test_other_inputs():
    """Both are fed the same."""
    reference = net()
    reference.graph.input[0].name = reference.graph.node[0].input[0] = "image"
    with pytest.raises(CalibrationError, match=r"the reference is fed otherwise: its input 'image' takes float32"):
        match(net(coarse()), reference)


def of_batches(model, size):
    model.graph.input[0].type.tensor_type.shape.dim[0].dim_value = size
    return model


@pytest.mark.parametrize(("ours", "theirs"), [(None, 8), (8, None), (8, 8)])
def test_a_fixed_batch(ours, theirs):
    """If one of the two insists on a batch size, both are run in such batches, and the correction is the same."""
    model, reference = (
        net(w) if size is None else of_batches(net(w), size) for w, size in ((coarse(), ours), (WEIGHTS, theirs))
    )
    result = match(model, reference, batch_size=5)
    assert result.batch_size == 8
    for name, (_, shift) in oracle("mean").items():
        (layer,) = [layer for layer in result.layers if layer.name == name]
        np.testing.assert_allclose(layer.shift, shift, atol=3e-6)


def test_other_sizes():
    """Two that insist on different ones cannot be fed the same; that is told before anything runs."""
    with pytest.raises(
        CalibrationError, match=r"its input 'x' takes float32 \[4, 3, 6, 6\], of the model .* \[8, 3, 6, 6\]"
    ):
        match(of_batches(net(coarse()), 8), of_batches(net(), 4))


def broken(name="b2"):
    array = WEIGHTS[name].copy()
    array.flat[0] = np.nan
    return WEIGHTS | {name: array}


def test_what_is_not_finite():
    """Data is finite, so that NaN is made by one of the models: which of them, and where, is told."""
    with pytest.raises(
        CalibrationError, match="conv2: meets NaN or infinity, which the reference makes of the data, row 0"
    ):
        match(net(coarse()), net(broken()))
    with pytest.raises(
        CalibrationError, match="conv2: meets NaN or infinity, which the model makes of the data, row 0"
    ):
        match(net(broken()), net())


def test_training_mode():
    """What normalises each batch by itself has no statistics to be matched."""
    model = unfolded()
    model.graph.node[1].attribute.extend([helper.make_attribute("training_mode", 1)])
    with pytest.raises(CalibrationError, match="conv1_bn of the reference is in training mode: calibrate it first"):
        match(folded(), model)


def test_only_and_keep():
    """Others stay, and are counted."""
    result = match(net(coarse()), net(), only=["conv*"], keep=["conv1"])
    assert [layer.name for layer in result.layers] == ["conv2"]
    assert "2 layers left as they are, as asked" in str(result)


# --- the command ---------------------------------------------------------------------------------------------


@pytest.fixture
def command(tmp_path, monkeypatch):
    """Runs `bnfold calibrate` in a folder with q.onnx, f.onnx and x.npy."""
    monkeypatch.chdir(tmp_path)
    onnx.save(net(coarse()), "q.onnx")
    onnx.save(net(), "f.onnx")
    np.save("x.npy", DATA)

    def run(*args):
        return CliRunner().invoke(program, ["calibrate", "q.onnx", "--data", "x.npy", *args], prog_name="bnfold")

    return run


def test_the_command(command, tmp_path):
    """Tells of before and after, in text and JSON, and writes a new file."""
    result = command("--reference", "f.onnx", "-v")
    assert result.exit_code == 0, result.output
    assert "q.onnx: 3 layers matched to f.onnx on 40 samples (mean, batch size 32)" in result.stdout
    assert "means were off by up to" in result.stdout
    assert (tmp_path / "q.calibrated.onnx").exists()
    result = command("--reference", "f.onnx", "--method", "mean-variance", "-o", "o.onnx", "--format", "json")
    found = json.loads(result.stdout)
    assert (found["schema"], found["reference"], found["method"]) == (1, "f.onnx", "mean-variance")
    assert found["residual"] < 1e-6
    assert found["mean_off_before"] > 0.01
    assert [(layer["twin"], layer["by"]) for layer in found["layers"]] == [(name, "name") for name in LAYERS]


@pytest.mark.parametrize(
    ("args", "message"),
    [
        pytest.param(["--reference", "x.npy"], "x.npy", id="no-model"),
        pytest.param(["--reference", "f.onnx", "-o", "f.onnx"], "f.onnx: is the reference", id="over-the-reference"),
        pytest.param(["--reference", "f.onnx", "--in-place"], "the result is a new file", id="in-place"),
        pytest.param(["--reference", "relu.onnx"], "nothing to match", id="nothing"),
        pytest.param(["--method", "mean-variance"], "is for layers that have a twin in a --reference", id="method"),
    ],
)
def test_bad_usage(args, message, command, tmp_path):
    """Exit 2, one line, nothing written."""
    onnx.save(net({}, nodes=[helper.make_node("Relu", ["x"], ["y"])]), "relu.onnx")
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}
    result = command(*args)
    assert result.exit_code == 2
    assert message in result.stderr
    assert len(result.stderr.strip().splitlines()) == 1
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == before
