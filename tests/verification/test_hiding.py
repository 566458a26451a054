"""Labels that are equal in all trials, though what they are chosen by is not; and values that are zero in part."""

import numpy as np
import pytest
from verification.helpers import Rewriting, assert_told_apart

from bnfold.verification import Verdict, verify

RANDOM = np.random.default_rng(0)
W = RANDOM.standard_normal((16, 10)) / 4
S, B = RANDOM.uniform(0.5, 2, 10), RANDOM.standard_normal(10)
EXACT = {"w": W, "s": S, "b": B, "ws": W * S, "bs": B * S, "one": W * S + 0.02 * (np.arange(160) == 34).reshape(16, 10)}
EXACT |= {"gain": W * S * np.where(np.arange(10) == 3, 1.001, 1), "shift": B * S + 0.01 * (np.arange(10) == 7)}
TENSORS = {name: array.astype(np.float32) for name, array in EXACT.items()}
LABELS = "n (float[N, 16] x) => (int64[N] y) {{ @ ~n = {} y = Identity (~n) }}"
SCORES = "~c = Gemm (x, w, b) ~a = Mul (~c, s)", "~a = Gemm (x, ws, bs)"


def labels(wrong: str, choice: str = "ArgMax <axis = 1, keepdims = 0> (~a)") -> Rewriting:
    return Rewriting(wrong, LABELS.format(choice), SCORES[0], f"~a = Gemm (x, {wrong})", SCORES[1], tensors=TENSORS)


@pytest.mark.parametrize("wrong", ["one, bs", "gain, bs", "ws, shift"])
@pytest.mark.parametrize("choice", ["ArgMax", "ArgMin"])
@pytest.mark.parametrize("run", [False, True])
def test_equal_labels_do_not_make_equal_scores(wrong, choice, run):
    """A score that is off by a little changes few labels: what they are chosen by is compared."""
    case = labels(wrong, f"{choice} <axis = 1, keepdims = 0> (~a)")
    result = verify(*case.wrongly(), run=run)
    assert result.verdict is Verdict.NOT_VERIFIED
    assert f"what {choice} 'b_n' reads is" in "".join(result.reasons)
    result = verify(*case.rightly(), run=run)
    assert (result.verdict, result.complete) == (Verdict.EQUIVALENT, True)


def test_the_right_one_of_several_is_held_against_it():
    """Two heads, which AFTER computes in another order."""
    heads = """n (float[N, 16] x) => (int64[N] y, int64[N] z) {{ {} {}
               ~m = ArgMax <axis = 1, keepdims = 0> (~a) ~n = ArgMax <axis = 1, keepdims = 0> (~d)
               y = Identity (~m) z = Identity (~n) }}"""
    first, second = "~c = Gemm (x, w, b) ~a = Mul (~c, s)", "~d = Gemm (x, w, b)"
    case = Rewriting("", "@", heads.format(first, second), "", heads.format(second, SCORES[1]), tensors=TENSORS)
    assert verify(*case.rightly(), run=False).verdict is Verdict.EQUIVALENT


def test_a_comparison_may_be_turned_round():
    """And one of scores that are off stays one."""
    model = "n (float[N, 16] x) => (bool[N, 10] y) <float half = {0.5}> { @ y = Not (~n) }"
    ways = [
        f"{scores} ~n = {test}"
        for scores, test in zip(
            [SCORES[0], "~a = Gemm (x, ws, shift)", SCORES[1]],
            ["Greater (~a, half)", "Less (half, ~a)", "Less (half, ~a)"],
            strict=True,
        )
    ]
    case = Rewriting("", model, *ways, tensors=TENSORS)
    assert not verify(*case.wrongly(), run=False).passed
    assert verify(*case.rightly(), run=False).verdict is Verdict.EQUIVALENT


def test_an_axis_may_be_counted_from_the_end():
    """What it is counted from is no setting that differs."""
    model = "n (float[N, 16] x) => (float[N, 3] y, int64[N, 3] i) <int64[1] k = {3}> { @ }"
    case = Rewriting("", model, "y, i = TopK <axis = 1> (x, k)", "", "y, i = TopK (x, k)")
    assert verify(*case.rightly(), run=False).verdict is Verdict.EQUIVALENT


ORDERED = """n (float[N, 16] x) => (int64[M] y) <float two = {2}, float less = {-1}, float[1, 1, 1] none = {0}>
             { @ y = Squeeze (~n) }"""
CHOSEN = "~n = ArgMax <axis = 1> (~a)"


@pytest.mark.parametrize(
    ("before", "after", "keeps"),
    [
        ("~s = Softmax <axis = 1> (~a) ~n = ArgMax <axis = 1> (~s)", CHOSEN, True),
        ("~s = Sigmoid (~a) ~n = ArgMax <axis = 1> (~s)", "~t = Mul (~a, two) ~n = ArgMax <axis = 1> (~t)", True),
        ("~s = Sub (~a, two) ~n = ArgMin <axis = 1> (~s)", "~n = ArgMin <axis = 1> (~a)", True),
        ("~s = Softmax <axis = 0> (~a) ~n = ArgMax <axis = 1> (~s)", CHOSEN, False),
        ("~s = Relu (~a) ~n = ArgMax <axis = 1> (~s)", CHOSEN, False),
        (CHOSEN, "~t = Mul (~a, less) ~n = ArgMax <axis = 1> (~t)", False),
        ("~s = Add (~a, none) ~n = ArgMax <axis = 1> (~s)", CHOSEN, False),
    ],
)
def test_what_keeps_the_order_may_go(before, after, keeps):
    """The largest stays the largest; but not with a norm over other places, equal numbers, a sign, a further axis."""
    case = Rewriting("", ORDERED, f"{SCORES[0]} {before}", "", f"{SCORES[1]} {after}", tensors=TENSORS)
    assert (verify(*case.rightly(), run=False).verdict is Verdict.EQUIVALENT) is keeps


