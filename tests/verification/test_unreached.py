"""What usual numbers and sizes do not reach: far places, numbers that are none, bounds, what a type does not hold."""

import numpy as np
import pytest
from verification.helpers import Rewriting, assert_told_apart, parsed

from bnfold.verification import Verdict, verify

LONG = "n (float[N, L] x) => (float[N, M] y) { @ }"
PLAIN = "n (float[N, 8] x) => (float[N, 8] y) { @ }"
WHOLE = "n (int64[N, 8] x) => (int64[N, 8] y) { @ }"
MEANS = "n (float[N, 8, L] x) => (float[N, 8] y) { @ y = ReduceMean <axes = [2], keepdims = 0> (~a) }"
GRID = "n (float[N, 8] x) => (float[N, 8] y) <float s = {1000}> { @ y = DequantizeLinear (~q, s, ~z) }"
STEPS = "~z = Constant <value = {} {{0}}> () ~q = QuantizeLinear (x, s, ~z)"
POSITIONS = "~h = Shape (x) ~l = Gather (~h, one) ~r = Range (none, ~l, one)"
NUMBERS = {"none": np.int64(0), "one": np.int64(1), "half": np.float32(0.5), "zero": np.float32(0)}
NUMBERS |= {"far": np.int64(1000), "farther": np.int64(1200), "batch": np.array([4, 8]), "ratio": np.float32(0.5)}
NUMBERS |= {"start": np.array([0]), "end": np.array([1000]), "axis": np.array([1]), "yes": np.bool_(True)}
NUMBERS |= {"high": np.full((1, 8), 1e6, np.float32), "two": np.float32(2), "double": np.int64(2)}
NUMBERS |= {
    "seven": np.int64(7),
    "steep": np.float32(1000),
    "eight": np.int64(8),
    "whole": np.array([6, 6, 6, 6]),
    "rare": np.float32(7.125),
}
NUMBERS |= {"few": np.float32(1e-12), "fewer": np.float32(1e-3)}
NUMBERS |= {
    "weight": np.linspace(0.5, 1.5, 8, dtype=np.float32),
    "double_weight": np.linspace(1, 3, 8, dtype=np.float32),
}
NUMBERS |= {"part": np.array([6, 5, 6, 6])}
NUMBERS |= {"late": np.int64(70), "tenth": np.float32(0.1), "away": np.array([2000]), "last": np.array([2**40])}
NUMBERS |= {
    "too_far": np.int64(5000),
    "rows": np.array([1]),
    "columns": np.array([2]),
    "limit": np.float32(50),
    "beyond": np.float32(60),
}

BATCH = "~c = Cast <to = 1> (~e) ~m = Mul (x, ~c) y = Add (x, ~m)"
TURNS = """n (float[N, L] x, int64 m) => (float[N, L] y) {{ ~h = Shape (x) ~l = Gather (~h, one)
    y, ~t = Loop ({}, "", x, zero) <body = b (int64 i, bool c, float[N, L] s, float t) =>
        (bool d, float[N, L] z, float u) {{ d = Identity (c) @ z = Add (s, p) }}> }}"""
LATE = "{} f = Cast <to = 1> (e) p = Mul (f, {}) u = Identity (t)"
COUNTED = "r = Round (t) p = Mul (r, tenth) q = Constant <value_float = {}> () {} u = Add (t, k)"
SKIPPED = """n (float[N, 8] x) => (float[N, 8] y) {
    @ ~s, ~m, ~i, ~o = com.microsoft.SkipLayerNormalization (~w, x, weight) y = Relu (~s) }"""
TWO_CUTS = """n (float[N, A, B] x) => (float[N, P, Q] y) {
    ~a = Slice (x, start, away, rows) ~b = Slice (~a, away, last, columns) @ y = Concat <axis = 2> (~a, ~c) }"""
DEAD = "~d = Relu (~s) y = Add (x, ~d)"


def case(what: str, model: str, before: str, wrong: str, right: str, opset: int = 17) -> Rewriting:
    return Rewriting(what, model, before, wrong, right, opset, NUMBERS)


