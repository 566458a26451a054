"""What shows at some sizes, or for some integers, and not at those that come first to mind."""

import numpy as np
import pytest
from verification.helpers import Rewriting, assert_told_apart

RANDOM = np.random.default_rng(0)
TABLE = RANDOM.standard_normal((3000, 4)).astype(np.float32)
TWICE = 1.7 * TABLE
SOME_ROWS, MOST_ROWS, TAIL = (TWICE.copy() for _ in range(3))
SOME_ROWS[[11, 1500, 2999]] *= 3
MOST_ROWS[4:] *= -1
TAIL[1000:] = 0
TABLES = {"table": TABLE, "twice": TWICE, "some": SOME_ROWS, "most": MOST_ROWS, "tail": TAIL}
KERNEL = RANDOM.standard_normal((2, 1, 5, 5)).astype(np.float32)
SCALED = KERNEL * np.array([1.1, 0.7], np.float32).reshape(2, 1, 1, 1)
RIM = SCALED.copy()
RIM[1, 0, 4, 0] *= 1.01
KERNELS = {"kernel": KERNEL, "scaled": SCALED, "rim": RIM, "scale": np.array([[1.1], [0.7]], np.float32)[..., None]}

CASES = [
    Rewriting(
        "batch cut at three",
        """n (float[N, 3] x) => (float[M, 3] y) <int64[1] o = {0}, int64[1] end = {@}>
           {t = Slice (x, o, end, o) y = Relu (t)}""",
        *("1099511627776", "3", "9223372036854775807"),
    ),
    Rewriting(
        "mean over a batch of two",
        "n (float[N, 4] x) => (float[N, 4] y) <int64[1] o = {0}, float h = {0.5}> {@ y = Add(x, m)}",
        "m = ReduceMean <axes = [0]> (x)",
        "s = ReduceSum (x, o) m = Mul (s, h)",
        "z = Sub (x, x) e = Exp (z) k = ReduceSum (e, o) s = ReduceSum (x, o) m = Div (s, k)",
    ),
    Rewriting(
        "branch for large images",
        """n (float[N, 3, H, W] x) => (float[N, 3, H, W] y) <int64 limit = {300}, float two = {2.0}> {
            k = Shape <start = 2, end = 3> (x) h = Squeeze (k) small = Less (h, limit)
            y = If (small) <then_branch = t () => (float[N, 3, H, W] a) {a = Neg (x)},
                            else_branch = e () => (float[N, 3, H, W] b) {@}>
        }""",
        *("b = Mul (x, two)", "b = Div (x, two)", "b = Add (x, x)"),
    ),
    Rewriting(
        "shapes folded to constants",
        """n (float[1, 3, 64, 64] x) => (float[1, 5, 256] y) <int64[1] o = {0}, int64[1] two = {2},
           int64[1] rest = {-1}, int64[3] all = {1, 5, -1}> {c = Conv <strides = [4, 4]> (x, w) @}""",
        "k = Shape (c) head = Slice (k, o, two) shape = Concat <axis = 0> (head, rest) y = Reshape (c, shape)",
        "t = Transpose <perm = [0, 1, 3, 2]> (c) y = Reshape (t, all)",
        "y = Reshape (c, all)",
        tensors={"w": RANDOM.standard_normal((5, 3, 4, 4)).astype(np.float32)},
    ),
    Rewriting(
        "some rows of a table",
        "n (int64[N, S] i) => (float[N, S, 4] y) <float k = {1.7}> {@}",
        *("~ = Gather (table, i) y = Mul (~, k)", "y = Gather (some, i)", "y = Gather (twice, i)"),
        tensors=TABLES,
    ),
    Rewriting(
        "rows behind arithmetic on the index",
        "n (int64[N, S] i) => (float[N, S, 4] y) <float k = {1.7}, int64 two = {2}> {j = Add (i, two) @}",
        *("~ = Gather (table, j) y = Mul (~, k)", "y = Gather (most, j)", "y = Gather (twice, j)"),
        tensors=TABLES,
    ),
    Rewriting(
        "integers confined to truths",
        """n (float[N, 4] x, int64[N, 1] i) => (float[N, 4] y) <int64 o = {0}, int64 l = {1}>
           {@ f = Cast <to = 1> (j) y = Mul (x, f)}""",
        *("j = Identity (i)", "j = Clip (i, o, l)", "j = Add (i, o)"),
    ),
    Rewriting(
        "negative indices",
        """n (int64[N] i) => (float[N] y) <float[4] w = {1, 2, 3, 4}, int64 o = {0}, int64 l = {3}>
           {@ y = Gather (w, j)}""",
        *("j = Identity (i)", "j = Clip (i, o, l)", "j = Add (i, o)"),
    ),
    Rewriting(
        "integers of 16 bits",
        "n (float[N, 4] x) => (float[N, 4] y) {j = Cast <to = @> (x) y = Cast <to = 1> (j)}",
        *("6", "5", "7"),
    ),
    Rewriting(
        "rim of a padded kernel, deep in a net of declared size",
        """n (float[1, 2, 224, 224] x) => (float[1, 2, 7, 7] y) {
            p = MaxPool <kernel_shape = [4, 4], strides = [4, 4]> (x)
            q = MaxPool <kernel_shape = [8, 8], strides = [8, 8]> (p) @
        }""",
        "c = Conv <group = 2, pads = [2, 2, 2, 2]> (q, kernel) y = Mul (c, scale)",
        "y = Conv <group = 2, pads = [2, 2, 2, 2]> (q, rim)",
        "y = Conv <group = 2, pads = [2, 2, 2, 2]> (q, scaled)",
        tensors=KERNELS,
    ),
    Rewriting(
        "padding at the declared size, which is even",
        "n (float[1, 1, 224, 224] x) => (float[1, 2, 112, 112] y) { y = Conv <strides = [2, 2], @> (x, kernel) }",
        *('auto_pad = "SAME_UPPER"', 'auto_pad = "SAME_LOWER"', "pads = [1, 1, 2, 2]"),
        tensors=KERNELS,
    ),
    Rewriting(
        "padding at odd sizes of a single sample",
        "n (float[1, 1, H, W] x) => (float[1, 2, h, v] y) { @ }",
        'y = Conv <strides = [2, 2], auto_pad = "SAME_UPPER"> (x, kernel)',
        "y = Conv <strides = [2, 2], pads = [1, 1, 2, 2]> (x, kernel)",
        '~c = Conv <strides = [2, 2], auto_pad = "SAME_UPPER"> (x, kernel) y = Identity (~c)',
        tensors=KERNELS,
    ),
]


