"""Constants that the model does not store are bounded by what it stores; those that only broadcast take no memory."""

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from bnfold.graph import Graph
from bnfold.graph.evaluate import MAX_ELEMENTS
from bnfold.model_io import load
from bnfold.reasons import Reason, Refused

SIDE = 1 << 12  # squared: four times the bound
DOUBLING = [f"k{n + 1} = Add (k{n}, k{n})" for n in range(40)]


def model_of_constants(*lines: str, **integers: list[int]) -> onnx.ModelProto:
    """A Conv and a Mul by the constant `k` that the nodes make, from a vector `v`, a column `c` and shapes."""
    text = "".join(f"{line}\n" for line in lines)
    model = onnx.parser.parse_model(
        f"""<ir_version: 8, opset_import: ["" : 17]>
        g (float[1, 3, 8, 8] x) => (float[N, C, H, W] y)
        <float[4, 3, 1, 1] w, float[{SIDE}] v, float[{SIDE}, 1] c> {{
          z = Conv (x, w)
          {text}
          y = Mul (z, k)
        }}"""
    )
    arrays = {name: np.array(values, np.int64) for name, values in integers.items()}
    arrays |= {"w": np.ones((4, 3, 1, 1), np.float32), "v": np.ones(SIDE, np.float32)}
    arrays["c"] = np.ones((SIDE, 1), np.float32)
    del model.graph.initializer[:]
    model.graph.initializer.extend(numpy_helper.from_array(array, name) for name, array in arrays.items())
    return model


@pytest.mark.parametrize(
    "model",
    [
        pytest.param(model_of_constants("k = ConstantOfShape (s)", s=[1, 4, SIDE, SIDE]), id="ConstantOfShape"),
        pytest.param(model_of_constants("k = Expand (v, s)", s=[1, 4, SIDE, SIDE]), id="Expand"),
        pytest.param(model_of_constants("k = Add (v, c)"), id="outer-sum"),
        pytest.param(model_of_constants(f"k = Concat <axis = 0> ({', '.join(['v'] * 2000)})"), id="Concat"),
        pytest.param(
            model_of_constants("e = Expand (v, s)", "k = Gather (e, i)", s=[1 << 9, SIDE], i=[0] * (1 << 13)),
            id="Gather",
        ),
        pytest.param(model_of_constants("e = ConstantOfShape (s)", "k = Sqrt (e)", s=[SIDE, SIDE]), id="made-of-one"),
        pytest.param(
            model_of_constants("k0 = Expand (v, s)", *DOUBLING, "k = Neg (k40)", s=[8, SIDE]),
            id="each-evaluated-twice-for-the-next",
        ),
    ],
)
def test_what_is_larger_than_all_that_is_stored_is_refused_by_name(model):
    """It counts as computed, and nothing of it is made."""
    graph = Graph(load(model))
    (use,) = graph.main.values["k"].readers
    with pytest.raises(Refused) as refused:
        use.op.constant(use.index)
    assert refused.value.reason is Reason.TOO_LARGE


def test_a_sparse_initializer_is_bounded_too():
    """Its dense form is not in the file."""
    model = model_of_constants()
    sparse = helper.make_sparse_tensor(
        helper.make_tensor("k", TensorProto.FLOAT, [1], [1.0]),
        helper.make_tensor("i", TensorProto.INT64, [1], [0]),
        [SIDE, SIDE],
    )
    model.graph.sparse_initializer.append(sparse)
    graph = Graph(load(model))
    assert graph.constant(graph.main.values["k"]) is None
    assert graph.is_too_large(graph.main.values["k"])


def test_what_only_broadcasts_is_not_made_in_full():
    """Four million elements, of which one is held in memory, through arithmetic and Cast."""
    model = model_of_constants(
        "a = Expand (o, s)", "b = Add (a, a)", "k = Cast <to = 1> (b)", s=[1, 4, 1 << 10, 1 << 10], o=[1]
    )
    graph = Graph(load(model))
    constant = graph.constant(graph.main.values["b"])
    assert constant is not None
    assert np.prod(constant.shape) == MAX_ELEMENTS
    values = constant.float64()
    assert values.strides == (0,) * 4
    assert (values[0, 0, :2] == 2).all()
    assert constant.array().flags.writeable
