"""A folded constant that its type cannot hold is refused in the plan; nothing fails while the model is written."""

import ml_dtypes
import numpy as np
import pytest
from helpers import Array, folded, model_of
from onnx import ModelProto, numpy_helper

import bnfold
from bnfold.folding.record import Outcome
from bnfold.model_io import Model
from bnfold.reasons import Reason

LARGEST = {
    name: float(ml_dtypes.finfo(kind).max)  # type: ignore[no-untyped-call]
    for name, kind in {"float16": "float16", "bfloat16": "bfloat16", "float": "float32", "double": "float64"}.items()
}
EVERY_TYPE = pytest.mark.parametrize("dtype", list(LARGEST))


def model(graph: str, dtype: str, **values: float | Array) -> ModelProto:
    """A model whose constants of these names hold these values."""
    made = model_of(f'<ir_version: 10, opset_import: ["": 22]> g {graph}', dtype)
    for tensor in made.graph.initializer:
        if tensor.name in values:
            old = numpy_helper.to_array(tensor)
            new = np.broadcast_to(np.asarray(values[tensor.name], np.float64), old.shape).astype(old.dtype)
            tensor.CopyFrom(numpy_helper.from_array(new, tensor.name))
    return made


def assert_refused(before: ModelProto) -> None:
    """Nothing changes, OVERFLOW is told, and all verbs agree."""
    planned, after = folded(before)
    assert after == before
    reasons = {refusal.reason for entry in planned.entries for refusal in entry.refusals}
    assert Reason.OVERFLOW in reasons
    assert not bnfold.check(before).plan.changes
    assert bnfold.optimize(before, verify="off").proto() == before


WEIGHTS = {
    "conv": "(T[2, 3, 5, 5] x) => (T[2, 4, 3, 3] y) { c = Conv (x, {w: 4, 3, 3, 3}) y = Mul (c, {s: 4, 1, 1}) }",
    "grouped-conv": "(T[2, 4, 5] x) => (T[2, 6, 3] y) "
    "{ c = Conv <group = 2> (x, {w: 6, 2, 3}) y = Mul (c, {s: 6, 1}) }",
    "conv-input": "(T[2, 3, 5] x) => (T[2, 4, 3] y) { c = Mul (x, {s: 3, 1}) y = Conv (c, {w: 4, 3, 3}) }",
    "conv-transpose": "(T[2, 4, 5] x) => (T[2, 6, 6] y) "
    "{ c = ConvTranspose <group = 2> (x, {w: 4, 3, 2}) y = Mul (c, {s: 6, 1}) }",
    "gemm": "(T[2, 3] x) => (T[2, 4] y) { c = Gemm <transB = 1> (x, {w: 4, 3}) y = Mul (c, {s: 4}) }",
    "gemm-input": "(T[2, 3] x) => (T[2, 4] y) { c = Mul (x, {s: 3}) y = Gemm (c, {w: 3, 4}) }",
    "matmul": "(T[2, 5, 3] x) => (T[2, 5, 4] y) { c = MatMul (x, {w: 3, 4}) y = Mul (c, {s: 4}) }",
    "einsum": '(T[2, 3] x) => (T[2, 4] y) { c = Einsum <equation = "ab,bc->ac"> (x, {w: 3, 4}) y = Mul (c, {s: 4}) }',
    "transposed": "(T[2, 3] x) => (T[2, 4] y) { t = Transpose ({w: 4, 3}) c = MatMul (x, t) y = Mul (c, {s: 4}) }",
}


@EVERY_TYPE
@pytest.mark.parametrize("graph", WEIGHTS.values(), ids=WEIGHTS)
def test_a_weight_that_overflows_is_refused(graph: str, dtype: str) -> None:
    """Also by a factor of no more than two: it is the weight that is large."""
    assert_refused(model(graph, dtype, w=LARGEST[dtype] * 0.75, s=2))


@EVERY_TYPE
@pytest.mark.parametrize("graph", WEIGHTS.values(), ids=WEIGHTS)
def test_one_number_is_enough(graph: str, dtype: str) -> None:
    """Wherever in the weight it stands; and what it is depends on its own factor alone."""
    before = model(graph, dtype)
    weight = next(tensor for tensor in before.graph.initializer if tensor.name == "w")
    values = numpy_helper.to_array(weight).copy()
    values.reshape(-1)[-1] = LARGEST[dtype] * -0.75
    scale = np.ones(next(tensor.dims for tensor in before.graph.initializer if tensor.name == "s"))
    scale[-1] = 2
    assert_refused(model(graph, dtype, w=values, s=scale))
    scale[-1] = 1
    scale[0] = 2
    planned, after = folded(model(graph, dtype, w=values, s=scale))
    assert "Mul" not in {node.op_type for node in after.graph.node}
    assert [entry.outcome for entry in planned.entries] == [Outcome.FOLDED]