def test_a_threshold_that_one_side_lacks():
    """What both read is equal, and what only one reads is not passed over."""
    case = Rewriting(
        "",
        """n (float[1, 6, 4] boxes, float[1, 2, 6] x) => (int64[m, 3] y)
           <int64 k = {3}, float iou = {0.5}, float least = {0.3}, float two = {2}, float four = {4}>
           { @ y = Identity (~n) }""",
        "~c = Mul (x, two) ~a = Mul (~c, two) ~n = NonMaxSuppression (boxes, ~a, k, iou, least)",
        "~a = Mul (x, four) ~n = NonMaxSuppression (boxes, ~a, k, iou)",
        "~a = Mul (x, four) ~n = NonMaxSuppression (boxes, ~a, k, iou, least)",
    )
    assert verify(*case.wrongly(), run=False).verdict is Verdict.NOT_VERIFIED
    assert verify(*case.rightly(), run=False).verdict is Verdict.EQUIVALENT


def test_the_wrong_one_of_several_leaves_no_doubt():
    """A table is folded that is read by one of two labels, which AFTER computes in another order."""
    model = "n (float[N, 16] x) => (float[N, 2] y, int64[N, 1] z) <float two = {2}> { @ z = Identity (~m) }"
    first, second = "~d = Mul (x, two) ~m = ArgMax <axis = 1> (~d)", CHOSEN
    before = f"{first} {SCORES[0]} {second} ~r = Gather (table, ~n) ~g = Mul (~r, two) y = Squeeze (~g)"
    after = f"{SCORES[1]} {second} ~g = Gather (double, ~n) y = Squeeze (~g) {first}"
    table = RANDOM.standard_normal((10, 2)).astype(np.float32)
    case = Rewriting("", model, before, "", after, tensors={**TENSORS, "table": table, "double": 2 * table})
    assert verify(*case.rightly(), run=False).verdict is Verdict.EQUIVALENT


def test_labels_behind_names_that_mean_something_else():
    """Two Gemms keep their names when they take in what follows; what an ArgMax reads tells if they may."""
    model = "n (float[N, 16] x) => (int64[N] y) { @ m = ArgMax <axis = 1, keepdims = 0> (~a) y = Identity (m) }"
    before = "c = Gemm (x, v, u) h = Mul (c, t) r = Relu (h) d = Gemm (r, w, b) ~a = Mul (d, s)"
    after = "c = Gemm (x, vt, ut) r = Relu (c) d = Gemm (r, {}, bs) ~a = Identity (d)"
    v, u, t = RANDOM.standard_normal((16, 16)) / 4, RANDOM.standard_normal(16), RANDOM.uniform(0.5, 2, 16)
    exact = {"v": v, "u": u, "t": t, "vt": v * t, "ut": u * t}
    tensors = {**TENSORS, **{name: array.astype(np.float32) for name, array in exact.items()}}
    case = Rewriting("", model, before, after.format("gain"), after.format("ws"), tensors=tensors)
    assert not verify(*case.wrongly(), run=False).passed
    assert verify(*case.rightly(), run=False).verdict is Verdict.EQUIVALENT


KERNEL, FACTOR = RANDOM.standard_normal((4, 5, 3, 3)), RANDOM.uniform(0.5, 2, (4, 1, 1))
SCALED = KERNEL * FACTOR[..., None]
UNREAD = np.where(np.arange(5)[:, None, None] < 3, SCALED, 1.5 * SCALED)
CHANNELS = {"w": KERNEL, "s": FACTOR, "off": 1.1 * SCALED, "unread": UNREAD, "nothing": np.zeros((1, 2, 9, 9))}
PADDED = {
    "Pad": "d = Pad (x, more)",
    "Concat": "d = Concat <axis = 1> (x, nothing)",
}


@pytest.mark.parametrize("channels", PADDED.values(), ids=PADDED)
def test_weights_that_meet_nothing_but_padding_may_be_anything(channels):
    """Channels that are zero for every input."""
    tensors = {name: array.astype(np.float32) for name, array in CHANNELS.items()}
    case = Rewriting(
        "padding",
        f"n (float[1, 3, 9, 9] x) => (float[1, 4, 7, 7] y) {{ {channels} @ y = Relu (~a) }}",
        *("~c = Conv (d, w) ~a = Mul (~c, s)", "~a = Conv (d, off)", "~a = Conv (d, unread)"),
        tensors=tensors | {"more": np.array([0, 0, 0, 0, 0, 2, 0, 0])},
    )
    assert_told_apart(case)


@pytest.mark.parametrize("step", ["~n = NonZero (~r)", "~n = ai.onnx.ml.Binarizer <threshold = 0.5> (~r)"])
def test_other_steps(step):
    """What is not zero, and what is beyond a threshold, is a label, too."""
    kind = "int64" if "NonZero" in step else "float"
    model = f"n (float[N, 16] x) => ({kind}[r, c] y) {{ @ ~r = Relu (~a) {step} y = Identity (~n) }}"
    ways = [SCORES[0], "~a = Gemm (x, ws, shift)", SCORES[1]]
    case = Rewriting("", model, *ways, tensors=TENSORS)
    assert not verify(*case.wrongly(), run=False).passed
    assert verify(*case.rightly(), run=False).verdict is Verdict.EQUIVALENT
