"""What ONNX Runtime's dynamic and 4-bit quantizers make of layers is matched, too: through an Add behind them."""

import numpy as np
import onnx
import pytest
from calibration.helpers import Here, session
from helpers import model_of
from onnx import TensorProto, helper, numpy_helper
from onnxruntime.quantization import QuantType, quantize_dynamic

from bnfold.calibration import CalibrationError, calibrate
from bnfold.calibration.reference.integers import packing, unpacked
from bnfold.calibration.reference.layers import layers
from bnfold.graph import Graph
from bnfold.model_io import load

RNG = np.random.default_rng(7)
DATA = RNG.normal(0.3, 1, (40, 3, 6, 6)).astype(np.float32)
WEIGHTS = {
    "w1": RNG.normal(0, 0.4, (8, 3, 3, 3)), "b1": RNG.normal(0, 0.3, 8),
    "w2": RNG.normal(0, 0.5, (8, 20)), "b2": RNG.normal(0, 0.3, 20), "w3": RNG.normal(0, 0.5, (20, 5)),
}  # fmt: skip


def net(weights=WEIGHTS):
    """Conv, pool, MatMul and Add, MatMul without."""
    nodes = [
        helper.make_node("Conv", ["x", "w1", "b1"], ["c"], "conv"),
        helper.make_node("Relu", ["c"], ["r"]),
        helper.make_node("GlobalAveragePool", ["r"], ["p"]),
        helper.make_node("Flatten", ["p"], ["f"]),
        helper.make_node("MatMul", ["f", "w2"], ["m"], "first"),
        helper.make_node("Add", ["m", "b2"], ["a"], "bias"),
        helper.make_node("Relu", ["a"], ["h"]),
        helper.make_node("MatMul", ["h", "w3"], ["y"], "second"),
    ]
    graph = helper.make_graph(
        nodes, "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 3, 6, 6])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", 5])],
        [numpy_helper.from_array(array.astype(np.float32), name) for name, array in weights.items()],
    )  # fmt: skip
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=10)


@pytest.fixture(scope="module", params=["tensor", "channel"])
def dynamic(request, tmp_path_factory):
    """The net with ConvInteger and MatMulInteger, of coarse weights."""
    folder = tmp_path_factory.mktemp("dynamic")
    coarse = {name: np.round(3 * array) / 3 if name[0] == "w" else array for name, array in WEIGHTS.items()}
    onnx.save(net(coarse), folder / "f.onnx")
    quantize_dynamic(
        folder / "f.onnx", folder / "q.onnx", per_channel=request.param == "channel", weight_type=QuantType.QInt8,
        op_types_to_quantize=["Conv", "MatMul"],
    )  # fmt: skip
    return onnx.load(folder / "q.onnx")


def packed(bits=4, block=16, *, symmetric=False):
    quantization = pytest.importorskip("onnxruntime.quantization.matmul_nbits_quantizer", exc_type=ImportError)
    quantizer = quantization.MatMulNBitsQuantizer(net(), bits=bits, block_size=block, is_symmetric=symmetric)
    quantizer.process()
    return quantizer.model.model


def mean_of(model):
    return session(model).run(["y"], {"x": DATA})[0].mean(0)


def counts(model):
    return [node.op_type for node in model.graph.node].count


def test_dynamic_quantization(dynamic):
    """Means are the twin's; a new Add stands where there was none, and integers are as they were."""
    result = calibrate(dynamic, DATA, reference=net(), batch_size=40, executor=Here())
    assert [(layer.name, layer.twin) for layer in result.layers] == [
        ("conv_quant", "conv"), ("first_quant", "first"), ("second_quant", "second"),
    ]  # fmt: skip
    assert max(layer.off_before for layer in result.layers) > 0.1
    assert result.residual < 1e-5
    made = result.proto()
    onnx.checker.check_model(made)
    np.testing.assert_allclose(mean_of(made), mean_of(net()), atol=1e-4)
    assert counts(made)("Add") == counts(dynamic)("Add") + 1
    before, after = ({t.name: numpy_helper.to_array(t) for t in m.graph.initializer} for m in (dynamic, made))
    integers = [name for name, array in before.items() if array.dtype == np.int8 and array.ndim > 1]
    assert len(integers) == 3
    assert all(np.array_equal(before[name], after[name]) for name in integers)


