"""What is rounding, and what only looks like it: beside huge numbers, few steps apart, or where no value comes near."""

import numpy as np
import pytest
from verification.helpers import Rewriting, assert_told_apart

from bnfold.verification import Verdict, verify

RANDOM = np.random.default_rng(1)
FLOAT_MIN = np.finfo(np.float32).min
Q, K, V, OUT = (RANDOM.standard_normal((16, 16)).astype(np.float32) / 4 for _ in range(4))
SCALE = np.float32(0.3)
ATTENTION = {"q": Q, "k": K, "v": V, "o": OUT, "scale": SCALE, "big": FLOAT_MIN, "one": np.float32(1), "qs": Q * SCALE}
MASKED = """n (float[N, 8, 16] x, bool[N, 1, 8] m) => (float[N, 8, 16] y) {
    b = MatMul (x, k) c = MatMul (x, v) t = Transpose <perm = [0, 2, 1]> (b) @
}"""
ATTEND = "w = Where (m, ~s, big) p = Softmax (w) z = MatMul (p, c) y = MatMul (z, o)"
STEP = np.float32(1e-3)
W = RANDOM.standard_normal((4, 3, 3, 3)).astype(np.float32)
GAIN, MEAN = RANDOM.uniform(0.5, 2, 4).astype(np.float32), RANDOM.standard_normal(4).astype(np.float32)
CONV = {"w": W, "gain": GAIN, "mean": MEAN, "none": np.zeros(4, np.float32), "unit": np.ones(4, np.float32)}
CONV |= {"folded": W * GAIN.reshape(4, 1, 1, 1), "shift": -MEAN * GAIN, "off": -MEAN * GAIN + 4 * STEP, "step": STEP}
INTEGERS = RANDOM.integers(1, 9, (8, 4)).astype(np.int32)
TENTH = np.float32(0.1)
HALVES = {"w": W[:, :, :1, :1].astype(np.float16), "s": GAIN.astype(np.float16).reshape(4, 1, 1)}
HALVES |= {"last": np.array([3])}
CAST = (
    "a = Cast <to = 1> (w) b = Cast <to = 1> (s) c = Unsqueeze (b, last) d = @ ~w = Cast <to = 10> (d) y = Conv (x, ~w)"
)

HUGE = [
    Rewriting(
        "beside a mask of finfo.min",
        """n (float[N, 6, 16] x, bool[N, 6, 16] m) => (float[N, 6, 16] y) <float f = {1.0}, float g = {0.6}>
           {~q = MatMul (x, q) @ ~w = Where (m, big, ~s) y = Softmax (~w)}""",
        *("~s = Mul (~q, f)", "~s = Mul (~q, g)", "~s = Div (~q, f)"),
        tensors=ATTENTION,
    ),
    Rewriting(
        "scale of an attention in its weights",
        MASKED,
        f"~q = MatMul (x, q) ~r = MatMul (~q, t) ~s = Mul (~r, scale) {ATTEND}",
        f"~q = MatMul (x, most) ~s = MatMul (~q, t) {ATTEND}",
        f"~q = MatMul (x, qs) ~s = MatMul (~q, t) {ATTEND}",
        tensors={**ATTENTION, "most": Q * SCALE * np.float32(1.3)},
    ),
    Rewriting(
        "two weights of an attention",
        MASKED,
        f"a = MatMul (x, q) r = MatMul (a, t) s = Mul (r, scale) {ATTEND.replace('~', '')}",
        f"a = MatMul (x, more) r = MatMul (a, t) s = Mul (r, scale) {ATTEND.replace('~', '').replace('o)', 'less)')}",
        f"a = MatMul (x, q) f = Mul (a, scale) s = MatMul (f, t) {ATTEND.replace('~', '')}",
        tensors={**ATTENTION, "more": Q * np.float32(1.2), "less": OUT * np.float32(0.9)},
    ),
    Rewriting(
        "numbers that cancel",
        """n (float[N, 8] x) => (float[N, 8] y) <float c = {4194304}, float d = {4194303}, float f = {100}>
           {r = Relu (x) z = Add (r, f) @}""",
        *("y = Identity (z)", "u = Add (z, c) y = Sub (u, d)", "u = Neg (z) y = Neg (u)"),
    ),
    Rewriting(
        "bounds that no usual value reaches",
        """n (float[N, 8] x) => (float[N, 8] y)
           <float h = {65504}, float l = {-65504}, float i = {1e30}, float j = {-1e30}> {@}""",
        *("y = Clip (x, l, h)", "y = Clip (x, j, i)", "t = Min (x, h) y = Max (t, l)"),
    ),
    Rewriting(
        "bounds between two factors",
        """n (float[N, 8] x) => (float[N, 8] y)
           <float one = {1}, float two = {2}, float half = {0.5},
            float h = {1e5}, float l = {-1e5}, float g = {2e5}, float k = {-2e5}> {@}""",
        "a = Mul (x, one) c = Clip (a, l, h) y = Mul (c, one)",
        "a = Mul (x, two) c = Clip (a, l, h) y = Mul (c, half)",
        "a = Mul (x, two) c = Clip (a, k, g) y = Mul (c, half)",
    ),
]

