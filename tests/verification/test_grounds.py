"""What the verdict rests on: equal numbers, values that may be anything, and sizes that stand for all others."""

import numpy as np
import pytest
from verification.helpers import Rewriting, assert_told_apart, parsed

from bnfold.verification import Verdict, verify

NUMBERS = {"axis": np.array([1]), "none": np.float32(0), "two": np.array([2]), "start": np.int64(0)}
NUMBERS |= {"sizes": np.array([0, 224, 8]), "long": np.float32(224), "one": np.int64(1), "full": np.array([33])}
NUMBERS |= {"kernel": np.eye(8, dtype=np.float32), "row": np.arange(8, dtype=np.float32)}
NUMBERS |= {"rows": np.tile(NUMBERS["row"], (224, 1))}
LOOPS = """n (int64 m, float[3] v) => (float[3] y) {{ c = Constant <value = bool {{1}}> ()
    y = Loop (m, c, v) <body = outer (int64 i, bool d, float[3] w) => (bool e, float[3] x) {{ e = Identity (d)
        r = Loop (m, c, v) <body = inner (int64 j, bool f, float[3] s) => (bool g, float[3] t) {{ {} }}>
        x = Add (r, w) }}> }}"""
DRAWN = """= Loop (m, c, v) <body = b (int64 i, bool d, float[3] w) => (bool e, float[3] x)
    { r = RandomNormal <shape = [3]> () x = Add (r, w) e = Identity (d) }>"""
COUNTED = """n (float[4, 4] x) => (float y, float[2, M] f) {
    p = Abs (x) ~i = NonZero (p) f = Cast <to = 1> (~i) @ y = Cast <to = 1> (~s) }"""
BRANCHES = """If (~c) <then_branch = t () => (float[4, 4] p) { p = Sin (x) },
    else_branch = e () => (float[4, 4] q) { q = Cos (x) }>"""
ANY = (
    "~i = Cast <to = {}> (mask) ~r = ReduceMax <{}> (~i) ~b = Cast <to = 9> (~r) ~s = Sin (x) y = Where (~b, ~s, none)"
)
MASKED = "n (float[N, 40] x, {} mask) => (float[N, 40] y) {{ @ }}"
LONG = "n (float[N, T, 8] x) => (float[N, T, 8] y) { @ }"
POOLS = "n (float[N, 3, H, W] x) => (float[N, 3, P, Q] y) { @ }"
PAIR = "n (float[S, 8] x, float[T, 8] z) => (float[S, 8] y) { @ }"
OF_SIZE = "~l = Shape <start = {}, end = {}> (x) {} ~b = Cast <to = 9> (~m) ~s = Sin (x) y = Where (~b, ~s, none)"
OF_ONE = "~h = Shape (x) ~l = Gather (~h, {}) {} ~b = Cast <to = 9> (~m) ~s = Sin (x) y = Where (~b, ~s, none)"
LENGTH = "~l = Shape <start = {}, end = {}> ({}) ~f = Cast <to = 1> (~l) "
EQUAL = """~d = Sub ({}) ~a = Abs (~d) ~r = ReduceMax <axes = [1]> (~a) ~b = Cast <to = 9> (~r)
    y = Where (~b, x, none)"""
PADDED = """~h = Shape <start = 2, end = 3> (x) ~d = Mod (~h, step) ~e = Sub (step, ~d) {}
    ~p = Concat <axis = 0> (zeros, ~g, zero) y = Pad (x, ~p)"""
NUMBERS |= {"step": np.array([9]), "zeros": np.zeros(6, int), "zero": np.array([0]), "half": np.float32(0.5)}


def case(what: str, model: str, before: str, wrong: str, right: str, opset: int = 17) -> Rewriting:
    return Rewriting(what, model, before, wrong, right, opset, NUMBERS)


def pools(*windows: str) -> str:
    names = ["x", *(f"~{place}" for place in range(len(windows) - 1)), "y"]
    return " ".join(f"{names[k + 1]} = MaxPool <{window}> ({names[k]})" for k, window in enumerate(windows))


