"""What a Pad and the operators behind it put around a value, as the padding of a Conv."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from helpers import model_of

from bnfold.graph import Graph, Op
from bnfold.model_io import load
from bnfold.ops.borders import Border, border_of, bordered, inside_zeros
from bnfold.ops.kernels import Kernel, kernel_of
from bnfold.reasons import Reason, Refused

CHAIN = {
    "pad": "q = Pad (x, a)",
    "turn": "r = Transpose <perm = [2, 1, 0, 3]> (q)",
    "top": "s = ScatterND (r, first, row)",
    "bottom": "t = ScatterND (s, last, row)",
    "turn_again": "u = Transpose <perm = [3, 1, 0, 2]> (t)",
    "left": "v = ScatterND (u, first, column)",
    "right": "w = ScatterND (v, last, column)",
    "turn_back": "y = Transpose <perm = [3, 1, 2, 0]> (w)",
}


def chain(constants: str = "", **changed: str) -> list[Op]:
    nodes = "\n".join((CHAIN | changed).values())
    text = f"""<ir_version: 8, opset_import: ["": 17]>
    g (double[1, 2, 4, 3] x) => (double[n, c, h, w] y)
    <
        int64[8] a = {{0, 0, 1, 1, 0, 0, 1, 1}}, int64[1, 1] first = {{0}}, int64[1, 1] last = {{-1}},
        double[1, 2, 1, 5] row = {{3, 3, 3, 3, 3, -2, -2, -2, -2, -2}},
        double[1, 2, 6, 1] column = {{3, 3, 3, 3, 3, 3, -2, -2, -2, -2, -2, -2}},
        double[1, 2, 1, 5] mixed = {{3, 3, 3, 3, 4, -2, -2, -2, -2, -2}},
        double[1, 2, 1, 5] other = {{4, 4, 4, 4, 4, -2, -2, -2, -2, -2}},
        int64[8] deep = {{0, 1, 1, 1, 0, 0, 1, 1}}, int64[8] cut = {{0, 0, 1, 1, 0, 0, -1, 1}},
        int64[8] uneven = {{0, 0, 2, 0, 0, 0, 0, 2}}, int64[1, 1] second = {{1}}, int64[1, 1] fourth = {{3}},
        int64[1, 1] inner = {{2}}, int64[1, 1, 1] cube = {{0}}, int64[1, 2] pair = {{0, 0}},
        double[1, 1, 5] part = {{3, 3, 3, 3, 3}}
    >
    {{ {nodes} }}"""
    return list(Graph(load(model_of(text, "double"))).ops())


def test_a_border_that_was_written_over_is_read():
    """Its width, and the number of each channel."""
    border = border_of(chain())
    assert border.pads == ((1, 1), (1, 1))
    assert border.values.tolist() == [3, -2]


def test_a_border_may_be_on_one_side():
    """Before one axis, and behind another."""
    bottom, left = "t = ScatterND (s, second, row)", "v = ScatterND (u, fourth, column)"
    assert border_of(chain(pad="q = Pad (x, uneven)", bottom=bottom, left=left)).pads == ((2, 0), (0, 2))


@pytest.mark.parametrize(
    ("changed", "detail"),
    [
        pytest.param({"right": "w = ScatterND (v, inner, column)"}, "not the border", id="inside"),
        pytest.param({"right": "w = Transpose <perm = [0, 1, 2, 3]> (v)"}, "not the border", id="a-side-is-missing"),
        pytest.param({"top": "s = ScatterND (r, first, mixed)"}, "several values for a channel", id="mixed"),
        pytest.param({"bottom": "t = ScatterND (s, last, other)"}, "several values", id="another-value"),
        pytest.param(
            {"top": "s = ScatterND (r, first, other)", "bottom": "t = ScatterND (s, last, other)"},
            "not the border",
            id="another-value-on-an-axis",
        ),
        pytest.param({"top": "s = ScatterND (r, pair, part)"}, "whole slices", id="part-of-a-slice"),
        pytest.param({"top": "s = ScatterND (r, cube, row)"}, "whole slices", id="indices-of-three-axes"),
        pytest.param(
            {"top": 's = ScatterND <reduction = "add"> (r, first, row)'}, "whole slices", id="added-and-not-written"
        ),
        pytest.param({"turn_back": "y = Transpose <perm = [3, 1, 0, 2]> (w)"}, "another order", id="turned"),
        pytest.param({"turn_back": "y = Relu (w)"}, "no border", id="something-else"),
        pytest.param({"pad": "q = Pad (x, deep)"}, "around a plane", id="channels-are-padded"),
        pytest.param({"pad": "q = Pad (x, cut)"}, "around a plane", id="cut-off"),
        pytest.param({"pad": 'q = Pad <mode = "edge"> (x, a)'}, "around a plane", id="edge"),
        pytest.param({"pad": "q = Relu (x)"}, "around a plane", id="no-pad"),
    ],
)
def test_what_is_no_border_is_refused(changed, detail):
    """Each breaks one precondition of the chain above."""
    with pytest.raises(Refused) as refused:
        border_of(chain(**changed))
    assert refused.value.reason is Reason.UNSUPPORTED
    assert detail in str(refused.value.facts["detail"])


def kernel(attributes: str = "", taps: str = "1, 1") -> Kernel:
    text = f"""<ir_version: 8, opset_import: ["": 17]>
    g (T[1, 2, 4, 3] x) => (T[n, c, h, w] y)
    <T[2] b = {{3, -2}}> {{ y = Conv {attributes} (x, {{w: 2, 2, {taps}}}, b) }}"""
    return kernel_of(next(Graph(load(model_of(text))).ops()))


SIDES = ((1, 2), (0, 1))
BEHIND = kernel(taps="3, 2")


def test_a_border_of_biases_is_padding():
    """In front of the Conv, then; up to what the exporter's own rounding may be."""
    last_bits = np.array([3, -2]) * (1 + 2.0**-23)
    assert bordered(kernel("<pads = [1, 0, 0, 0]>"), Border(SIDES, last_bits), BEHIND).window.pads == ((2, 2), (0, 1))


