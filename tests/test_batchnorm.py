"""BatchNormalization nodes of every opset, read as an affine."""

from fractions import Fraction

import numpy as np
import onnx
import pytest
from helpers import model_of

from bnfold import batchnorm
from bnfold.graph import Graph
from bnfold.model_io import load
from bnfold.reasons import Reason, Refused

C = 3


def node(attributes: str = "", opset: int = 17, outputs: str = "y", words: str = "", **parameters: list[float]):
    """A BatchNormalization in a model of its own; parameters by name replace random ones."""
    model = model_of(f"""
        <ir_version: 8, opset_import: ["": {opset}]>
        g (float[2, {C}, 4] x) => (float[2, {C}, 4] y) {{
            {outputs} = BatchNormalization {attributes} (x, {{bn: {C}{words}}})
        }}
    """)
    for tensor in model.graph.initializer:
        part = tensor.name.removeprefix("bn_")
        if part in parameters:
            array = np.asarray(parameters[part], np.float32)
            tensor.CopyFrom(onnx.numpy_helper.from_array(array, tensor.name))
    return next(Graph(load(model)).ops())


def refusal(op) -> Reason:
    with pytest.raises(Refused) as refused:
        batchnorm.read(op).affine(3)
    return refused.value.reason


def test_the_affine_is_the_formula():
    """Along axis 1: scale = gamma / sqrt(var + epsilon), shift = beta - mean * scale."""
    parameters = {"scale": [2, -1, 0], "bias": [1, 2, 3], "mean": [0.5, 0, -4], "var": [3.75, 0.75, 8.75]}
    affine = batchnorm.read(node("<epsilon = 0.25>", **parameters)).affine(3)
    np.testing.assert_allclose(affine.scale, np.array([1, -1, 0]).reshape(1, 3, 1))
    np.testing.assert_allclose(affine.shift, np.array([0.5, 2, 3]).reshape(1, 3, 1))


@pytest.mark.parametrize("opset", [1, 6, 7, 9, 14, 15])
def test_epsilon_is_a_float32(opset):
    """A missing epsilon is float32(1e-5), not the double; a given one is what the attribute holds."""
    assert batchnorm.epsilon(node(opset=opset)) == float(np.float32(1e-5))
    assert batchnorm.epsilon(node(opset=opset)) != 1e-5
    assert batchnorm.epsilon(node("<epsilon = 0.001>", opset=opset)) == float(np.float32(0.001))
    assert batchnorm.epsilon(node("<epsilon = 0.0>", opset=opset)) == 0


def test_parameters_start_from_their_exact_values():
    """Composed in float64 from float32 parameters: 1e-15 from the exact value."""
    norm = batchnorm.read(node())
    affine = norm.affine(3)
    for channel in range(C):
        variance = Fraction(float(norm.var[channel])) + Fraction(norm.epsilon)
        root = Fraction(float(affine.scale[0, channel, 0]))
        assert abs(root * root * variance / Fraction(float(norm.gamma[channel])) ** 2 - 1) < 1e-15


@pytest.mark.parametrize(
    ("opset", "attributes", "outputs", "training"),
    [
        (1, "", "y", True),
        (1, "<is_test = 0>", "y", True),
        (1, "<is_test = 1>", "y", False),
        (6, "", "y", True),
        (6, "<is_test = 1>", "y", False),
        (6, "<is_test = 1>", "y, m, v, sm, sv", False),
        (7, "", "y", False),
        (7, "", "y, m, v, sm, sv", True),
        (9, "", "y", False),
        (9, "", "y, m", True),
        (13, "", "y, m, v, sm, sv", True),
        (14, "", "y", False),
        (14, "<training_mode = 0>", "y", False),
        (14, "<training_mode = 1>", "y", True),
        (15, "<training_mode = 1>", "y, m, v", True),
        (15, "<training_mode = 0>", "y", False),
        (7, "<training_mode = 1>", "y", False),  # not an attribute of that opset
        (15, "<is_test = 0>", "y", False),  # nor is this
    ],
)
def test_training_mode_is_told_in_three_ways(opset, attributes, outputs, training):
    """Before opset 7 `is_test`, then the number of outputs, from opset 14 on `training_mode`."""
    op = node(attributes, opset, outputs)
    assert batchnorm.is_training(op) is training
    if training:
        assert refusal(op) is Reason.TRAINING_MODE


@pytest.mark.parametrize(
    ("parameters", "reason"),
    [
        pytest.param({"scale": [1, np.nan, 1]}, Reason.NOT_FINITE, id="gamma-nan"),
        pytest.param({"bias": [1, np.inf, 1]}, Reason.NOT_FINITE, id="beta-inf"),
        pytest.param({"mean": [-np.inf, 1, 1]}, Reason.NOT_FINITE, id="mean-inf"),
        pytest.param({"var": [1, 1, np.nan]}, Reason.NOT_FINITE, id="var-nan"),
        pytest.param({"var": [1, 1, np.inf]}, Reason.NOT_FINITE, id="var-inf"),
        pytest.param({"var": [1, -1, 1]}, Reason.VARIANCE_NOT_POSITIVE, id="var-negative"),
        pytest.param({"var": [1, -float(np.float32(1e-5)), 1]}, Reason.VARIANCE_NOT_POSITIVE, id="var-minus-epsilon"),
        pytest.param({"scale": [1, 1]}, Reason.WRONG_SIZE, id="gamma-short"),
        pytest.param({"var": [1, 1, 1, 1]}, Reason.WRONG_SIZE, id="var-long"),
        pytest.param({"mean": [1]}, Reason.WRONG_SIZE, id="mean-one"),
        pytest.param({"bias": [[1, 1, 1]]}, Reason.WRONG_SIZE, id="beta-rank-2"),
        pytest.param({"bias": 1}, Reason.WRONG_SIZE, id="beta-rank-0"),
    ],
)
def test_parameters_are_refused(parameters, reason):
    """Each breaks one precondition of parameters that are read without complaint."""
    batchnorm.read(node()).affine(3)
    assert refusal(node(**parameters)) is reason


def test_variance_is_refused_with_its_count():
    """The refusal says in how many channels."""
    with pytest.raises(Refused) as refused:
        batchnorm.read(node(var=[-1, 1, -2])).affine(3)
    assert refused.value.facts == {"count": 2, "channels": 3}


@pytest.mark.parametrize("opset", [1, 6, 7])
def test_spatial_zero_is_refused(opset):
    """`spatial = 0` normalises each position by itself, where each has parameters."""
    test = "is_test = 1, " if opset < 7 else ""
    each = dict.fromkeys(("scale", "bias", "mean", "var"), np.ones((3, 2)).tolist())
    assert refusal(node(f"<{test}spatial = 0>", opset, **each)) is Reason.SPATIAL_ZERO
    batchnorm.read(node(f"<{test}spatial = 0>", opset))


def test_a_node_of_another_domain_is_none():
    """Only ONNX's own BatchNormalization is one."""
    model = model_of(f"""
        <ir_version: 8, opset_import: ["": 17, "my": 1]>
        g (float[2, {C}] x) => (float[2, {C}] y) {{ y = my.BatchNormalization (x, {{bn: {C}}}) }}
    """)
    assert not batchnorm.is_batchnorm(next(Graph(load(model)).ops()))