def test_dynamic_quantization_has_no_scale(dynamic):
    """It is computed of each input, so that a deviation stays, which is said."""
    result = calibrate(dynamic, DATA, reference=net(), method="mean-variance", executor=Here())
    (told,) = (warning for warning in result.warnings if "only the means are matched" in warning)
    assert told.startswith("of conv_quant, first_quant, second_quant only")
    assert told.endswith("are matched: its weights are scaled by what is computed of each input")
    assert result.residual < 1e-5


@pytest.mark.parametrize("bits", [4, 8])
@pytest.mark.parametrize("symmetric", [False, True])
def test_packed_weights(bits, symmetric):
    """Means and deviations are the twin's, whose weights are packed by 4 and 8 bits, with a zero point or without."""
    result = calibrate(
        packed(bits, symmetric=symmetric), DATA, reference=net(), method="mean-variance", executor=Here()
    )
    assert [layer.twin for layer in result.layers] == ["conv", "first", "second"]
    assert result.residual < 1e-5
    assert max(layer.spread for layer in result.layers) < 1e-5
    np.testing.assert_allclose(mean_of(result.proto()), mean_of(net()), atol=1e-5)


@pytest.mark.parametrize("bits", [2, 4, 8])
@pytest.mark.parametrize("symmetric", [False, True])
@pytest.mark.parametrize("block", [16, 32])
def test_unpacked(bits, symmetric, block):
    """What they are as numbers is what ONNX Runtime makes of unit vectors; rows do not fill their last block."""
    graph = Graph(load(packed(bits, block, symmetric=symmetric)))
    op = next(op for op in graph.ops() if op.type.endswith("MatMulNBits") and op.attribute("K") == 20)
    model = packed(bits, block, symmetric=symmetric)
    (node,) = [node for node in model.graph.node if node.output[0] == "y"]
    for other in list(model.graph.node):
        if other is not node and other.output[0] != "y":
            model.graph.node.remove(other)
    model.graph.input[0].CopyFrom(helper.make_tensor_value_info(node.input[0], TensorProto.FLOAT, [20, 20]))
    (weights,) = session(model).run(["y"], {node.input[0]: np.eye(20, dtype=np.float32)})
    np.testing.assert_allclose(unpacked(op, packing(op)), weights, atol=1e-5)


def test_what_is_not_scaled_is_left(dynamic):
    """Integers that something else reads are no layer that a correction could be put behind."""
    model = onnx.ModelProto()
    model.CopyFrom(dynamic)
    (product,) = [node for node in model.graph.node if node.op_type == "ConvInteger"]
    model.graph.output.append(helper.make_tensor_value_info(product.output[0], TensorProto.INT32, None))
    result = calibrate(model, DATA, reference=net(), executor=Here())
    assert [layer.twin for layer in result.layers] == ["first", "second"]
    assert "conv_quant gives integers that are not cast and scaled as ONNX Runtime's quantizer does it" in str(result)


def cast_to_half(model):
    for node in model.graph.node:
        if node.op_type == "Cast":
            node.attribute[0].i = TensorProto.FLOAT16


def three_factors(model):
    for node in model.graph.node:
        if node.op_type == "Mul":
            node.input.append(node.input[1])


def scaled_by_three(model):
    for tensor in model.graph.initializer:
        if tensor.name.endswith("_scale"):
            tensor.CopyFrom(numpy_helper.from_array(np.ones(3, np.float32), tensor.name))


def scaled_by_constants(model):
    model.graph.initializer.append(numpy_helper.from_array(np.float32(0.1), "step"))
    for node in model.graph.node:
        if node.op_type == "Mul" and any(name.endswith("_scale") for name in node.input[1:]):
            node.input[0] = "step"


@pytest.mark.parametrize("change", [cast_to_half, three_factors, scaled_by_three, scaled_by_constants])
def test_what_is_scaled_otherwise_is_left(change, dynamic):
    """An Add of float32 behind a Mul of float16, for one, would be no model."""
    model = onnx.ModelProto()
    model.CopyFrom(dynamic)
    change(model)
    with pytest.raises(CalibrationError, match=r"nothing to match: .* not cast and scaled as ONNX Runtime's quantizer"):
        calibrate(model, DATA, reference=net(), check=False, executor=Here())


