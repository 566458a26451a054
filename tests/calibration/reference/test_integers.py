"""What ONNX Runtime's dynamic and 4-bit quantizers make of layers is matched, too: through an Add behind them."""

import numpy as np
import onnx
import pytest
from calibration.helpers import Here, session
from onnx import TensorProto, helper, numpy_helper
from onnxruntime.quantization import QuantType, quantize_dynamic

from bnfold.calibration import CalibrationError, calibrate
from bnfold.calibration.reference.integers import packing, unpacked
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
    assert "of first_quant only the means are matched: its weights are scaled by what is computed" in str(result)
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


@pytest.mark.parametrize("change", [cast_to_half, three_factors])
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


def of_bytes(count, **attributes):
    """A MatMulNBits whose weights are so many bytes."""
    node = helper.make_node("MatMulNBits", ["x", "b", "s"], ["y"], domain="com.microsoft", **attributes)
    arrays = {"b": np.zeros(count, np.uint8), "s": np.ones(2, np.float32)}
    graph = helper.make_graph(
        [node], "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", "K"])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(array, name) for name, array in arrays.items()],
    )  # fmt: skip
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("com.microsoft", 1)]
    (op,) = Graph(load(helper.make_model(graph, opset_imports=opsets, ir_version=10))).ops()
    return op


GOOD = {"K": 20, "N": 2, "block_size": 32, "bits": 4}


@pytest.mark.parametrize(
    ("count", "other"),
    [
        pytest.param(32, {"K": 10**9}, id="K"),
        pytest.param(32, {"N": 7}, id="N"),
        pytest.param(32, {"block_size": 0}, id="no-block"),
        pytest.param(32, {"bits": 5}, id="bits"),
        pytest.param(32, {"bits": "four"}, id="text"),
        pytest.param(32, {"K": -20, "N": -2}, id="negative"),
        pytest.param(1, {"K": 1, "block_size": 1}, id="half-a-byte"),
    ],
)
def test_sizes_that_do_not_fit(count, other):
    """A model that says other sizes of packed weights than they have is no error of ours."""
    assert packing(of_bytes(32, **GOOD)) is not None
    assert packing(of_bytes(count, **(GOOD | other))) is None