NARROW, WIDE = (f"kernel_shape = [2, 2], strides = [2, 2], pads = [0, 0, {end}, {end}]" for end in (0, 1))
NEAR, FAR = (f"kernel_shape = [3, 3], strides = [2, 2], pads = [1, 1, {end}, {end}]" for end in (1, 2))
CASES = [
    case(
        "a Loop in one that reads the same",
        LOOPS.format("@"),
        "k = Sin (w) t = Add (s, k) g = Identity (f)",
        "k = Sin (s) t = Add (s, k) g = Identity (f)",
        "k = Sin (w) t = Add (k, s) g = Identity (f)",
    ),
    case("how many are not zero", COUNTED, "~s = Size (f)", "~z = Size (x) ~s = Add (~z, ~z)", "~s = Size (~i)"),
    case(
        "every truth of a sample",
        MASKED.format("bool[N, 40]"),
        *(ANY.format(6, "axes = [1]"), "y = Sin (x)", ANY.format(7, "axes = [1]")),
    ),
    case(
        "all truths",
        MASKED.format("bool[40, 40]"),
        *(ANY.format(6, "keepdims = 0"), "y = Sin (x)", ANY.format(7, "keepdims = 0")),
    ),
    case(
        "every integer",
        MASKED.format("int64[N, 40]"),
        *(ANY.format(6, "axes = [1]"), "y = Sin (x)", ANY.format(7, "axes = [1]")),
    ),
    case(
        "every number of one of two",
        MASKED.format("float[N, 40]"),
        *(ANY.format(1, "axes = [1]"), "y = Sin (x)", ANY.format(11, "axes = [1]")),
    ),
    case(
        "two that are equal throughout",
        MASKED.format("float[N, 40]"),
        EQUAL.format("x, mask"),
        "y = Identity (x)",
        EQUAL.format("mask, x"),
    ),
    case(
        "a length that is known by heart",
        LONG,
        *(LENGTH.format(1, 2, "x") + "y = Div (x, ~f)", "y = Div (x, long)"),
        LENGTH.format(1, 2, "x") + "~r = Reciprocal (~f) y = Mul (x, ~r)",
    ),
    case(
        "two lengths",
        PAIR,
        *(LENGTH.format(0, 1, "z") + "y = Div (x, ~f)", LENGTH.format(0, 1, "x") + "y = Div (x, ~f)"),
        LENGTH.format(0, 1, "z") + "~r = Reciprocal (~f) y = Mul (x, ~r)",
    ),
    case(
        "an odd length",
        LONG,
        *(OF_SIZE.format(1, 2, "~m = Mod (~l, two)"), "~s = Sin (x) y = Mul (~s, none)"),
        OF_ONE.format("one", "~m = Mod (~l, two)"),
    ),
    case(
        "a single sample",
        LONG,
        *(OF_SIZE.format(0, 1, "~m = Sub (~l, one)"), "y = Sin (x)"),
        OF_ONE.format("start", "~m = Sub (~l, one)"),
    ),
    case(
        "samples beside what has none",
        "n (float[N, 8] x, float[1, 8] z) => (float[N, 8] y) { ~p = Mul (x, z) @ }",
        *(LENGTH.format(0, 1, "x") + "y = Div (~p, ~f)", "y = Mul (~p, half)"),
        LENGTH.format(0, 1, "x") + "~r = Reciprocal (~f) y = Mul (~p, ~r)",
    ),
    case(
        "a Pad of what divides already",
        "n (float[N, 3, H, W] x) => (float[N, 3, P, Q] y) { @ }",
        PADDED.format("~g = Mod (~e, step)"),
        PADDED.format("~g = Identity (~e)"),
        PADDED.format("~i = Div (~e, step) ~k = Mul (~i, step) ~g = Sub (~e, ~k)"),
    ),
    case(
        "a grid behind what it was before, which nothing saturates",
        """n (float[N, 8] x) => (float[N, 8] y) <float s = {0.01}, int8 nil = {0}, float low = {-1}, float high = {1}> {
            c = Clip (x, low, high) @ }""",
        "~q = QuantizeLinear (c, s, nil) ~d = DequantizeLinear (~q, s, nil) y = Mul (~d, half)",
        "~t = Mul (c, half) ~q = QuantizeLinear (~t, s, nil) y = DequantizeLinear (~q, s, nil)",
        "~n = Neg (c) ~m = Neg (~n) ~q = QuantizeLinear (~m, s, nil) ~d = DequantizeLinear (~q, s, nil) "
        "y = Mul (~d, half)",
    ),
    case(
        "an integer that is held against a number",
        "n (float[N, 8] x, int64 k) => (float[N, 8] y) <float far = {50}> { ~f = Cast <to = 1> (k) @ }",
        "~d = Sub (~f, far) ~r = Relu (~d) y = Add (x, ~r)",
        "y = Identity (x)",
        "~m = Max (far, ~f) ~r = Sub (~m, far) y = Add (x, ~r)",
    ),
    case(
        "what a Loop carries, where it is zero",
        """n (float[N, 8] x, int64 m) => (float[N, 8] y) { c = Constant <value = bool {1}> ()
           y = Loop (m, c, x) <body = b (int64 i, bool d, float[N, 8] w) => (bool e, float[N, 8] v)
           { e = Identity (d) @ }> }""",
        "r = ReduceMax <keepdims = 0> (w) q = Cast <to = 9> (r) s = Mul (w, half) o = Cos (w) v = Where (q, s, o)",
        "v = Mul (w, half)",
        "r = ReduceMax <keepdims = 0> (w) q = Cast <to = 9> (r) s = Mul (half, w) o = Cos (w) v = Where (q, s, o)",
    ),
    case("pools in another order", POOLS, pools(NARROW, WIDE), pools(WIDE, NARROW), pools(NARROW, WIDE)),
    case("larger pools in another order", POOLS, pools(NEAR, FAR), pools(FAR, NEAR), pools(NEAR, FAR)),
]


