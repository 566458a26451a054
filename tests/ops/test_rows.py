"""Two operators in a row as one, and maps beside a Conv or matrix: equal where they say yes, a reason where not."""

from __future__ import annotations

import hypothesis.strategies as st
import numpy as np
import pytest
from helpers import assert_close, feeds_of, few, model_of, run
from hypothesis import given
from onnx import ModelProto
from ops.helpers import carried_out

from bnfold.graph import Graph, Op
from bnfold.model_io import load
from bnfold.ops import kernels
from bnfold.ops.branches import absorb_map
from bnfold.ops.maps import map_of
from bnfold.ops.rows import ROWS
from bnfold.ops.rule import Detach
from bnfold.reasons import Reason, Refused

HEADER = '<ir_version: 8, opset_import: ["": 17]>\n'
POINT = "p = Conv (x, {w1: 6, 4, 1, 1}, {b1: 6})"
WINDOW = "y = Conv (p, {w2: 4, 6, 3, 3}, {b2: 4})"
FIRST = "p = Gemm <alpha = 0.5> (x, {w1: 5, 8}, {b1: 8})"
SECOND = "y = Gemm <beta = 2.0> (p, {w2: 8, 3}, {b2: 3})"


def images(first: str = POINT, second: str = WINDOW) -> ModelProto:
    return model_of(f"{HEADER} g (double[2, 4, 8, 8] x) => (double[n, c, h, w] y) {{ {first} {second} }}", "double")


def matrices(first: str = FIRST, second: str = SECOND) -> ModelProto:
    return model_of(f"{HEADER} g (double[4, 5] x) => (double[n, m] y) {{ {first} {second} }}", "double")


def ops_of(model: ModelProto) -> list[Op]:
    return list(Graph(load(model)).ops())


def merged(model: ModelProto) -> ModelProto:
    first, second = ops_of(model)
    host, edits = ROWS[second.type](first, second)
    guest = first if host is second else second
    return carried_out(model, [*edits, Detach(guest, 0, keeps_name=guest is second)])


def assert_same(model: ModelProto) -> None:
    after = merged(model)
    assert len(after.graph.node) == 1
    for feeds in feeds_of(model):
        assert_close(run(after, feeds)["y"], run(model, feeds)["y"], 1e-12)


@pytest.mark.parametrize(
    "model",
    [
        pytest.param(images(), id="bias"),
        pytest.param(
            images(second="y = Conv <strides = [2, 1], dilations = [1, 2]> (p, {w2: 4, 6, 3, 3})"), id="steps"
        ),
        pytest.param(images("p = Conv <pads = [1, 0, 0, 2]> (x, {w1: 6, 4, 1, 1}, {b1: 6})"), id="padded-before"),
        pytest.param(
            images("p = Conv (x, {w1: 6, 4, 1, 1})", 'y = Conv <auto_pad = "SAME_LOWER"> (p, {w2: 4, 6, 2, 2})'),
            id="padded-behind",
        ),
        pytest.param(
            images("p = Conv <strides = [2, 2]> (x, {w1: 6, 4, 3, 3}, {b1: 6})", "y = Conv (p, {w2: 3, 6, 1, 1})"),
            id="behind",
        ),
        pytest.param(
            images(
                'p = Conv <auto_pad = "SAME_UPPER"> (x, {w1: 6, 4, 2, 2})',
                "y = Conv <strides = [2, 3]> (p, {w2: 3, 6, 1, 1}, {b2: 3})",
            ),
            id="strides-behind",
        ),
        pytest.param(
            images("p = Conv <group = 4> (x, {w1: 8, 1, 1, 1}, {b1: 8})", "y = Conv <group = 2> (p, {w2: 2, 4, 3, 3})"),
            id="groups",
        ),
        pytest.param(
            images(
                "p = Conv <group = 2> (x, {w1: 12, 2, 1, 1}, {b1: 12})", "y = Conv <group = 3> (p, {w2: 3, 4, 3, 3})"
            ),
            id="groups-that-do-not-nest",
        ),
        pytest.param(matrices(), id="gemms"),
        pytest.param(matrices("p = Gemm <transB = 1> (x, {w1: 8, 5}, {b1: 4, 1})"), id="column-before"),
        pytest.param(
            matrices(second="y = Gemm <alpha = -2.0, transB = 1> (p, {w2: 3, 8}, {b2: 4, 1})"), id="column-behind"
        ),
        pytest.param(matrices("p = Gemm <beta = 0.0> (x, {w1: 5, 8}, {b1: 8})"), id="beta-zero"),
        pytest.param(matrices(second="y = MatMul (p, {w2: 8, 3})"), id="gemm-matmul"),
        pytest.param(matrices("p = MatMul (x, {w1: 5, 8})"), id="matmul-gemm"),
    ],
)
def test_one_computes_what_two_did(model):
    """The one that is left, by itself."""
    assert_same(model)


