"""What a model is made of."""

import numpy as np
import onnx
import pytest
from networks import MODELS
from onnx import numpy_helper

from bnfold.optimization.inventory import Change, Inventory
from bnfold.optimization.macs import macs
from bnfold.optimization.summary import summary, unit_of


def model(text: str, **shapes: tuple[int, ...]) -> onnx.ModelProto:
    """The model of a text, with weights of these shapes."""
    made = onnx.parser.parse_model(f'<ir_version: 8, opset_import: ["": 17]> {text}')
    arrays = {name: np.ones(shape, np.float32) for name, shape in shapes.items()}
    made.graph.initializer.extend(numpy_helper.from_array(array, name) for name, array in arrays.items())
    return made


@pytest.mark.parametrize(
    ("text", "shapes", "count"),
    [
        pytest.param(
            "net (float[2, 4, 8, 8] x) => (float[2, 6, 6, 6] y) { y = Conv <group = 2> (x, w) }",
            {"w": (6, 2, 3, 3)},
            2 * 6 * 6 * 6 * 2 * 3 * 3,
            id="grouped-conv",
        ),
        pytest.param(
            "net (float[1, 4, 5, 5] x) => (float[1, 3, 10, 10] y) { y = ConvTranspose <strides = [2, 2]> (x, w) }",
            {"w": (4, 3, 2, 2)},
            4 * 5 * 5 * 3 * 2 * 2,
            id="transposed-conv",
        ),
        pytest.param("net (float[7, 5] x) => (float[7, 3] y) { y = MatMul (x, w) }", {"w": (5, 3)}, 105, id="matmul"),
        pytest.param(
            "net (float[5, 7] x) => (float[7, 3] y) { y = Gemm <transA = 1> (x, w) }", {"w": (5, 3)}, 105, id="gemm"
        ),
        pytest.param(
            "net (float[N, 4] x) => (float[N, 4] y) { a = Mul (x, s) b = Relu (a) y = Add (b, s) }",
            {"s": (4,)},
            8,
            id="affines-of-one-sample",
        ),
    ],
)
def test_multiply_adds(text, shapes, count):
    """As they are counted by hand."""
    assert macs(model(text, **shapes)) == count


@pytest.mark.parametrize(
    "text",
    [
        pytest.param("net (float[1, N] x) => (float[1, N] y) { y = Mul (x, x) }", id="open-size"),
        pytest.param(
            "net (bool c, float[2] x) => (float[2] y) { y = If (c) <then_branch = a () => (float[2] t) "
            "{ t = Mul (x, x) }, else_branch = b () => (float[2] e) { e = Identity (x) }> }",
            id="in-a-body",
        ),
    ],
)
def test_what_is_not_known_is_not_guessed(text):
    """Where a shape is open, or nobody knows how often a body runs."""
    assert macs(model(text)) is None


def test_all_that_a_model_holds_is_counted():
    """Nodes of bodies, Constants, and operators of other domains by their whole names."""
    made = model(
        "net (bool c, float[2] x) => (float[2] y) { k = Constant <value = float[3] {1., 2., 3.}> () "
        "y = If (c) <then_branch = a () => (float[2] t) { t = Mul (x, s) }, "
        "else_branch = b () => (float[2] e) { e = Identity (x) }> }",
        s=(2,),
    )
    made.graph.node.add(op_type="Gelu", domain="com.microsoft")
    found = Inventory.of(made)
    assert found.operators == {"Constant": 1, "If": 1, "Mul": 1, "Identity": 1, "com.microsoft.Gelu": 1}
    assert found.parameters == 5


def test_nothing_is_inferred_of_huge_models(monkeypatch):
    """Where the figure would cost more than it is worth."""
    model = onnx.load(MODELS / "digits_resnet.onnx")
    assert macs(model)
    monkeypatch.setattr("bnfold.optimization.macs.MOST_NODES", len(model.graph.node) - 1)
    assert macs(model) is None


def test_calls_are_not_counted():
    """What a function does is not known here."""
    made = model("net (float[2, 3] x) => (float[2, 3] y) { y = Mul (x, x) }")
    assert macs(made) == 6
    made.functions.add(name="f", domain="of.mine")
    assert macs(made) is None


def test_units_and_order():
    """The largest change first; a thousand is of the next unit; of nothing there is no share."""
    assert unit_of(1000) == (1000, "KB", 1)
    change = Change(Inventory({"A": 1, "B": 9}, 0), Inventory({}, 5))
    assert [name for name, *_ in change.operators()] == ["B", "A"]
    rows = summary(change, (10, 0)).rows
    assert rows[-1] == ("parameters", "0", "5", "")
