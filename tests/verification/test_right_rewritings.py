"""Rewritings that are right, and that a strict verifier is tempted to doubt."""

import numpy as np
import pytest
from verification.helpers import parsed

from bnfold.verification import Verdict, verify

MATRIX = {"w": np.arange(12, dtype=np.float32).reshape(4, 3) / 7}
MATRIX["double"] = 2 * MATRIX["w"]
BIAS = np.arange(32, dtype=np.float32) / 32
CELL = {
    "input_w": np.sin(np.arange(64, dtype=np.float32)).reshape(1, 16, 4),
    "state_w": np.cos(np.arange(64, dtype=np.float32)).reshape(1, 16, 4),
    "two_b": BIAS.reshape(1, 32),
    "one_b": np.concatenate([BIAS[:16] + BIAS[16:], np.zeros(16, np.float32)]).reshape(1, 32),
}

BRANCHES = "then_branch = t () => (float[2, N] a) {a = Neg (x)}, else_branch = e () => (float[2, N] b) {b = Mul (x, x)}"

UNREACHED = """n (float[N, 4] x, bool i) => (float[N, 4] y) <bool c = {{{}}}> {{
    r = If (c) <then_branch = t () => (float[N, 4] a) {{a = Neg (x)}}, else_branch = e () => (float[N, 4] b) {{@}}>
    y = Relu (r)}}"""
ELSE = {
    "is another": "b = Sin (x)",
    "rounds": "h = Cast <to = 10> (x) b = Cast <to = 1> (h)",
    "compares": "k = Constant <value_float = 77.0> () g = Greater (x, k) b = Cast <to = 1> (g)",
    "chooses from a table": "g = Cast <to = 7> (x) t = Constant <value_floats = [1.0, 2.0, 3.0]> () b = Gather (t, g)",
}

OVERRULED = """n (float[N, 4] x) => (float[N, 4] y) <float k = {0.7}, bool no = {0}, bool yes = {1}>
    {m = ReduceMax <keepdims = 0> (x) g = Greater (m, k) p = Greater (x, k) n = Neg (x) @}"""
CHOICE = "then_branch = t () => (float[N, 4] a) {a = Neg (x)}, else_branch = e () => (float[N, 4] b) {b = Mul (x, x)}"