def test_a_packing_that_is_not_known():
    """An order of rows, for one, is left, with the reason."""
    model = packed()
    for node in model.graph.node:
        if node.op_type == "MatMulNBits":
            node.input.extend([""] * (4 - len(node.input)) + ["order"])
    model.graph.initializer.append(numpy_helper.from_array(np.zeros(32, np.int32), "order"))
    with pytest.raises(
        CalibrationError, match="packed or ordered in another way than ONNX Runtime's quantizer does it"
    ):
        calibrate(model, DATA, reference=net(), only=["*_Q4"], executor=Here())


def of_bytes(count, kind=np.uint8, steps=2, zeros=None, more=(), **attributes):
    """A MatMulNBits whose weights are so many bytes."""
    names = ["x", "b", "s", "" if zeros is None else "z", *more]
    node = helper.make_node("MatMulNBits", names, ["y"], "l", domain="com.microsoft", **attributes)
    arrays = {"b": np.zeros(count, kind), "s": np.ones(steps, np.float32), "z": zeros, "bias": np.ones(2, np.float32)}
    graph = helper.make_graph(
        [node], "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", "K"])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(array, name) for name, array in arrays.items() if array is not None],
    )  # fmt: skip
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("com.microsoft", 1)]
    return Graph(load(helper.make_model(graph, opset_imports=opsets, ir_version=10)))


GOOD = {"count": 32, "K": 20, "N": 2, "block_size": 32, "bits": 4}


def packing_of(**changes):
    (op,) = of_bytes(**(GOOD | changes)).ops()
    return packing(op)


@pytest.mark.parametrize("zeros", [None, np.ones(2, np.uint8), np.ones(2, np.float32)])
def test_sizes_that_fit(zeros):
    """A byte holds two zero points, but those of a row begin with one."""
    assert packing_of(zeros=zeros) is not None


@pytest.mark.parametrize(
    "changes",
    [
        pytest.param({"K": 10**9}, id="K"),
        pytest.param({"N": 7}, id="N"),
        pytest.param({"block_size": 0}, id="no-block"),
        pytest.param({"bits": 5}, id="bits"),
        pytest.param({"bits": "four"}, id="text"),
        pytest.param({"K": -20, "N": -2}, id="negative"),
        pytest.param({"count": 1, "K": 1, "block_size": 1}, id="half-a-byte"),
        pytest.param({"kind": np.int8}, id="signed"),
        pytest.param({"steps": 3}, id="steps"),
        pytest.param({"zeros": np.ones(3, np.uint8)}, id="packed-zeros"),
        pytest.param({"zeros": np.ones(1, np.float32)}, id="zeros"),
        pytest.param({"zeros": np.ones(1, np.uint8), "block_size": 16}, id="zeros-of-two-rows"),
    ],
)
def test_sizes_that_do_not_fit(changes):
    """A model that says other sizes of packed weights than they have is no error of ours."""
    assert packing_of(**changes) is None


def test_packed_weights_with_a_bias():
    """Of their own: a correction would go past it, and what it adds is not known."""
    _, ((_, why),) = layers(of_bytes(**GOOD, more=["", "bias"]))
    assert "packed or ordered in another way" in why


def test_zero_points_that_are_numbers():
    """They are in units of the steps, as integers are."""
    graph = of_bytes(**GOOD, zeros=np.array([1.5, -2.0], np.float32))
    ((layer,), _) = layers(graph)
    np.testing.assert_array_equal(layer.weights(0), np.repeat([[-1.5], [2.0]], 20, 1))


@pytest.mark.parametrize(
    "text",
    [
        pytest.param("y = QLinearConv (q, xs, xz, w, s, z, ys, xz)", id="QLinearConv"),
        pytest.param("i = ConvInteger (q, w, xz, z) f = Cast <to = 1> (i) t = Mul (d, s) y = Mul (f, t)", id="Integer"),
    ],
)
def test_weights_with_a_zero_point(text):
    """(W - zero) * scale, whichever input says so."""
    model = model_of(f"""<ir_version: 10, opset_import: ["": 17]> g (uint8[1, 1, 4, 4] q, float d) => (y)
        <float xs = {{0.5}}, uint8 xz = {{3}}, float s = {{0.25}}, uint8 z = {{7}}, float ys = {{1.0}}> {{ {text} }}""")
    model.graph.initializer.append(numpy_helper.from_array(np.array([5, 9], np.uint8).reshape(2, 1, 1, 1), "w"))
    ((layer,), _) = layers(Graph(load(model)))
    np.testing.assert_array_equal(layer.weights(0), [[-0.5], [0.5]])
