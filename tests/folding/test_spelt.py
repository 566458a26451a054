"""Which Mul and Add count as a BatchNormalization. Each case that does not breaks one condition of one that does."""

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from bnfold.folding.spelt import spelt_out
from bnfold.graph import Graph
from bnfold.model_io import load

C = 4


def found(body, outputs="float[2, 4, 5, 5] y"):
    """The outputs of the nodes that count, by the group that they are in."""
    model = onnx.parser.parse_model(
        f'<ir_version: 8, opset_import: ["": 18]> net (float[2, {C}, 5, 5] x) => ({outputs}) {{ {body} }}'
    )
    shapes = {"a": (C, 1, 1), "b": (1, C, 1, 1), "last": (5,), "one": (1,), "w": (C, C, 1, 1), "vector": (C,)}
    for name, shape in shapes.items():
        values = np.arange(1, 1 + np.prod(shape), dtype=np.float32).reshape(shape)
        model.graph.initializer.append(numpy_helper.from_array(values, name))
    groups = {}
    for op, first in spelt_out(Graph(load(model))).items():
        groups.setdefault(first, []).append(op.output.name)
    return groups


@pytest.mark.parametrize(
    ("body", "groups"),
    [
        pytest.param("m = Mul(x, a) y = Add(m, a)", {"m": ["m", "y"]}, id="plain"),
        pytest.param("m = Mul(a, x) y = Add(b, m)", {"m": ["m", "y"]}, id="other-order"),
        pytest.param("m = Div(x, a) y = Sub(m, b)", {"m": ["m", "y"]}, id="div-sub"),
        pytest.param("s = Sub(x, a) d = Div(s, a) m = Mul(d, a) y = Add(m, a)", {"s": ["s", "d", "m", "y"]}, id="all"),
        pytest.param("r = Relu(x) m = Mul(r, a) s = Add(m, a) y = Relu(s)", {"m": ["m", "s"]}, id="behind-another"),
        pytest.param(
            "m = Mul(x, a) s = Add(m, a) r = Relu(s) n = Mul(r, a) y = Add(n, a)",
            {"m": ["m", "s"], "n": ["n", "y"]},
            id="two",
        ),
    ],
)
def test_what_counts(body, groups):
    """The nodes, in order, under the first of them."""
    assert found(body) == groups


@pytest.mark.parametrize(
    "body",
    [
        pytest.param("m = Mul(x, a) y = Relu(m)", id="no-shift"),
        pytest.param("s = Add(x, a) y = Relu(s)", id="no-scale"),
        pytest.param("s = Add(x, a) y = Mul(s, a)", id="bias-and-layer-scale"),
        pytest.param("m = Mul(x, one) y = Add(m, a)", id="scale-is-a-number"),
        pytest.param("m = Mul(x, a) y = Add(m, one)", id="shift-is-a-number"),
        pytest.param("m = Mul(x, a) y = Add(m, last)", id="other-axis"),
        pytest.param("m = Mul(x, w) y = Add(m, w)", id="two-axes"),
        pytest.param("m = Mul(x, a) s = Add(m, a) y = Mul(s, m)", id="read-twice"),
        pytest.param("m = Div(a, x) y = Add(m, a)", id="divides-by-it"),
        pytest.param("r = Relu(x) m = Mul(x, r) y = Add(m, a)", id="scale-is-computed"),
        pytest.param("n = InstanceNormalization(x, vector, vector) m = Mul(n, a) y = Add(m, a)", id="instance"),
        pytest.param(
            "n = BatchNormalization(x, vector, vector, vector, vector) m = Mul(n, a) y = Add(m, a)", id="caffe-scale"
        ),
        pytest.param("r = Sqrt(x) n = Div(x, r) m = Mul(n, a) y = Add(m, a)", id="spelt-normalization"),
        pytest.param("r = Reciprocal(x) n = Mul(x, r) m = Mul(n, a) y = Add(m, a)", id="by-reciprocal"),
    ],
)
def test_what_does_not(body):
    """It is an affine, or belongs to something else."""
    assert found(body) == {}


def test_an_output_between_them():
    """Is a value that somebody asked for: the two are no whole."""
    assert found("m = Mul(x, a) y = Add(m, a)", "float[2, 4, 5, 5] y, float[2, 4, 5, 5] m") == {}