@given(
    groups=st.tuples(st.sampled_from([1, 2, 4]), st.sampled_from([1, 2, 3])),
    is_before=st.booleans(),
    taps=st.sampled_from([(1, 1), (3, 2), (2, 3)]),
    strides=st.tuples(st.integers(1, 2), st.integers(1, 2)),
    pads=st.lists(st.integers(0, 2), min_size=4, max_size=4),
)
@few
def test_any_two_convs_that_go(groups, is_before, taps, strides, pads):
    """Whatever groups, windows and paddings, where there are fewer weights then."""
    steps, padding = f"strides = {list(strides)}", f"pads = {pads}"
    attributes = [padding, steps] if is_before else [f"{padding}, {steps}", "strides = [1, 2]"]
    kernels = ["1, 1", f"{taps[0]}, {taps[1]}"]
    inner, outer = kernels if is_before else kernels[::-1]
    first = f"<group = {groups[0]}, {attributes[0]}> (x, {{w1: 12, {4 // groups[0]}, {inner}}}, {{b1: 12}})"
    second = f"<group = {groups[1]}, {attributes[1]}> (p, {{w2: {2 * groups[1]}, {12 // groups[1]}, {outer}}})"
    assert_same(images(f"p = Conv {first}", f"y = Conv {second}"))


MORE = "weights where both have"
REFUSED = {
    "bias-meets-padding": (
        images(second="y = Conv <pads = [1, 1, 1, 1]> (p, {w2: 4, 6, 3, 3})"),
        "zero padding would not receive the shift",
    ),
    "more-weights": (images("p = Conv (x, {w1: 2, 4, 1, 1})", "y = Conv (p, {w2: 4, 2, 3, 3})"), MORE),
    "more-positions": (
        images("p = Conv (x, {w1: 6, 12, 1, 1})", "y = Conv <pads = [2, 1, 1, 1]> (p, {w2: 1, 6, 3, 3})"),
        MORE,
    ),
    "stride-before": (images("p = Conv <strides = [2, 2]> (x, {w1: 6, 4, 1, 1})"), "no single kernel"),
    "two-windows": (
        images("p = Conv (x, {w1: 60, 4, 3, 3})", "y = Conv (p, {w2: 4, 60, 3, 3})"),
        "no single kernel",
    ),
    "point-behind-makes-more": (
        images("p = Conv (x, {w1: 6, 4, 3, 3})", "y = Conv <pads = [1, 1, 1, 1]> (p, {w2: 4, 6, 1, 1})"),
        MORE,
    ),
    "auto-pad": (
        images(
            "p = Conv (x, {w1: 9, 4, 3, 3})",
            'y = Conv <strides = [2, 2], auto_pad = "SAME_UPPER"> (p, {w2: 1, 9, 1, 1})',
        ),
        "depends on the input's size",
    ),
    "weight-is-computed": (images(second="y = Conv (p, p)"), "is computed from an input"),
    "larger-matrix": (matrices("p = MatMul (x, {w1: 5, 2})", "y = MatMul (p, {w2: 2, 8})"), MORE),
    "larger-addend": (matrices("p = Gemm (x, {w1: 5, 3}, {b1: 4, 1})", "y = MatMul (p, {w2: 3, 7})"), MORE),
    "turned": (matrices(second="y = Gemm <transA = 1> (p, {w2: 4, 3})"), "do not fit"),
    "turned-before": (
        matrices("p = Gemm <transA = 1> (x, {w1: 4, 4})", "y = Gemm (p, {w2: 4, 3})"),
        "another orientation",
    ),
    "turned-square": (
        matrices("p = Gemm (x, {w1: 5, 4})", "y = Gemm <transA = 1> (p, {w2: 4, 3})"),
        "another orientation",
    ),
    "batched": (matrices("p = MatMul (x, {w1: 5, 8})", "y = MatMul (p, {w2: 2, 8, 3})"), "do not fit"),
    "matrix-is-computed": (matrices(second="y = Gemm (p, p)"), "is computed from an input"),
}