SMALL = [
    Rewriting(
        "coefficient of a GELU",
        """n (float[N, 4, 16] x) => (float[N, 4, 16] y)
           <float k = {0.044715}, float j = {0.0435}, float c = {0.79788456}, float one = {1}, float half = {0.5}> {
           ~sq = Mul (x, x) @ ~b = Mul (~a, c) ~t = Tanh (~b) ~u = Add (~t, one) ~v = Mul (x, ~u) y = Mul (~v, half)}
        """,
        "~cu = Mul (~sq, x) ~k = Mul (~cu, k) ~a = Add (x, ~k)",
        "~cu = Mul (~sq, x) ~k = Mul (~cu, j) ~a = Add (x, ~k)",
        "~k = Mul (~sq, k) ~f = Add (~k, one) ~a = Mul (x, ~f)",
    ),
    Rewriting(
        "epsilon of a layer normalisation",
        """n (float[N, 4, 32] x) => (float[N, 4, 32] y)
           <float e = {1e-5}, float d = {1e-12}, float two = {2}, float half = {0.5}> {
           ~m = ReduceMean <axes = [-1]> (x) ~d = Sub (x, ~m) ~q = Pow (~d, two) ~v = ReduceMean <axes = [-1]> (~q)
           @ ~n = Div (~d, ~s) y = Relu (~n)}""",
        "~e = Add (~v, e) ~s = Sqrt (~e)",
        "~e = Add (~v, d) ~s = Sqrt (~e)",
        "~e = Add (~v, e) ~s = Pow (~e, half)",
    ),
    Rewriting(
        "few steps of a quantisation",
        """n (float[N, 3, 16, 16] x) => (float[N, 4, 16, 16] y) <int16 o = {0}> {
           @ ~q = QuantizeLinear (~n, step, o) y = DequantizeLinear (~q, step, o)}""",
        "~c = Conv <pads = [1, 1, 1, 1]> (x, w) ~n = BatchNormalization <epsilon = 0.0> (~c, gain, none, mean, unit)",
        "~n = Conv <pads = [1, 1, 1, 1]> (x, folded, off)",
        "~n = Conv <pads = [1, 1, 1, 1]> (x, folded, shift)",
        opset=21,
        tensors=CONV,
    ),
    Rewriting(
        "one step of a quantised weight",
        "n (float[N, 8] x) => (float[N, 4] y) {@}",
        "~w = DequantizeLinear (w, s) y = MatMul (x, ~w)",
        "~w = DequantizeLinear (off, s) y = MatMul (x, ~w)",
        "y = MatMul (x, real)",
        tensors={"w": INTEGERS, "off": INTEGERS + (np.arange(4) == 0), "s": TENTH, "real": INTEGERS * TENTH},
    ),
    Rewriting(
        "doubles computed as floats",
        "n (double[N, 8] x) => (double[N, 8] y) <double c = {1e5}, float d = {1e5}> {@}",
        "~u = Add (x, c) y = Sub (~u, c)",
        "~h = Cast <to = 1> (x) ~u = Add (~h, d) ~v = Sub (~u, d) y = Cast <to = 11> (~v)",
        "~u = Sub (x, c) y = Add (~u, c)",
    ),
    Rewriting(
        "weights multiplied and rounded to half precision at run time",
        "n (float16[N, 3, 8, 8] x) => (float16[N, 4, 8, 8] y) {@}",
        "~c = Conv (x, w) y = Mul (~c, s)",
        CAST.replace("@", "Div (a, c)"),
        CAST.replace("@", "Mul (a, c)"),
        tensors=HALVES,
    ),
    Rewriting(
        "factor of a single number",
        """n (float[N, 4] x) => (float y) <float f = {1}, float g = {1.0000001}, float h = {1.001}>
           {~s = ReduceSum <keepdims = 0> (x) y = Mul (~s, @)}""",
        *("f", "h", "g"),
    ),
]