def test_a_border_of_zeros_is_padding():
    """Whatever the Conv behind it is."""
    padded = inside_zeros(Border(SIDES, np.zeros(1)), kernel("<pads = [1, 0, 0, 0], strides = [2, 1]>", "3, 2"))
    assert padded.window.pads == ((2, 2), (0, 1))
    assert padded.window.strides == (2, 1)


@pytest.mark.parametrize(
    ("attributes", "taps", "values", "detail"),
    [
        pytest.param("", "1, 1", [3, -2.001], "not what is made of zeros", id="another-border"),
        pytest.param("", "1, 1", [np.nan, -2], "not what is made of zeros", id="not-a-number"),
        pytest.param("", "1, 3", [3, -2], "a window before it", id="window"),
        pytest.param("<strides = [2, 1]>", "1, 1", [3, -2], "a window before it", id="stride"),
    ],
)
def test_another_border_is_refused(attributes, taps, values, detail):
    """Each breaks one precondition of the first."""
    with pytest.raises(Refused, match=detail):
        bordered(kernel(attributes, taps), Border(SIDES, np.array(values)), BEHIND)


def test_a_border_is_as_exact_as_what_reads_it_needs():
    """Beside a large bias another one may be off by much, unless what is read of the large one is little."""
    point, border = replace(kernel(), bias=np.array([1e6, 1e-2])), Border(SIDES, np.array([1e6, 0]))
    assert bordered(point, border, BEHIND).window.pads == ((1, 2), (0, 1))
    cancelled = replace(point, bias=np.array([1e-9, 1e-9])), Border(SIDES, np.array([0, 1e-7])), BEHIND
    assert bordered(*cancelled).window.pads == ((1, 2), (0, 1))
    little = replace(BEHIND, weights=lambda: np.array([[1e-9], [1]]).reshape(1, 2, 1, 1) * BEHIND.weights())
    with pytest.raises(Refused, match="not what is made of zeros"):
        bordered(point, border, little)


def test_a_border_that_is_not_zero_is_no_padding_of_what_is_behind_it():
    """A Conv pads with zeros; nor does it pad axes that it does not have."""
    with pytest.raises(Refused, match="not zero"):
        inside_zeros(Border(SIDES, np.ones(1)), kernel())
    with pytest.raises(Refused, match="another rank"):
        inside_zeros(Border(SIDES[:1], np.zeros(1)), kernel())