@pytest.mark.parametrize(("model", "why"), REFUSED.values(), ids=REFUSED)
def test_a_row_is_refused(model, why):
    """Each breaks one precondition of a pair that becomes one."""
    with pytest.raises(Refused, match=why):
        merged(model)


@pytest.mark.parametrize("model", [images(), matrices()], ids=["convs", "gemms"])
def test_weights_that_are_not_finite_stay(model):
    """Zero times infinity would spread."""
    tensor = next(tensor for tensor in model.graph.initializer if tensor.name == "w1")
    values = np.frombuffer(tensor.raw_data, np.float64).copy()
    values[0] = np.inf
    tensor.raw_data = values.tobytes()
    with pytest.raises(Refused) as refused:
        merged(model)
    assert refused.value.reason is Reason.NOT_FINITE


@pytest.mark.parametrize("model", [images(), matrices()], ids=["convs", "gemms"])
def test_a_product_that_takes_too_long_is_refused(model, monkeypatch):
    """So that a plan is never a matter of minutes."""
    monkeypatch.setattr(kernels, "_MOST_WORK", 100)
    with pytest.raises(Refused, match="multiply-adds"):
        merged(model)


# --- beside a Conv -------------------------------------------------------------------------------------------

HOST = "y = Conv <pads = [1, 1, 1, 1]> (x, {w: 4, 4, 3, 3})"
MEAN = "p = AveragePool <kernel_shape = [3, 3], pads = [1, 1, 1, 1], count_include_pad = 1> (x)"


def taken_in(model: ModelProto) -> None:
    *guests, host = ops_of(model)
    absorb_map(host, map_of(guests), 1)


@pytest.mark.parametrize("guest", [MEAN, "p = AveragePool <kernel_shape = [1, 1]> (x)"], ids=["mean", "of-one"])
def test_means_go_into_a_conv_beside(guest):
    """Where its window holds theirs."""
    taken_in(images(guest, HOST))


@pytest.mark.parametrize(
    ("guest", "detail"),
    [
        pytest.param(MEAN.replace(", count_include_pad = 1", ""), "padding that does not count", id="not-counted"),
        pytest.param(MEAN.replace("3, 3]", "3, 3], ceil_mode = 1"), "ceil_mode", id="ceil-mode"),
        pytest.param(
            MEAN.replace("[3, 3]", "[5, 5]").replace("1, 1, 1, 1", "2, 2, 2, 2"), "not lie within", id="larger-window"
        ),
        pytest.param(MEAN.replace("3, 3]", "3, 3], strides = [2, 2]"), "another stride", id="another-stride"),
    ],
)
def test_other_means_stay(guest, detail):
    """Each breaks one precondition of the first."""
    with pytest.raises(Refused, match=detail):
        taken_in(images(guest, HOST))


@pytest.mark.parametrize(
    ("guest", "host", "detail"),
    [
        pytest.param(MEAN, SECOND.replace("(p", "(x"), "another kind", id="conv-and-matrix"),
        pytest.param(POINT, HOST, "do not nest", id="channels"),
        pytest.param(FIRST, SECOND.replace("(p", "(x"), "weights of shapes", id="shapes"),
        pytest.param(FIRST, "y = MatMul (x, {w2: 5, 8})", "no addend", id="addend"),
        pytest.param(FIRST, "y = Gemm <alpha = 0.0> (x, {w2: 5, 8})", "alpha of zero", id="alpha"),
        pytest.param(
            "p = Gemm <transA = 1> (x, {w1: 4, 3})", "y = Gemm (x, {w2: 4, 3})", "another orientation", id="orientation"
        ),
    ],
)
def test_a_map_that_does_not_fit_is_refused(guest, host, detail):
    """It is told what does not fit."""
    make = images if "Conv" in host or guest is MEAN else matrices
    with pytest.raises(Refused, match=detail):
        taken_in(make(guest, host))


def test_a_conv_and_a_matrix_in_a_row_are_no_map():
    """Neither could do what the other does."""
    with pytest.raises(Refused, match="a Conv beside it"):
        map_of(ops_of(images("p = MatMul (x, {w1: 8, 8})", "y = Conv (p, {w2: 4, 4, 1, 1})")))