RIGHT = [
    pytest.param(
        "n (float[N, 8] x) => (float[N, 8] y) <float k = {1e6}> {r = Relu (x) @}",
        ("s = Add (r, k) y = Sub (s, k)", "y = Identity (r)"),
        id="cancellation is gone: the noise is BEFORE's",
    ),
    pytest.param(
        "n (float[N, 4] x) => (float[N, 3] y) <float k = {0.3}> {@ y = Relu (s)}",
        ("r = MatMul (x, w) s = Mul (r, k)", "r = Mul (x, k) s = MatMul (r, w)"),
        id="a name is given to a value of another shape",
    ),
    pytest.param(
        "n (float[N, 4] x) => (float[N, 4] y) <int64[1] o = {0}> {@ y = Add (x, m)}",
        (
            "m = ReduceMean <axes = [0]> (x)",
            "k = Shape <start = 0, end = 1> (x) f = Cast <to = 1> (k) s = ReduceSum (x, o) m = Div (s, f)",
        ),
        id="a number is cast from a shape",
    ),
    pytest.param(
        """n (float[N, 3, 8, 8] x) => (float[N, 3, H, W] y)
           <float[2] one = {1, 1}, float[2] two = {2, 2}, float[4] all = {1, 1, 2, 2}> {@ y = Relu (r)}""",
        (
            'g = Concat <axis = 0> (one, two) r = Resize <mode = "linear"> (x, "", g)',
            'r = Resize <mode = "linear"> (x, "", all)',
        ),
        id="factors of a Resize are folded",
    ),
    pytest.param(
        "n (float[N, 4] x) => (float[N, 4] y) {@ y = Add (x, m)}",
        (
            "m = ReduceMean <axes = [0]> (x)",
            "t = Transpose <perm = [1, 0]> (x) a = ReduceMean <axes = [1]> (t) m = Transpose <perm = [1, 0]> (a)",
        ),
        id="another axis of a transposed value",
    ),
    pytest.param(
        "n (float[N, 4] x) => (float[4, N] y) {@}",
        (
            "t = Transpose <perm = [1, 0]> (x) m = ReduceMean <axes = [0]> (t) y = Sub (t, m)",
            "m = ReduceMean <axes = [1]> (x) s = Sub (x, m) y = Transpose <perm = [1, 0]> (s)",
        ),
        id="a Transpose that comes later",
    ),
    pytest.param(
        """n (float[N, 2, 2] x) => (float[N, 1, 3] y)
           <int64[3] rows = {0, 1, -1}, int64[2] flat = {-1, 4}, int64[1] three = {3}>
           {t = Transpose <perm = [0, 2, 1]> (x) r = Reshape (t, rows) @}""",
        (
            "y = MatMul (r, w)",
            """f = Reshape (t, flat) m = MatMul (f, w)
               s = Shape <end = 2> (r) k = Concat <axis = 0> (s, three) y = Reshape (m, k)""",
        ),
        id="AFTER alone reads what both read a Reshape of",
    ),
    pytest.param(
        """n (float[N, 2, 2] x) => (float[N, 1, 4] y)
           <int64[3] rows = {0, 1, -1}, int64[3] other = {-1, 1, 4}, float three = {3}>
           {t = Transpose <perm = [0, 2, 1]> (x) r = Reshape (t, rows) @}""",
        ("y = Mul (r, three)", "a = Add (r, r) q = Reshape (t, other) y = Add (a, q)"),
        id="AFTER reads that, and the Reshape as well",
    ),
    pytest.param(
        "n (float[N, 4] x) => (float[N, 3] y) <float k = {2}> {@ s = Shape (c) y = Reshape (r, s)}",
        ("c = MatMul (x, w) b = Mul (c, k) r = Relu (b)", "c = MatMul (x, double) r = Relu (c)"),
        id="a name that means something else now gives its shape",
    ),
    pytest.param(
        "n (float[N, 4, 3] x) => (float[N, 3] y) {r = Relu (x) @}",
        ("y = ReduceMean <axes = [-2], keepdims = 0> (r)", "y = ReduceMean <axes = [1], keepdims = 0> (r)"),
        id="axes are counted from the first one",
    ),
    pytest.param(
        "n (float[N, 4] x) => (float[N, 8] y) {@ a = Relu (r) y = Concat <axis = -1> (a, a)}",
        ("s = Sigmoid (x) r = Mul (x, s)", "r = com.microsoft.QuickGelu <alpha = 1.0> (x)"),
        id="an axis of what only BEFORE knows the shape of",
    ),
    pytest.param(
        "n (float x) => (float y) <float two = {2}, float four = {4}> {@}",
        ("a = Mul (x, two) b = Mul (a, two) y = Relu (b)", "a = Mul (x, four) y = Relu (a)"),
        id="a single number",
    ),
    pytest.param(
        "n (float[2, N] x) => (float[2, N] y) <int64 first = {0}> {@ y = Relu (r)}",
        (f"s = Shape (x) k = Gather (s, first) c = Cast <to = 9> (k) r = If (c) <{BRANCHES}>", "r = Neg (x)"),
        id="a branch that the declared sizes rule out",
    ),
    pytest.param(
        "n (float[2, N] x) => (float[2, N] y) <int64 first = {0}, float z = {0}> {m = ReduceMax <keepdims = 0> (x)"
        " g = Greater (m, z) r = If (g) <else_branch = o () => (float[2, N] p) {p = Abs (x)}, @> y = Relu (r)}",
        (
            "then_branch = t () => (float[2, N] q) {s = Shape (x) k = Gather (s, first) c = Cast <to = 9> (k)"
            f" q = If (c) <{BRANCHES}>}}",
            "then_branch = t () => (float[2, N] q) {q = Neg (x)}",
        ),
        id="the same within a branch",
    ),
    pytest.param(
        """n (float[N, 4] x) => (float[N, 4] y) <int64 last = {-1}, bool c = {1}>
           {@ f = Cast <to = 1> (k) y = Mul (r, f)}""",
        (
            "r = Neg (x) s = Shape (x) k = Gather (s, last)",
            f"r = If (c) <{BRANCHES}> s = Shape (r) k = Gather (s, last)",
        ),
        id="the shape of what a branch makes",
    ),
    pytest.param(
        """n (float[N, 1] x, bool c) => (float[M] y) <int64[1] k = {1}, float less = {-1}>
           {r = If (c) <else_branch = e () => (float[N, 1] b) {b = Mul (x, x)}, @> y = Squeeze (r, k)}""",
        (
            "then_branch = t () => (float[N, 1] a) {s = Squeeze (x, k) n = Neg (s) a = Unsqueeze (n, k)}",
            """then_branch = t () => (float[N, 1] a) <int64[1] k = {1}>
               {s = Squeeze (x, k) m = Mul (s, less) a = Unsqueeze (m, k)}""",
        ),
        id="an outer constant is in a branch again",
    ),
    pytest.param(
        "n (float[N, 4] x) => (float[N, 4] y) {@ y = Relu (x)}",
        ("d = Neg (x)", "d = Mul (x, x)"),
        id="a name of what no output needs",
    ),
    pytest.param(
        "n (float[N, 4] x) => (float[N, 4] y) {@}",
        ("d = Neg (x) y = Relu (x)", "d = Mul (x, x) s = Add (d, x) r = Sub (s, d) y = Relu (r)"),
        id="a name that is needed in AFTER alone",
    ),
    pytest.param(
        "n (float[N, 4] x) => (float[N, 4] y) {@}",
        ("d = Neg (x) y = Relu (d)", "d = Mul (x, x) e = Sub (x, x) r = Sub (e, x) y = Relu (r)"),
        id="a name that is needed in BEFORE alone",
    ),
    pytest.param(
        "n (float[N, 4] x, bool i) => (float[N, 4] y) {@ y = Relu (r)}",
        (
            "c = Identity (i) r = If (c) <then_branch = t () => (float[N, 4] a) {a = Neg (x)}, "
            "else_branch = e () => (float[N, 4] b) {b = Mul (x, x)}>",
            "c = Not (i) r = If (c) <then_branch = t () => (float[N, 4] a) {a = Mul (x, x)}, "
            "else_branch = e () => (float[N, 4] b) {b = Neg (x)}>",
        ),
        id="a condition is negated under its name, and the branches change places",
    ),
    pytest.param(
        "n (float[6, N, 4] x) => (float[6, 1, N, 4] y) {@}",
        tuple(f"y = LSTM <hidden_size = 4> (x, input_w, state_w, {bias})" for bias in ("two_b", "one_b")),
        id="two biases of an LSTM are added up",
    ),
    pytest.param(
        "n (float[6, N, 4] x) => (float[6, 1, N, 4] y) {@}",
        tuple(
            f"y = LSTM <hidden_size = 4{usual}> (x, input_w, state_w, one_b)"
            for usual in ("", ', activations = ["Sigmoid", "Tanh", "Tanh"]')
        ),
        id="the activations of an LSTM are the usual ones",
    ),
    pytest.param(
        """n (float[N, 3, H, W] x) => (float[N, 3, P, Q] y) <int64[8] pads = {0, 0, -1, 1, 0, 0, 1, -2},
           int64[8] rest = {0, 0, 0, 1, 0, 0, 1, 0}, int64[2] from = {1, 0}, int64[2] to = {1099511627776, -2},
           int64[2] axes = {2, 3}> {@ y = Relu (r)}""",
        ("r = Pad (x, pads)", "s = Slice (x, from, to, axes) r = Pad (s, rest)"),
        id="a Pad that takes away",
    ),
    *(
        pytest.param(OVERRULED, parts, id=f"{what} that is overruled, of {type_}")
        for what, type_, parts in (
            ("an And", "a Where", ("c = And (p, no) y = Where (c, n, x)", "y = Identity (x)")),
            ("an Or", "a Where", ("c = Or (p, yes) y = Where (c, n, x)", "y = Neg (x)")),
            ("an And", "an If", (f"c = And (g, no) y = If (c) <{CHOICE}>", "y = Mul (x, x)")),
            ("an Or", "an If", (f"d = Or (yes, g) c = Not (d) y = If (c) <{CHOICE}>", "y = Mul (x, x)")),
        )
    ),
    pytest.param(
        "n (float[2, N] x) => (float[2, N] y) <int64 o = {1}, int64 big = {300}> {s = Shape (x) k = Gather (s, o) @}",
        (
            f"c = Greater (k, big) y = If (c) <{BRANCHES}>",
            f"c = LessOrEqual (k, big) d = Not (c) y = If (d) <{BRANCHES}>",
        ),
        id="a condition on an open size is negated twice",
    ),
    *(
        pytest.param(UNREACHED.format(1), ("b = Exp (x)", part), id=f"a branch that is never taken {what}")
        for what, part in ELSE.items()
    ),
]