CASES = [
    case(
        "end of a Slice",
        LONG,
        *("y = Slice (x, start, end, axis)", "y = Identity (x)", "~a = Identity (x) y = Slice (~a, start, end, axis)"),
    ),
    case(
        "end of an old Slice",
        MEANS,
        "~a = Slice <starts = [0], ends = [1000], axes = [2]> (x)",
        "~a = Slice <starts = [0], ends = [1200], axes = [2]> (x)",
        "~b = Identity (x) ~a = Slice <starts = [0], ends = [1000], axes = [-1]> (~b)",
        9,
    ),
    case(
        "mask of positions",
        LONG,
        f"{POSITIONS} ~m = Less (~r, far) ~c = Cast <to = 1> (~m) y = Mul (x, ~c)",
        "y = Identity (x)",
        f"{POSITIONS} ~m = Greater (far, ~r) ~c = Cast <to = 1> (~m) y = Mul (x, ~c)",
    ),
    case(
        "many samples",
        PLAIN,
        *(
            "y = Slice (x, start, end, start)",
            "y = Identity (x)",
            "~a = Identity (x) y = Slice (~a, start, end, start)",
        ),
    ),
    case(
        "so many samples",
        PLAIN,
        f"~h = Shape (x) ~l = Gather (~h, none) ~e = Equal (~l, seven) {BATCH}",
        f"~h = Shape (x) ~l = Gather (~h, none) ~e = Equal (~l, eight) {BATCH}",
        f"~h = Shape (x) ~l = Gather (~h, none) ~e = Equal (seven, ~l) {BATCH}",
    ),
    case(
        "lengths of sequences",
        "n (float[6, 4] x) => (float[6, 4] y) { @ }",
        *(
            "y = ReverseSequence (x, whole)",
            "y = ReverseSequence (x, part)",
            "y = ReverseSequence <batch_axis = 1> (x, whole)",
        ),
    ),
    case(
        "shift of channels",
        PLAIN,
        f"~s = Sub (x, high) {DEAD}",
        "y = Identity (x)",
        f"~n = Neg (high) ~s = Add (x, ~n) {DEAD}",
    ),
    case(
        "a single number",
        PLAIN,
        "~e = Equal (x, rare) y = Where (~e, zero, x)",
        "y = Identity (x)",
        "~e = Equal (rare, x) y = Where (~e, zero, x)",
    ),
    case(
        "band of a matrix",
        "n (float[L, L] x) => (float[L, L] y) { @ }",
        *("y = Trilu (x, far)", "y = Trilu (x, farther)", "~a = Identity (x) y = Trilu (~a, far)"),
    ),
    case("bounds of channels", PLAIN, "y = Min (x, high)", "y = Identity (x)", "y = Min (high, x)"),
    case(
        "no number",
        PLAIN,
        "~m = IsNaN (x) y = Where (~m, zero, x)",
        "y = Identity (x)",
        "~m = IsNaN (x) ~k = Not (~m) y = Where (~k, x, zero)",
    ),
    case(
        "infinity",
        PLAIN,
        "~m = IsInf (x) y = Where (~m, zero, x)",
        "~m = IsInf <detect_negative = 0> (x) y = Where (~m, zero, x)",
        "~m = IsInf (x) ~k = Not (~m) y = Where (~k, x, zero)",
    ),
    case(
        "what a narrower type holds",
        WHOLE,
        "~a = Cast <to = 5> (x) y = Cast <to = 7> (~a)",
        "y = Identity (x)",
        "~b = Identity (x) ~a = Cast <to = 5> (~b) y = Cast <to = 7> (~a)",
    ),
    case(
        "steps of another type",
        GRID,
        *(STEPS.format(kind) for kind in ("int8[1]", "int16[1]", "int8[1]")),
        opset=21,
    ),
    case(
        "smallest length of a vector",
        PLAIN,
        "~m = ReduceL2 <axes = [1]> (x) ~b = Clip (~m, few) y = Div (x, ~b)",
        "~m = ReduceL2 <axes = [1]> (x) ~b = Clip (~m, fewer) y = Div (x, ~b)",
        "~m = ReduceL2 <axes = [1]> (x) ~b = Max (few, ~m) y = Div (x, ~b)",
    ),
    case(
        "epsilon of a norm",
        PLAIN,
        "~n = LayerNormalization <epsilon = 1e-12> (x, weight) y = Mul (~n, two)",
        "y = LayerNormalization <epsilon = 1e-8> (x, double_weight)",
        "y = LayerNormalization <epsilon = 1e-12> (x, double_weight)",
    ),
    case(
        "threshold as an attribute",
        PLAIN,
        "~n = ThresholdedRelu <alpha = 100.0> (x) y = Mul (~n, two)",
        "~n = ThresholdedRelu <alpha = 101.0> (x) y = Add (~n, ~n)",
        "~n = ThresholdedRelu <alpha = 100.0> (x) y = Add (~n, ~n)",
    ),
    case(
        "signs that suit neither of two roots",
        "n (float[N, 8] x, float[N, 8] z) => (float[N, 8] y) { @ }",
        "~a = Sqrt (x) ~b = Sqrt (z) y = Mul (~a, ~b)",
        "~m = Mul (x, z) y = Sqrt (~m)",
        "~a = Sqrt (x) ~b = Sqrt (z) y = Mul (~b, ~a)",
    ),
    case(
        "where a Tanh turns",
        "n (float[N, 2] x) => (float[N, 2] y) <float at = {55.5}, float off = {55.75}> { @ }",
        "~s = Sub (x, at) ~m = Mul (~s, steep) y = Tanh (~m)",
        "~s = Sub (x, off) ~m = Mul (~s, steep) y = Tanh (~m)",
        "~s = Sub (at, x) ~m = Mul (~s, steep) ~t = Tanh (~m) y = Neg (~t)",
    ),
    case(
        "an order that onnx.reference does not know",
        "n (float[8] x) => (float[M] y) { @ }",
        "~a = Mul (x, two) y = Unique <sorted = 1> (~a)",
        "~a = Add (x, x) y = Unique <sorted = 0> (~a)",
        "~a = Add (x, x) y = Unique (~a)",
    ),
    case(
        "a size that is known by heart",
        PLAIN,
        "~h = Shape (x) ~c = ConstantOfShape (~h) y = Add (x, ~c)",
        "~c = ConstantOfShape (batch) y = Add (x, ~c)",
        "~h = Shape (x) ~c = ConstantOfShape (~h) y = Sub (x, ~c)",
    ),
    *(
        case(
            f"a late iteration of {trips}, by {what}",
            TURNS.format(trips),
            *(LATE.format(made, factor) for factor in ("tenth", "half")),
            LATE.format(f"j = Identity (i) {made.replace('(i', '(j')}", "tenth"),
        )
        for trips in ("m", "~l")
        for what, made in {
            "a comparison": "e = Greater (i, late)",
            "a bound": "n = Min (i, late) e = Sub (i, n)",
            "a quotient": "e = Div (i, late)",
        }.items()
    ),
    case(
        "what is rounded when it is carried on",
        TURNS.format("m"),
        COUNTED.format(0.5, "k = Identity (q)"),
        COUNTED.format(0.50001, "k = Identity (q)"),
        COUNTED.format(0.25, "k = Add (q, q)"),
    ),
]


