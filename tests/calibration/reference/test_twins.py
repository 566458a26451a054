"""Which layer is which, asked directly."""

import numpy as np
import pytest
from helpers import model_of
from onnx import numpy_helper

from bnfold.calibration.reference.layers import layers
from bnfold.calibration.reference.twins import pairs
from bnfold.calibration.reference.write import why_not_scaled
from bnfold.graph import Graph
from bnfold.model_io import load

WEIGHT = np.random.default_rng(0).normal(size=(4, 3, 3, 3)).astype(np.float32)


def found(text, **weights):
    text = f'<ir_version: 8, opset_import: ["": 17]> g (float[1, 3, 8, 8] x) => (float[N, C, H, W] y) {{ {text} }}'
    model = model_of(text)
    model.graph.initializer.extend(numpy_helper.from_array(array, name) for name, array in weights.items())
    return layers(Graph(load(model)))[0]


def test_a_twin_is_one_layers():
    """Of two with its names neither has it."""
    ours = found("[one] c = Conv (x, v) [two] d = Conv (x, w) y = Add (c, d)", v=WEIGHT, w=WEIGHT * np.float32(1.01))
    theirs = found("[one] e = Conv (x, w) y = Relu (e)", w=WEIGHT)
    good, left = pairs(ours, theirs)
    assert good == []
    assert {why for _, why in left} == {"and another layer both have the names of one"}


def test_other_kernels_do_not_line_up():
    """By order alone nothing is paired whose weights are of other shapes."""
    ours = found("c = Conv (x, a) y = Relu (c)", a=WEIGHT)
    theirs = found("d = Conv (x, b) y = Relu (d)", b=np.ones((4, 3, 5, 5), np.float32))
    good, ((_, why),) = pairs(ours, theirs)
    assert good == []
    assert why == "has no layer in the reference that is named like it"


def test_a_scale_does_not_go_past_a_bias():
    """It would have to scale the bias before the Add, too."""
    bias = np.ones(4, np.float32)
    (layer,) = found("c = Conv (x, w, b) y = Add (c, k)", w=WEIGHT, b=bias, k=bias.reshape(1, 4, 1, 1))
    assert why_not_scaled(layer, 1) == "constants stand between its weights and its bias"
    assert why_not_scaled(layer, 0) == ""


def test_a_layer_in_a_body_is_left():
    """It may run any number of times."""
    text = """<ir_version: 8, opset_import: ["": 17]> g (float[1, 3, 8, 8] x, bool k) => (float[1, 4, 8, 8] y) {
        y = If (k) <then_branch = a () => (float[1, 4, 8, 8] t) { t = Conv (x, {w: 4, 3, 1, 1}) },
                    else_branch = b () => (float[1, 4, 8, 8] e) { e = Conv (x, {w: 4, 3, 1, 1}) }> }"""
    good, unfit = layers(Graph(load(model_of(text))))
    assert good == []
    assert all("in the body of an If" in why for _, why in unfit)


@pytest.mark.parametrize(("axis", "why"), [(0, ""), (1, "its steps come in blocks of channels")])
def test_a_scale_and_blocks_of_steps(axis, why):
    """One step for several channels cannot be scaled for one of them; blocks of inputs can."""
    shape = (4, 2) if axis else (2, 4)
    text = f"""<ir_version: 10, opset_import: ["": 21]> g (float[1, 4] x) => (float[1, 4] y) {{
        w = DequantizeLinear <axis = {axis}, block_size = 2> (q, s) y = MatMul (x, w) }}"""
    model = model_of(text)
    arrays = {"q": np.ones((4, 4), np.int8), "s": np.ones(shape, np.float32)}
    model.graph.initializer.extend(numpy_helper.from_array(array, name) for name, array in arrays.items())
    ((layer,), _) = layers(Graph(load(model)))
    assert why_not_scaled(layer, 0) == why