@pytest.mark.parametrize("case", CASES, ids=str)
def test_is_told(case):
    assert_told_apart(case)


def test_random_numbers_of_two_loops_are_not_the_same():
    """Their bodies are alike, and read the same."""
    text = """n (int64 m, float[3] v) => (float[3] y) {{ c = Constant <value = bool {{1}}> ()
        p {0} q {0} y = Sub (p, {1}) }}"""
    before, after = (parsed(text.format(DRAWN, second)) for second in "qp")
    assert verify(before, after, run=False).verdict is not Verdict.EQUIVALENT
    assert verify(before, before, run=False).verdict is Verdict.EQUIVALENT


def test_a_split_makes_as_many_parts_as_it_has_outputs_with_and_without_names():
    text = "n (float[N, 4] x) => (float[N, M] y) {{ y{} = Split <axis = 1> (x) }}"
    before, after = parsed(text.format(""), 13), parsed(text.format(", z"), 13)
    after.graph.node[0].output[1] = ""
    assert verify(before, after, run=False).verdict is Verdict.DIFFERENT


def test_how_many_are_not_zero_is_no_size():
    """So an If that goes by it may take either branch, though all shapes are fixed."""
    model = "n (float[4, 4] x) => (float[4, 4] y) { @ }"
    before = f"~i = NonZero (x) ~n = Size (~i) ~k = Squeeze (full) ~c = Less (~n, ~k) y = {BRANCHES}"
    wrong = Rewriting("", model, before, "y = Sin (x)", "", tensors=NUMBERS)
    assert verify(*wrong.wrongly(), run=False).verdict is not Verdict.EQUIVALENT


@pytest.mark.parametrize(
    ("before", "after"),
    [
        pytest.param("y = Sin (x)", "~r = Reshape (x, sizes) y = Sin (~r)", id="Reshape"),
        pytest.param(
            "~s = MatMul (x, kernel) y = Add (~s, row)", "~s = MatMul (x, kernel) y = Add (~s, rows)", id="Add"
        ),
    ],
)
def test_a_length_that_does_not_fit_others(before, after):
    """AFTER takes the length that comes to mind first, and no other."""
    result = verify(*Rewriting("", LONG, before, after, "", tensors=NUMBERS).wrongly(), run=False)
    assert result.verdict is Verdict.NOT_VERIFIED
    assert "AFTER does not take something that BEFORE takes" in result.regions[0].detail


def test_runs_are_of_several_lengths():
    """Where only they tell, as nothing evaluates an operator."""
    model = """n (float[N, T, 8] x) => (float[N, T, 8] y) {
        @ ~s, ~m, ~i, ~o = com.microsoft.SkipLayerNormalization (~p, x, row) y = Identity (~s) }"""
    after = "~r = Reshape (x, sizes) ~p = Sin (~r)"
    case = Rewriting("", model, "~p = Sin (x)", after, "~n = Neg (x) ~q = Sin (~n) ~p = Neg (~q)", tensors=NUMBERS)
    assert verify(*case.wrongly()).verdict is Verdict.DIFFERENT
    assert verify(*case.rightly()).verdict is Verdict.EQUIVALENT
