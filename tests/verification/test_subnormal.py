"""Weights so small that their type has fewer digits for them, and types that have few at all."""

import ml_dtypes
import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from bnfold.folding import plan
from bnfold.graph import Graph
from bnfold.model_io import load, to_proto
from bnfold.verification import Verdict, verify
from bnfold.verification.regions.side import rounding_of
from bnfold.verification.running.variations import weights_moved

TYPES = ["float16", "bfloat16", "float32", "float64", "float8_e4m3fn", "float8_e5m2", "float8_e4m3fnuz"]
GAIN = [1.0, 2.0, 0.7, 0.3]


def net(dtype: str, weight: np.ndarray, gain: list[float] = GAIN) -> onnx.ModelProto:
    """A Conv and a BatchNormalization that is a factor."""
    kind = helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
    statistics = {"g": np.array(gain), "b": np.zeros(4), "m": np.zeros(4), "v": np.ones(4)}
    arrays = {"w": weight, **statistics}
    tensors = [numpy_helper.from_array(array.astype(dtype), name) for name, array in arrays.items()]
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["c"], "conv"),
        helper.make_node("BatchNormalization", ["c", "g", "b", "m", "v"], ["y"], "bn", epsilon=0.0),
    ]
    ports = [helper.make_tensor_value_info(name, kind, [1, size, 7, 7]) for name, size in (("x", 8), ("y", 4))]
    graph = helper.make_graph(nodes, "n", ports[:1], ports[1:], tensors)
    graph.output[0].type.tensor_type.ClearField("shape")
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 22)], ir_version=10)


def weights(dtype: str, share: float) -> np.ndarray:
    """Normal, but for a channel that is near the smallest number of the type."""
    weight = np.random.default_rng(0).standard_normal((4, 8, 3, 3))
    weight[2] *= share * float(ml_dtypes.finfo(dtype).smallest_subnormal)
    return weight


@pytest.mark.parametrize("dtype", TYPES)
def test_the_bound_of_a_rounding_holds(dtype):
    """Across all magnitudes that a type has, and beyond."""
    info = ml_dtypes.finfo(dtype)
    low, high = (np.log2(float(x)) for x in (info.smallest_subnormal, info.max))
    random = np.random.default_rng(0)
    real = random.choice([-1.0, 1.0], 10_000) * np.exp2(random.uniform(max(low - 2, -1074), high - 1, 10_000))
    model = load(net(dtype, np.zeros((4, 8, 3, 3))))
    u, eta = rounding_of(Graph(model).main.lookup("w"))
    assert (np.abs(real.astype(dtype).astype(np.float64) - real) <= u * np.abs(real) + eta).all()
    assert eta <= float(info.smallest_subnormal)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32", "float64"])
@pytest.mark.parametrize("share", [1.0, 30.0, 1e4])
def test_a_channel_that_weight_decay_left(dtype, share):
    """Its weights are subnormal: what is left of them after folding is right to the last digit that there is."""
    before = net(dtype, weights(dtype, share))
    result = verify(before, to_proto(plan(load(before)).model), run=False)
    assert (result.verdict, result.complete) == (Verdict.EQUIVALENT, True)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32"])
def test_a_fault_beside_such_a_channel_is_found(dtype):
    """What is granted to the smallest weights is granted to no other."""
    weight = weights(dtype, 30.0)
    other = [1.0, 2.0, 0.7, 0.3 * (1 + 32 * 2.0 ** -ml_dtypes.finfo(dtype).nmant)]
    assert verify(net(dtype, weight), net(dtype, weight, other), run=False).verdict is Verdict.DIFFERENT


@pytest.mark.parametrize("dtype", TYPES)
def test_weights_move_to_a_neighbour(dtype):
    """All that are numbers and not zero, in every type; a channel of zeros stays one."""
    weight = np.random.default_rng(0).uniform(0.5, 1.5, (4, 8, 3, 3))
    weight[1] = 0
    model = load(net(dtype, weight))
    moved = weights_moved(model, load(net(dtype, 2 * weight)))
    old, new = (numpy_helper.to_array(to_proto(m).graph.initializer[0]).astype(np.float64) for m in (model, moved))
    assert ((old != new) == (old != 0)).all()
    assert np.abs(old - new).max() <= 2.0 ** -ml_dtypes.finfo(dtype).nmant


def test_a_folded_bfloat16_model_may_be_run():
    """Scaled weights are rounded to eight bits: the runs differ by what that explains, and no more."""
    before = net("bfloat16", np.random.default_rng(0).standard_normal((4, 8, 3, 3)))
    assert before.graph.input[0].type.tensor_type.elem_type == TensorProto.BFLOAT16
    assert verify(before, to_proto(plan(load(before)).model)).verdict is Verdict.EQUIVALENT
