"""What inference may follow of the sizes that a model computes."""

import onnx
import pytest
from onnx import TensorProto, helper

from bnfold.graph.harmless import sizes_are_few
from bnfold.graph.inference import inferable


def doubling(times, *, dims=(2,), inside=False):
    nodes = [helper.make_node("Concat", [f"s{n}"] * 2, [f"s{n + 1}"], axis=0) for n in range(times)]
    start = helper.make_tensor("s0", TensorProto.INT64, dims, [1] * 2)
    if inside:
        out = helper.make_tensor_value_info(f"s{times}", TensorProto.INT64, None)
        body = helper.make_graph(nodes, "body", [], [out], [start])
        nodes, start = [helper.make_node("If", ["c"], ["y"], then_branch=body, else_branch=body)], None
    return helper.make_graph(nodes, "g", [], [], [start] if start else [])


@pytest.mark.parametrize("inside", [False, True])
def test_lists_that_double_are_not_followed(inside):
    """N Concats of one with itself make 2^n entries, wherever they stand."""
    assert sizes_are_few(doubling(10, inside=inside))
    assert not sizes_are_few(doubling(25, inside=inside))


@pytest.mark.parametrize("times", [10, 25])
def test_inference_is_told_what_to_follow(times):
    """By all who infer."""
    assert inferable(helper.make_model(doubling(times))).follows is (times == 10)


def test_a_table_is_no_list_of_sizes():
    """What data_prop follows has one axis."""
    table = onnx.TensorProto(name="table", data_type=TensorProto.INT64, dims=[1 << 21, 1])
    graph = helper.make_graph([helper.make_node("Gather", ["table", "i"], ["row"])], "g", [], [], [table])
    assert sizes_are_few(graph)
