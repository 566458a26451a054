"""Bounds that are too wide let a fault pass, and bounds that are too narrow refuse a right rewriting."""

from collections.abc import Mapping
from types import MappingProxyType

import numpy as np
import pytest
from verification.helpers import Array, Rewriting, assert_told_apart

RANDOM = np.random.default_rng(5)
W = (RANDOM.standard_normal((8, 16, 3, 3)) / 12).astype(np.float32)
S = RANDOM.uniform(0.5, 1.5, 8).astype(np.float32)
FOLDED = W.astype(float) * S.astype(float).reshape(8, 1, 1, 1)
TENSORS = {"w": W, "s": S.reshape(8, 1, 1), "scaled": FOLDED.astype(np.float32)}
TENSORS |= {"off": (2 * FOLDED).astype(np.float32), "p": RANDOM.standard_normal((4, 8, 1, 1)).astype(np.float32)}
TENSORS |= {"idx": np.ones((4, 1, 7, 7), np.int64), "u": np.full((4, 1, 7, 7), 0.1, np.float32)}
TENSORS |= {"pads": np.array([0, 0, 1, 1, 0, 0, 1, 1]), "half": np.full((), 0.5, np.float32)}


def folded(
    what: str, rest: str, output: str, *, opset: int = 18, tensors: Mapping[str, Array] = MappingProxyType({})
) -> Rewriting:
    """A scale behind a Conv, folded into it, and what follows."""
    return Rewriting(
        what,
        f"n (float[4, 16, 9, 9] x) => ({output} y) {{ @ {rest} }}",
        *("~c = Conv (x, w) ~a = Mul (~c, s)", "~a = Conv (x, off)", "~a = Conv (x, scaled)"),
        opset=opset,
        tensors=TENSORS | dict(tensors),
    )


SCATTERS = [
    folded(
        f"ScatterElements of {name}",
        f'y = ScatterElements<axis = 1, reduction = "{name}"> (~a, idx, u)',
        "float[4, 8, 7, 7]",
    )
    for name in ("min", "max", "add", "mul")
]
INTEGERS = [
    folded(
        f"steps of {size:g}",
        "~b = Mul (~a, size) y = Cast<to = 7> (~b)",
        "int64[4, 8, 7, 7]",
        tensors={"size": np.full((), size, np.float32)},
    )
    for size in (1e4, 1e8)
]
OTHERS = [
    folded("root of zeros", "~r = Relu (~a) ~q = Sqrt (~r) y = Conv (~q, p)", "float[4, 4, 7, 7]"),
    folded(
        "a border of its own",
        "~b = Pad<pads = [0, 0, 1, 1, 0, 0, 1, 1], value = 0.5> (~a) y = Conv (~b, p)",
        "float[4, 4, 9, 9]",
        opset=10,
    ),
]


LABELS = {"w": W.astype(np.float16), "s": S.reshape(8, 1, 1).astype(np.float16)}
LABELS |= {"table": RANDOM.standard_normal((8, 5)).astype(np.float16)}
_EXACT = LABELS["w"].astype(float) * LABELS["s"].astype(float).reshape(8, 1, 1, 1)
LABELS |= {"scaled": _EXACT.astype(np.float16), "off": (_EXACT[::-1]).astype(np.float16)}
CHOICES = [
    Rewriting(
        "labels",
        "n (float16[4, 16, 33, 33] x) => (float16[4, 31, 31, 5] y) "
        "{ @ ~i = ArgMax<axis = 1, keepdims = 0> (~a) y = Gather (table, ~i) }",
        *("~c = Conv (x, w) ~a = Mul (~c, s)", "~a = Conv (x, off)", "~a = Conv (x, scaled)"),
        tensors=LABELS,
    ),
    folded(
        "steps",
        "~e = Sigmoid (~a) ~f = Mul (~e, seven) ~i = Cast<to = 7> (~f) y = Gather (table, ~i)",
        "float[4, 8, 7, 7, 5]",
        tensors={"table": RANDOM.standard_normal((8, 5)).astype(np.float32), "seven": np.full((), 7, np.float32)},
    ),
]


@pytest.mark.parametrize("case", [*SCATTERS, *INTEGERS, *OTHERS, *CHOICES], ids=str)
def test_right_and_wrong_are_told_apart(case):
    """Where the bound holds and is no wider than it has to be."""
    assert_told_apart(case)


@pytest.mark.parametrize(
    ("before", "wrong", "right"),
    [
        ("y = Mul<broadcast = 1, axis = 1> (x, v)", "y = Mul<broadcast = 1, axis = 3> (x, v)", "y = Mul (x, c)"),
        ("y = PRelu (x, v)", "y = PRelu (x, r)", "y = PRelu (x, c)"),
    ],
)
def test_the_axis_of_old_versions(before, wrong, right):
    """Before opset 7 an attribute says along which axis the second input is repeated."""
    v = np.linspace(0.1, 0.9, 8, dtype=np.float32)
    model, tensors = (
        "n (float[4, 8, 8, 8] x) => (float[4, 8, 8, 8] y) { @ }",
        {"v": v, "c": v.reshape(8, 1, 1), "r": v.reshape(1, 8)},
    )
    case = Rewriting("axis", model, before, wrong, right, 6, tensors)
    assert_told_apart(case)


TOKENS = {
    "w": RANDOM.standard_normal((6, 6)).astype(np.float32),
    "s": RANDOM.uniform(0.5, 1.5, 6).astype(np.float32),
}
TOKENS |= {
    "scaled": (TOKENS["w"].astype(float) * TOKENS["s"].astype(float)).astype(np.float32),
    "h0": np.zeros(6, np.float32),
}
TOKENS |= {"off": TOKENS["scaled"] * np.float32(1.05)}
SCAN = """n (float[4, 6] x) => (float[4, 6] y) {
  z, y = Scan<num_scan_inputs = 1, body = b (float[6] h, float[6] u) => (float[6] i, float[6] o) {
    @ ~g = Add (~a, h) i = Tanh (~g) o = Identity (i)
  }> (h0, x)
}"""
ATTENTION = """n (float[8, 6] x) => (float[8, 6] y) {
  @ ~t = Transpose (x) ~p = MatMul (~q, ~t) ~m = Softmax (~p) y = MatMul (~m, x)
}"""


@pytest.mark.parametrize(("model", "x", "y"), [(SCAN, "u", "~a"), (ATTENTION, "x", "~q")], ids=["Scan", "attention"])
def test_large_samples_do_not_hide_what_the_normal_one_says(model, x, y):
    """Where one sum takes in several samples, a Tanh or a Softmax behind it is at its end."""
    ways = f"~k = MatMul ({x}, w) {y} = Mul (~k, s)", f"{y} = MatMul ({x}, off)", f"{y} = MatMul ({x}, scaled)"
    case = Rewriting("samples", model, *ways, tensors=TOKENS)
    assert_told_apart(case)