@pytest.mark.parametrize("case", CASES, ids=str)
def test_what_is_out_of_reach_is_tried(case):
    """Sizes and numbers go as far as the constants of the operators."""
    assert not verify(*case.wrongly(), run=False).passed
    assert verify(*case.rightly(), run=False).verdict is Verdict.EQUIVALENT


def test_one_axis_is_long_after_the_other():
    """Where all of them together would be too much."""
    parts = "~c = Mul (~b, two)", "~k = Add (two, half) ~c = Mul (~b, ~k)", "~c = Add (~b, ~b)"
    assert_told_apart(case("", TWO_CUTS, *parts))


def test_what_is_too_far_is_said():
    """No input is made that long, so nobody knows what is done there."""
    frame = "~h = Shape (x) ~l = Gather (~h, one) ~c = Greater (~l, too_far) {} y = Where (~c, ~t, x)"
    pair = case("", LONG, *(frame.format(f"~t = {made}") for made in ("Mul (x, two)", "Mul (x, half)", "Add (x, x)")))
    for before, after in (pair.wrongly(), pair.rightly()):
        result = verify(before, after, run=False)
        assert result.verdict is Verdict.NOT_VERIFIED
        assert any("calls for inputs of 5000" in reason for reason in result.reasons)


@pytest.mark.parametrize(
    ("model", "before", "wrong", "right"),
    [
        (SKIPPED, "~w = Clip (x, half, limit)", "~w = Clip (x, half, two)", "~v = Min (x, limit) ~w = Max (~v, half)"),
        (
            SKIPPED,
            "~b = Greater (x, limit) ~w = Where (~b, half, x)",
            "~b = Greater (x, beyond) ~w = Where (~b, half, x)",
            "~b = Less (limit, x) ~w = Where (~b, half, x)",
        ),
    ],
    ids=["bound", "threshold"],
)
def test_a_few_runs_do_not_do(model, before, wrong, right):
    """Beside an operator that only runtimes have, a number that is held against data counts nevertheless."""
    pair = case("", model, before, wrong, right)
    assert verify(*pair.wrongly()).verdict is not Verdict.EQUIVALENT
    assert verify(*pair.rightly()).verdict is Verdict.EQUIVALENT


