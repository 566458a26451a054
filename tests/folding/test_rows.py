"""Operators in a row that are kept, shared, in another graph, or many."""

from __future__ import annotations

import tracemalloc

import numpy as np
import onnx
import pytest
from helpers import assert_close, feeds_of, folded, model_of, run
from onnx import helper, numpy_helper

from bnfold.verification import Verdict, verify

HEADER = '<ir_version: 8, opset_import: ["": 17]> '
ROW = (
    HEADER
    + """g (T[1, 3, 7, 7] x) => (T[1, 4, 5, 5] y) {
    [point] p = Conv (x, {w1: 3, 3, 1, 1})
    [same] q = Identity (p)
    [window] y = Conv (q, {w2: 4, 3, 3, 3}) }"""
)
SUM = (
    HEADER
    + """g (T[1, 3, 5, 5] x) => (T[1, 3, 5, 5] y) {
    [base] a = Conv <pads = [1, 1, 1, 1]> (x, {w: 3, 3, 3, 3})
    [mean] b = AveragePool <kernel_shape = [3, 3], pads = [1, 1, 1, 1], count_include_pad = 1> (x)
    [down] c = Conv <pads = [1, 1, 1, 1]> (x, {wd: 1, 3, 3, 3})
    [up] d = Conv (c, {wu: 3, 1, 1, 1})
    [add_1] e = Add (a, b)
    [add_2] y = Add (e, d) }"""
)


@pytest.mark.parametrize("kept", ["point", "same", "window"])
def test_what_is_kept_goes_into_nothing(kept):
    """Nor does anything go into it."""
    model = model_of(ROW)
    assert len(folded(model)[1].graph.node) == 1
    assert folded(model, keep=[kept])[1] == model


@pytest.mark.parametrize(("kept", "left"), [("mean", 3), ("down", 4), ("up", 4), ("base", 6), ("add_1", 6)])
def test_what_is_kept_stays_in_a_sum(kept, left):
    """What is left can be merged around it, unless that moves a value that it reads."""
    model = model_of(SUM)
    assert len(folded(model)[1].graph.node) == 1
    result = folded(model, keep=[kept])[1]
    assert kept in {node.name for node in result.graph.node}
    assert len(result.graph.node) == left
    for feeds in feeds_of(model):
        assert_close(run(result, feeds)["y"], run(model, feeds)["y"], 1e-6)


def test_a_row_ends_at_a_body():
    """What is made outside a body may be read by others that the body does not see."""
    model = model_of(
        HEADER
        + """g (bool c, T[1, 3, 7, 7] x) => (T[1, 4, 5, 5] y) {
            [point] p = Conv (x, {w1: 3, 3, 1, 1})
            [if] y = If (c) <
                then_branch = a () => (T[1, 4, 5, 5] t) { [then] t = Conv (p, {w2: 4, 3, 3, 3}) },
                else_branch = b () => (T[1, 4, 5, 5] e) { [else] e = Conv (x, {w3: 4, 3, 3, 3}) }> }"""
    )
    assert not folded(model)[0].changes


def test_many_in_a_row_are_one():
    """However many, their product is rounded once."""
    random = np.random.default_rng(0)
    count = 300
    turns = [np.linalg.qr(random.normal(size=(4, 4)))[0].astype(np.float32) for _ in range(count)]
    values = ["x", *(f"v{number}" for number in range(count - 1)), "y"]
    nodes = [helper.make_node("MatMul", [values[at], f"w{at}"], [values[at + 1]]) for at in range(count)]
    ports = [helper.make_tensor_value_info(name, 1, [3, 2, 4]) for name in "xy"]
    weights = [numpy_helper.from_array(turn, f"w{at}") for at, turn in enumerate(turns)]
    graph = helper.make_graph(nodes, "many", ports[:1], ports[1:], weights)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    result = folded(model)[1]
    exact = np.linalg.multi_dot([turn.astype(np.float64) for turn in turns])
    assert [node.op_type for node in result.graph.node] == ["MatMul"]
    np.testing.assert_allclose(numpy_helper.to_array(result.graph.initializer[0]), exact, rtol=2.0**-24 * 1.001)


@pytest.mark.parametrize("text", [ROW, SUM], ids=["row", "sum"])
@pytest.mark.parametrize("dtype", ["float", "float16"])
def test_verification_finds_them_equal(text, dtype):
    """Region by region and under ONNX Runtime, in half precision too."""
    model: onnx.ModelProto = model_of(text, dtype)
    result = verify(model, folded(model)[1])
    assert result.verdict is Verdict.EQUIVALENT
    assert result.complete


@pytest.mark.parametrize(
    "graph",
    [
        pytest.param(
            "(T[3000, 1] x) => (T[3000, 3000] y) { h = Gemm (x, {a: 1, 1}, {c: 3000, 1}) y = Gemm (h, {b: 1, 3000}) }",
            id="row",
        ),
        pytest.param(
            """(T[3000, 1] x) => (T[3000, 3000] y) {
                h = Gemm (x, {a: 1, 3000}, {c: 3000, 1}) i = Gemm (x, {b: 1, 3000}, {d: 3000}) y = Add (h, i) }""",
            id="addends",
        ),
        pytest.param(
            """(T[1, 3000, 1] x) => (T[1, 3000, 3000] y) {
                f = MatMul (x, {a: 1, 3000}) h = Add (f, {c: 3000, 1})
                g = MatMul (x, {b: 1, 3000}) i = Add (g, {d: 3000}) y = Add (h, i) }""",
            id="biases",
        ),
        pytest.param(
            """(T[1, 2800, 3, 3] x) => (T[1, 1, 1, 1] y) {
                h = Conv <group = 2800> (x, {a: 2800, 1, 3, 3}) y = Conv (h, {b: 1, 2800, 1, 1}) }""",
            id="groups",
        ),
        pytest.param(
            """(T[n, 1, a, b] x) => (T[n, 1, c, d] y) {
                p = AveragePool <kernel_shape = [9000, 9000]> (x) h = Conv (p, {a: 1, 1, 1, 1})
                i = Conv (x, {b: 1, 1, 1, 1}) y = Add (h, i) }""",
            id="mean",
        ),
    ],
)
def test_no_constant_is_made_that_is_far_larger_than_the_model(graph):
    """A file of some kilobytes could fill any memory."""
    model = model_of(f"{HEADER} g {graph}")
    tracemalloc.start()
    try:
        result = folded(model)[1]
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 1 << 25
    assert [node.op_type for node in result.graph.node] == [node.op_type for node in model.graph.node]