@pytest.mark.parametrize("case", CASES, ids=str)
def test_a_difference_is_found(case):
    """And none in the correct twin."""
    assert_told_apart(case)


def test_far_rows_are_not_passed_over():
    """A table cut to the length of a sequence: it is compared at that of the table."""
    model = """n (float[N, S, 4] x) => (float[N, S, 4] y) <int64[1] o = {0}>
               {k = Shape <start = 1, end = 2> (x) t = Slice (@, o, k, o) y = Add (x, t)}"""
    case = Rewriting("tail", model, "twice", "tail", "twice", tensors=TABLES)
    assert_told_apart(case)


@pytest.mark.parametrize("sizes", ["1, 3, 224, 224", "N, 3, 224, W", "N, 3, H, W"])
@pytest.mark.parametrize(
    "choice",
    [
        "~r = Where (c, ~a, ~b)",
        """~r = If (c) <then_branch = t () => (float[P, Q, R, S] ~v) {~v = Identity (~a)},
                        else_branch = e () => (float[P, Q, R, S] ~w) {~w = Identity (~b)}>""",
    ],
    ids=["Where", "If"],
)
def test_what_is_done_at_large_sizes_alone(choice, sizes):
    """No small size is 200, which both sides know, so that they differ in nothing but the factor."""
    numbers = "<int64 two = {2}, int64 limit = {200}, float f = {-1}, float g = {-1.5}>"
    model = f"""n (float[{sizes}] x) => (float[O, P, Q, R] y) {numbers} {{
        s = Shape (x) k = Gather (s, two) c = Greater (k, limit) @ ~b = Mul (x, x) {choice} y = Relu (~r) }}"""
    assert_told_apart(Rewriting("", model, "~a = Mul (x, f)", "~a = Mul (x, g)", "~a = Neg (x)"))


def test_sizes_that_are_equal_as_declared_alone():
    """At small sizes, they are others on purpose."""
    model = """n (float[1, 3, 224, 224] x) => (float[O, P, Q, R] y) <int64 two = {2}, int64 last = {3}, float f = {-1},
        float g = {-1.5}> { s = Shape (x) h = Gather (s, two) w = Gather (s, last) c = Equal (h, w) @
        ~b = Mul (x, x) ~r = Where (c, ~a, ~b) y = Relu (~r) }"""
    assert_told_apart(Rewriting("", model, "~a = Mul (x, f)", "~a = Mul (x, g)", "~a = Neg (x)"))
