"""What operators call for."""

import pytest
from verification.helpers import side_of

from bnfold.verification.regions.hints import meeting
from bnfold.verification.regions.sizes import compared_sizes

CONSTANTS = """
    <int64[1] zero = {0}, int64[1] one = {1}, int64[1] end = {2147483647}, int64[6] sides = {0, 1, 0, 0, 1, 0},
    int64[6] ends = {1, 0, 0, 0, 0, 0}, int64[2] axes = {2, 0}, int64[2] from = {5, 0},
    int64[2] upto = {7, 2147483647}, int64[2] few = {7, 1}>"""

BRANCHES = "then_branch = b () => (o) { o = Relu (x) }, else_branch = c () => (o) { o = Neg (x) }"


@pytest.mark.parametrize(
    ("line", "meet"),
    [
        ("y = Relu (x)", False),
        ("y = Softmax (x)", True),
        ("s = Softmax (axes) y = Relu (x)", False),
        ("y = Concat <axis = 1> (x, x)", False),
        ("y = Concat <axis = 0> (x, x)", True),
        ("y = Concat <axis = -1> (x, x)", False),
        ("y = Concat <axis = -3> (x, x)", True),
        ("y, z = Split <axis = 2> (x)", False),
        ("y, z = Split (x)", True),
        ("y = Transpose <perm = [0, 2, 1]> (x)", False),
        ("y = Transpose <perm = [1, 0, 2]> (x)", True),
        ("y = Transpose (x)", True),
        ("y = Pad (x, sides)", False),
        ("y = Pad (x, ends)", True),
        ("y = Slice (x, one, end, one)", False),
        ("y = Slice (x, zero, end, zero)", False),
        ("y = Slice (x, zero, end)", False),
        ("y = Slice (x, one, end, zero)", True),
        ("y = Slice (x, one, end, , one)", True),
        ("y = Slice (x, zero, one, zero)", True),
        ("y = Slice (x, from, upto, axes)", False),
        ("y = Slice (x, from, few, axes)", True),
    ],
)
def test_whether_samples_meet(line, meet):
    """They do where an operator may move something from one to another."""
    side = side_of(f"n (float[4, 6, 8] x) => (float[A, B, C] y) {CONSTANTS} {{ {line} }}")
    assert meeting(side, side) == [meet]


@pytest.mark.parametrize(
    ("line", "sizes"),
    [
        ("y = Less (height, many)", [(0, False), (200, False), (200, True), (202, False), (202, True)]),
        ("y = Less (height, few)", [(0, False), (1, False), (1, True), (2, False), (2, True)]),
        ("y = Equal (height, width)", [(0, False)]),
    ],
)
def test_sizes_that_are_compared_are_tried(line, sizes):
    """What a size is held against, unless every model is tried so far; two sizes are met as declared."""
    text = "<int64[1] many = {200}, int64[1] few = {1}>"
    text = f"n (int64[1] height, int64[1] width) => (bool[1] y) {text} {{ {line} }}"
    side, idle = side_of(text), side_of(text, compares=False)
    assert compared_sizes(side, idle) == sizes
    assert compared_sizes(idle, idle) == []


@pytest.mark.parametrize(
    ("line", "active"),
    [
        ("a = CastLike (one, x) y = Relu (x)", ["Relu"]),
        ("s = Shape (one) a = Expand (end, s) y = Add (x, a)", ["Add"]),
        ("s = Shape (x) a = Expand (one, s) y = Add (x, a)", ["Shape", "Expand", "Add"]),
        ("a = CastLike (x, one) y = Mul (a, a)", ["CastLike", "Mul"]),
        ("a = RandomNormal <shape = [1]> () y = Add (x, a)", ["RandomNormal", "Add"]),
        (f"t = Less (one, end) y = If (t) <{BRANCHES}>", ["If", "Relu", "Neg"]),
    ],
)
def test_what_reads_data(line, active):
    """The others make the same of constants at every size, and so call for nothing."""
    side = side_of(f"n (float[4, 6, 8] x) => (float[A, B, C] y) {CONSTANTS} {{ {line} }}")
    assert [op.type for op in side.active] == active
