"""Values that are the same however they are written have one number."""

import pytest
from verification.helpers import parsed

from bnfold.verification import Verdict, verify

MODEL = """n (float[2, 6] x) => (float[2, 3] y) <int64[2] s = {3, 3}, float[3] w = {1, 2, 3}> {
    a, b = Split <axis = 1> (x, s)
    y = Mul (a, w)
}"""
NODES = """n (float[2, 6] x) => (float[2, 3] y) {
    s = Constant <value = int64[2] {3, 3}> ()
    w = Constant <value = float[3] {1, 2, 3}> ()
    a, b = Split <axis = 1> (x, s)
    y = Mul (a, w)
}"""
COPIED = """n (float[2, 6] x) => (float[2, 3] y) <int64[2] s = {3, 3}, float[3] w = {1, 2, 3}> {
    c = Identity (x)
    v = Identity (w)
    a, b = Split <axis = 1> (c, s)
    d = Identity (a)
    y = Mul (d, v)
}"""


@pytest.mark.parametrize("other", [NODES, COPIED])
def test_a_constant_and_a_copy_are_no_difference(other):
    """What makes a constant, a node or the file, and copies in between, leave no region to compare."""
    for pair in ((MODEL, other), (other, MODEL)):
        result = verify(*map(parsed, pair))
        assert (result.verdict, result.regions, result.complete) == (Verdict.EQUIVALENT, (), True)


def test_other_constants_are_a_difference():
    """A node that holds something else is told from an initializer."""
    result = verify(parsed(MODEL), parsed(NODES.replace("{1, 2, 3}", "{1, 2, 4}")))
    assert result.verdict is Verdict.DIFFERENT