@pytest.mark.parametrize("part", ELSE.values(), ids=ELSE)
@pytest.mark.parametrize("condition", ["constant", "data"], ids=["is taken", "may be"])
def test_a_branch_that_counts(part, condition):
    """The same, but that the branch is taken, or the data says whether it is."""
    frame = UNREACHED.format(0) if condition == "constant" else UNREACHED.format(1).replace("If (c)", "If (i)")
    before, after = (parsed(frame.replace("@", text)) for text in ("b = Exp (x)", part))
    assert not verify(before, after, run=False)


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("d = Identity (x) y = Relu (x)", "d = Mul (x, k) y = Relu (d)"),
        ("d = Identity (x) y = Relu (d)", "d = Mul (x, k) y = Relu (d)"),
        ("d = Neg (x) y = Relu (d)", "d = Mul (x, l) y = Relu (d)"),
        ("d = Neg (x) y = Relu (x)", "d = Mul (x, k) y = Relu (d)"),
    ],
)
def test_a_name_is_no_excuse(before, after):
    """What it stands for may be another value, but then that has to be made up for."""
    frame = "n (float[N, 4] x) => (float[N, 4] y) <float k = {1.00001}, float l = {-1.00001}> {@}"
    result = verify(*(parsed(frame.replace("@", part)) for part in (before, after)), run=False)
    assert result.verdict is Verdict.DIFFERENT