def test_a_default_may_be_given_in_another_size():
    """Nobody tries one, so what goes by its size is not known to be the same."""
    model = """n (float[2, 4] x, float[K] w) => (float[2, 4] y) <float[2] w = {1, 2}, int64 three = {3}> {
        k = Size (w) c = Greater (k, three) v = If (c) <then_branch = t () => (float[2, 4] a) {@},
            else_branch = e () => (float[2, 4] b) {b = Exp (x)}> y = Relu (v) }"""
    pair = Rewriting("", model, "a = Neg (x)", "a = Abs (x)", "a = Neg (x)")
    assert verify(*pair.wrongly()).verdict is Verdict.NOT_VERIFIED
    assert verify(*pair.rightly()).verdict is Verdict.EQUIVALENT


def test_random_operators_are_not_one():
    """Two of them drop different entries."""
    before = parsed(
        PLAIN.replace("@", "a = Dropout (x, ratio, yes) b = Dropout (x, ratio, yes) y = Add (a, b)"), 17, NUMBERS
    )
    after = parsed(PLAIN.replace("@", "a = Dropout (x, ratio, yes) y = Add (a, a)"), 17, NUMBERS)
    assert verify(before, after).verdict is not Verdict.EQUIVALENT


@pytest.mark.parametrize(
    ("before", "wrong"),
    [
        ('y = StringNormalizer <case_change_action = "LOWER"> (a)', "y = Identity (a)"),
        ("y = StringConcat (a, b)", "y = StringConcat (b, a)"),
        (
            'c, d = StringSplit <delimiter = ","> (a) y = Cast <to = 8> (d)',
            "c, d = StringSplit (a) y = Cast <to = 8> (d)",
        ),
    ],
    ids=["case", "order", "parts"],
)
def test_texts_are_of_several_kinds(before, wrong):
    """In capitals and not, of several words, and others at the same place of another input."""
    model = "n (string[N] a, string[N] b) => (string[N] y) {@}"
    first, second, same = (parsed(model.replace("@", part), 20) for part in (before, wrong, before))
    assert not verify(first, second, run=False).passed
    assert verify(first, same, run=False).verdict is Verdict.EQUIVALENT


@pytest.mark.parametrize(("value", "verdict"), [(4, Verdict.EQUIVALENT), (5, Verdict.DIFFERENT)])
def test_texts_are_looked_up(value, verdict):
    """No text that is made up is in a dictionary: its own keys are tried."""
    model = """n (string[N] x) => (int64[N] y) {{
        a = ai.onnx.ml.LabelEncoder <keys_strings = ["cat", "dog"], values_int64s = [3, {}], default_int64 = -1> (x) {}
    }}"""
    before, after = model.format(4, "y = Identity (a)"), model.format(value, "b = Identity (a) y = Identity (b)")
    assert verify(parsed(before), parsed(after), run=False).verdict is verdict