RANGES = [
    Rewriting(
        "negative slope beside a root",
        """n (float[N, 8] x, float[N, 8] z, float[N, 8] u) => (float[N, 8] y)
           <float f = {0.5}, float g = {0.50000006}> {m = Min (x, z) @ y = Add (~r, ~a)}""",
        "~s = Sub (m, f) ~r = Sqrt (~s) ~a = LeakyRelu <alpha = 0.1> (u)",
        "~s = Sub (m, g) ~r = Sqrt (~s) ~a = LeakyRelu <alpha = 0.6> (u)",
        "~s = Sub (m, g) ~r = Sqrt (~s) ~a = LeakyRelu <alpha = 0.1> (u)",
    ),
    Rewriting(
        "Relu of what is positive",
        "n (float[N, 4] x) => (float[N, 4] y) {s = Sigmoid (x) @}",
        *("~r = Relu (s) y = MatMul (~r, w)", "~r = Neg (s) y = MatMul (~r, w)", "y = MatMul (s, w)"),
        tensors={"w": RANDOM.standard_normal((4, 4)).astype(np.float32)},
    ),
]
CASES = [*HUGE, *SMALL, *RANGES]


@pytest.mark.parametrize("case", CASES, ids=str)
def test_a_difference_is_found(case):
    """And none in the correct twin."""
    assert_told_apart(case)


def test_the_sizes_of_a_resize_are_not_rounded():
    """A factor that was a product of constants: half an ulp less would make the output a pixel smaller."""
    model = """n (float[N, 3, 8, 8] x) => (float[N, 3, H, W] y)
               <float[2] one = {1, 1}, float[2] two = {2, 2}, float[4] f = {1, 1, 2, 2}> {@ y = Relu (r)}"""
    before = 'g = Concat <axis = 0> (one, two) r = Resize <mode = "linear"> (x, "", g)'
    after = 'r = Resize <mode = "linear"> (x, "", f)'
    assert verify(*Rewriting("", model, before, wrong="", right=after).rightly()).verdict is Verdict.EQUIVALENT


def test_a_bound_that_tells_nothing_is_not_equal():
    """A number that cancels is rounded to hundreds: whatever is beside it, rounding would explain."""
    model = "n (float[N, 8] x) => (float[N, 8] y) <float c = {3333333333}> {r = Relu (x) @}"
    case = Rewriting("", model, "y = Identity (r)", wrong="u = Add (r, c) y = Sub (u, c)", right="y = Relu (r)")
    result = verify(*case.wrongly(), run=False)
    assert result.verdict is Verdict.NOT_VERIFIED
    assert "rounding explains" in result.reasons[-1]
    assert verify(*case.rightly(), run=False).verdict is Verdict.EQUIVALENT


def test_the_same_pair_has_the_same_figures():
    """Nothing is drawn at random."""
    first, second = (verify(*CASES[1].rightly(), run=False).regions for _ in range(2))
    assert first == second


def test_a_norm_of_weights_that_is_folded_in_low_precision():
    """Its further outputs, which nothing reads, are not computed, and so not rounded either."""
    w, gain = RANDOM.standard_normal((4, 3)).astype(np.float32), RANDOM.uniform(0.5, 2, 3).astype(np.float32)
    normal = ((w - w.mean(axis=0)) / np.sqrt(w.var(axis=0) + np.float32(1e-5)) * gain).astype(np.float32)
    case = Rewriting(
        "",
        "n (float[4, 3] x) => (float[4, 3] y) { @ r = Relu (~n) y = Add (x, r) }",
        "~n, ~m, ~v = BatchNormalization <training_mode = 1> (w, gain, none, none, unit)",
        "",
        "~n = Identity (normal)",
        tensors={
            "w": w,
            "gain": gain,
            "none": np.zeros(3, np.float32),
            "unit": np.ones(3, np.float32),
            "normal": normal,
        },
    )
    result = verify(*case.rightly(), run=False)
    assert result.verdict is Verdict.EQUIVALENT
    assert result.regions[0].detail == "folded in low precision"
