"""Gemms between integers, as quantizers may write them: what cannot be corrected rightly is left, and named."""

from types import SimpleNamespace

import numpy as np
import onnx
import pytest
from calibration.helpers import Here
from onnx import TensorProto, helper, numpy_helper

from bnfold.calibration import CalibrationError, calibrate
from bnfold.calibration.matching import _refuse_worse

RNG = np.random.default_rng(3)
WEIGHT = RNG.normal(0, 1, (4, 3)).astype(np.float32)
BIAS = RNG.normal(0, 1, 3).astype(np.float32)
DATA = RNG.normal(1, 1, (64, 4)).astype(np.float32)
W_SCALE = np.float32(np.abs(WEIGHT).max() / 3)


def model(nodes, **tensors):
    graph = helper.make_graph(
        [*nodes, helper.make_node("Relu", ["c"], ["y"])],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 4])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(np.asarray(array), name) for name, array in tensors.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def gemm(*inputs, **attributes):
    return helper.make_node("Gemm", ["x", *inputs], ["c"], "layer", **attributes)


def quantized(*bias, **attributes):
    """The Gemm behind a DequantizeLinear of its input, one of its weights, and one of a bias if a step is given."""
    links = [("QuantizeLinear", ["x", "xs", "xz"], "xq"), ("DequantizeLinear", ["xq", "xs", "xz"], "xd")]
    links += [("DequantizeLinear", ["wq", "ws"], "wd")]
    tensors = {
        "xs": np.float32(0.05),
        "xz": np.uint8(128),
        "wq": np.rint(WEIGHT / W_SCALE).astype(np.int8),
        "ws": W_SCALE,
    }
    if bias:
        links += [("DequantizeLinear", ["bq", "bs"], "bd")]
        tensors |= {"bq": np.rint(BIAS / bias[0]).astype(np.int32), "bs": np.float32(bias[0])}
    nodes = [helper.make_node(op_type, given, [made]) for op_type, given, made in links]
    node = helper.make_node("Gemm", ["xd", "wd", *(["bd"] if bias else [])], ["c"], "layer", **attributes)
    return model([*nodes, node], **tensors)


@pytest.mark.parametrize(
    ("ours", "theirs", "why"),
    [
        pytest.param(
            quantized(beta=-0.5), model([gemm("w", beta=-0.5)], w=WEIGHT), "is a Gemm with a beta of -0.5", id="beta"
        ),
        pytest.param(
            quantized(1e-4), model([gemm("w", "b")], w=WEIGHT, b=BIAS), "step is not scale_x", id="step-of-its-own"
        ),
        pytest.param(
            model([gemm("w", "b", beta=0.0)], w=WEIGHT, b=BIAS),
            model([gemm("w", "b", beta=0.0)], w=WEIGHT, b=BIAS),
            "bias that is not one number",
            id="beta-of-nothing",
        ),
    ],
)
def test_left(ours, theirs, why):
    """There was but one layer, so nothing is left to match."""
    with pytest.raises(CalibrationError, match=f"nothing to match: layer .*{why}"):
        calibrate(ours, DATA, reference=theirs, executor=Here())


def test_the_step_of_the_kernel():
    """scale_x * scale_w: as quantizers write it, the bias is corrected."""
    theirs = model([gemm("w", "b")], w=WEIGHT, b=BIAS)
    found = calibrate(quantized(float(np.float32(0.05) * W_SCALE)), DATA, reference=theirs, executor=Here())
    (layer,) = found.layers
    assert layer.off < 0.05 < layer.off_before


def test_an_add_that_raises_the_rank():
    """Behind it the channels stand on another axis: the layer is corrected before it, by its own bias."""

    def behind(weight):
        add = helper.make_node("Add", ["g", "a"], ["c"])
        node = helper.make_node("Gemm", ["x", "w", "b"], ["g"], "layer")
        return model([node, add], w=weight, b=BIAS, a=BIAS.reshape(1, 1, 3))

    ours = behind(WEIGHT + np.float32(0.1))
    found = calibrate(ours, DATA, reference=behind(WEIGHT), batch_size=3, executor=Here())
    (layer,) = found.layers
    assert layer.off < 1e-5 < layer.off_before
    shift = onnx.numpy_helper.to_array(found.proto().graph.initializer[1]) - BIAS
    assert np.allclose(shift, -0.1 * DATA.astype(np.float64).sum(1).mean(), atol=1e-5)


def met(off, before):
    """As much of a layer as is asked."""
    return SimpleNamespace(name="layer", off=off, off_before=before, after=SimpleNamespace(count=1))


@pytest.mark.parametrize("off", [0.6, None], ids=["farther", "infinite"])
def test_what_has_become_worse_is_refused(off):
    """Whatever the reason; what cannot be told is infinite."""
    with pytest.raises(CalibrationError, match=r"layer: its means would be off by (0\.6|\?).* by 0\.3.*--keep"):
        _refuse_worse([met(off, 0.3)])


@pytest.mark.parametrize(("off", "before"), [(0.2, 0.1), (0.6, 0.7), (0.6, None)])
def test_what_is_no_worse(off, before):
    """Little, less than before, or where before there was no telling."""
    _refuse_worse([met(off, before)])