def test_the_limit_is_where_rounding_gives_infinity() -> None:
    """The largest float32 times 1 + 2^-25 rounds to itself, times 1 + 2^-24 it rounds to infinity."""
    graph = "(double[2, 3] x) => (double[2, 1] y) { c = MatMul (x, {w: 3, 1}) y = Mul (c, {s: 1}) }"
    half = graph.replace("double", "float").replace("{s: 1}", "{s: 1 double}")  # ONNX would not; the fold does not mind
    assert_refused(model(half, "float", w=LARGEST["float"], s=1 + 2.0**-24))
    _, after = folded(model(half, "float", w=LARGEST["float"], s=1 + 2.0**-26))
    assert [node.op_type for node in after.graph.node] == ["MatMul"]


@EVERY_TYPE
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_what_came_in_as_nan_hides_nothing(dtype: str, bad: float) -> None:
    """Nor does it stand in the way where nothing overflows."""
    values = np.full((4, 3), LARGEST[dtype] * 0.75)
    values[0, 0] = bad
    assert_refused(model(WEIGHTS["gemm"], dtype, w=values, s=2))
    values[:, 1:] = 1
    values[1:, 0] = 1
    _, after = folded(model(WEIGHTS["gemm"], dtype, w=values, s=2))
    weight = numpy_helper.to_array(after.graph.initializer[0]).astype(np.float64)
    np.testing.assert_array_equal(weight, values * 2)


@EVERY_TYPE
def test_several_scales_count_together(dtype: str) -> None:
    """The second of two that fit alone stays."""
    graph = """(T[2, 3] x) => (T[2, 4] y) {
        c = MatMul (x, {w: 3, 4})  d = Relu (c)  e = Mul (d, {s: 4})  f = Relu (e)  y = Mul (f, {r: 4}) }"""
    planned, after = folded(model(graph, dtype, w=LARGEST[dtype] * 0.4, s=2, r=2))
    assert [entry.outcome for entry in planned.entries] == [Outcome.FOLDED, Outcome.KEPT]
    assert all(
        np.isfinite(numpy_helper.to_array(tensor).astype(np.float64)).all() for tensor in after.graph.initializer
    )


@EVERY_TYPE
def test_a_bias_and_an_added_constant_count_too(dtype: str) -> None:
    """The bias of a Conv, and the Add that a MatMul gets where it has none."""
    conv = "(T[2, 3, 5] x) => (T[2, 4, 3] y) { c = Conv (x, {w: 4, 3, 3}, {b: 4}) y = Mul (c, {s: 4, 1}) }"
    assert_refused(model(conv, dtype, b=LARGEST[dtype] * 0.75, s=2))
    matmul = "(T[2, 5, 3] x) => (T[2, 5, 4] y) { a = Add (x, {t: 3}) c = MatMul (a, {w: 3, 4}) y = Add (c, {u: 4}) }"
    assert_refused(model(matmul, dtype, t=LARGEST[dtype] * 0.75, w=2, u=1))


@EVERY_TYPE
@pytest.mark.parametrize(
    "graph",
    [
        pytest.param("l = Conv (x, {w: 4, 4, 1}) r = Conv (x, {v: 4, 4, 1}) y = Add (l, r)", id="two-convs"),
        pytest.param("l = Conv (x, {w: 4, 4, 1}) y = Add (l, x)", id="conv-and-input"),
        pytest.param("l = Conv (x, {w: 4, 4, 1}) r = Mul (x, {s: 4, 1}) y = Add (l, r)", id="conv-and-scale"),
        pytest.param(
            "l = Conv (x, {o: 4, 4, 1}, {w: 4}) r = Conv (x, {p: 4, 4, 1}, {v: 4}) y = Add (l, r)", id="biases"
        ),
    ],
)
def test_branches_that_overflow_together_stay_apart(graph: str, dtype: str) -> None:
    """Merging adds weights, and biases."""
    large = LARGEST[dtype] * 0.75
    is_identity = graph.endswith("(l, x)")
    weight = np.full((4, 4, 1), LARGEST[dtype]) if is_identity else large
    before = model(f"(T[2, 4, 5] x) => (T[2, 4, 5] y) {{ {graph} }}", dtype, w=weight, v=large, s=large)
    _, after = folded(before)
    if is_identity:  # adding 1 to the largest number is lost in rounding, and no harm
        assert np.isfinite(numpy_helper.to_array(after.graph.initializer[0]).astype(np.float64)).all()
    else:
        assert after == before


def test_a_weight_that_no_factor_enlarges_is_not_read(monkeypatch: pytest.MonkeyPatch) -> None:
    """Planning touches vectors of channel length only, but where a number could become too large."""
    read: list[str] = []
    rows = Model.rows
    monkeypatch.setattr(Model, "rows", lambda self, tensor, *at: read.append(tensor.name) or rows(self, tensor, *at))
    bnfold.plan(model(WEIGHTS["conv"], "float", s=1))
    bnfold.plan(model(WEIGHTS["conv"], "float", s=-0.5))
    assert read == []
    bnfold.plan(model(WEIGHTS["conv"], "float", s=1.5))
    assert read == ["w"]