@pytest.mark.parametrize(("frame", "nodes"), RIGHT)
def test_right_rewritings_are_equal(frame, nodes):
    """Region by region, with nothing left out."""
    before, after = (parsed(frame.replace("@", part), 17, CELL | MATRIX) for part in nodes)
    result = verify(before, after, run=False)
    assert result.verdict is Verdict.EQUIVALENT
    assert result.complete


@pytest.mark.parametrize("way", ["s = Shape (a)", "t = Transpose <perm = [0, 1]> (a) s = Shape (t)"])
def test_what_is_read_for_its_shape_alone_is_not_opened(way):
    """It may hold anything, so the region need not reach back to what all of its border is made of."""
    frame = "n (float[N, 4] x) => (float[N, 4] y) {a = Neg (x) b = Exp (a) @}"
    nodes = f"c = Sin (b) {way} y = Reshape (c, s)", "y = Sin (b)"
    (region,) = verify(*(parsed(frame.replace("@", part)) for part in nodes), run=False).regions
    assert {name.split()[0] for name in region.operators} <= {"Transpose", "Shape", "Sin", "Reshape"}


SPELT_OUT = """m = ReduceMean <axes = [-1]> (x) d = Sub (x, m) q = Pow (d, two) v = ReduceMean <axes = [-1]> (q)
               e = Add (v, epsilon) r = Sqrt (e) n = Div (d, r) s = Mul (n, w) y = Add (s, b)"""


@pytest.mark.parametrize("dtype", ["float", "float16"])
@pytest.mark.parametrize(("epsilon", "verdict"), [(1e-5, Verdict.EQUIVALENT), (2e-5, Verdict.DIFFERENT)])
def test_a_norm_that_was_spelt_out(dtype, epsilon, verdict):
    """Its epsilon counts: nobody rounds a whole exponent, with which the roots of negative numbers would be none."""
    random, kind = np.random.default_rng(0), np.float16 if dtype == "float16" else np.float32
    tensors = {"w": random.uniform(0.5, 1.5, 8), "b": random.standard_normal(8), "two": 2.0, "epsilon": 1e-5}
    tensors = {name: np.asarray(array, kind) for name, array in tensors.items()}
    model = f"n ({dtype}[N, 5, 8] x) => ({dtype}[N, 5, 8] y) {{{{ {{}} }}}}"
    fused = f"l = LayerNormalization <epsilon = {epsilon}> (x, w, b) y = Identity (l)"
    before, after = (parsed(model.format(part), 17, tensors) for part in (SPELT_OUT, fused))
    assert verify(before, after, run=False).verdict is verdict


@pytest.mark.parametrize("first", [0, 1], ids=["calm first", "wild first"])
def test_noise_of_one_sample_excuses_no_other(first):
    """A sample on which the output is all noise, and one on which it is not: that one counts, in either order."""
    random = np.random.default_rng(0)
    samples = [{"x": (size * random.standard_normal((4, 8))).astype(np.float32)} for size in (0.01, 1e6)]
    frame = "n (float[N, 8] x) => (float[N, 8] y) <float k = {3.3}, float j = {7.7}, float g = {25.42}> {@ y = Sin (b)}"
    before = parsed(frame.replace("@", "a = Mul (x, k) b = Mul (a, j)"))
    result = verify(before, parsed(frame.replace("@", "b = Mul (x, g)")), data=[samples[first], samples[1 - first]])
    assert not result.outputs[0].passed
