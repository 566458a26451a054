"""What is known to differ, and counts only where the data says so: found, or not claimed to be equal."""

from dataclasses import replace

import numpy as np
import onnx
import pytest
from verification.helpers import Rewriting, parsed, side_of

from bnfold.verification import Outcome, Verdict, verify
from bnfold.verification.regions.exercise import Rival
from bnfold.verification.regions.side import Read

RANDOM = np.random.default_rng(0)
LABELS, OFF, LATER = (np.arange(1000) for _ in range(3))
OFF[500] = 5
LATER += 7
LATE_OFF = LATER.copy()
LATE_OFF[500] = 5
TABLE = RANDOM.standard_normal((512, 8)).astype(np.float32)
ROW, TWICE = TABLE.copy(), 2 * TABLE
ROW[300] += 1
TWICE_ROW = 2 * ROW
TENSORS = {"labels": LABELS, "off": OFF, "later": LATER, "lateoff": LATE_OFF, "seven": np.array(7)}
TENSORS |= {"never": np.where(LABELS == 500, -1e30, 0).astype(np.float32), "few": np.array([100]), "one": np.array([1])}
TENSORS |= {"tops": RANDOM.uniform(1, 2, 64).astype(np.float32)}
TENSORS |= {"table": TABLE, "row": ROW, "twice": TWICE, "twicerow": TWICE_ROW, "two": np.float32(2), "o": np.array([0])}
POSITIONS = """n (float[B, S, 8] x) => (float[B, S, 8] y)
               {k = Shape <start = 1, end = 2> (x) @ y = Add (x, q)}"""
WHERE = """n (float[2, 64] x) => (float[2, 64] y)
           <float a = {10000}, float b = {11000}, float half = {5000}, float z = {0}, float h = {0.5}>
           {@ y = Where (c, x, z)}"""
IF = """n (float[2, 4] x) => (float[2, 4] y) <float a = {5}, float b = {5.5}, float k = {2}> {
    s = ReduceSum <keepdims = 0> (x) @
    y = If (c) <then_branch = t () => (float[2, 4] p) {p = Mul (x, k)},
                else_branch = e () => (float[2, 4] m) {m = Neg (x)}>
}"""

DIFFERENT = [
    Rewriting("threshold of a Where", WHERE, "c = Greater (x, a)", "c = Greater (x, b)", "c = Less (a, x)"),
    Rewriting(
        "threshold of a Where, scaled",
        WHERE,
        "c = Greater (x, a)",
        "~h = Mul (x, h) c = Greater (~h, a)",
        "~h = Mul (x, h) c = Greater (~h, half)",
    ),
    Rewriting("threshold of an If", IF, "c = Greater (s, a)", "c = Greater (s, b)", "c = Less (a, s)"),
    Rewriting(
        "label behind an ArgMax",
        "n (float[B, 1000] x) => (int64[B] y) {i = ArgMax <axis = 1, keepdims = 0> (x) @}",
        *("y = Gather (labels, i)", "y = Gather (off, i)", "~j = Gather (labels, i) y = Identity (~j)"),
        tensors=TENSORS,
    ),
    Rewriting(
        "label behind an ArgMax, all of them moved",
        "n (float[B, 1000] x) => (int64[B] y) {i = ArgMax <axis = 1, keepdims = 0> (x) @}",
        *("~j = Gather (labels, i) y = Add (~j, seven)", "y = Gather (lateoff, i)", "y = Gather (later, i)"),
        tensors=TENSORS,
    ),
    Rewriting(
        "row of a table of positions",
        POSITIONS,
        *("q = Slice (table, o, k)", "q = Slice (row, o, k)", "~q = Slice (table, o, k) q = Identity (~q)"),
        tensors=TENSORS,
    ),
    Rewriting(
        "row of a table of positions, all of it scaled",
        POSITIONS,
        *("~p = Slice (table, o, k) q = Mul (~p, two)", "q = Slice (twicerow, o, k)", "q = Slice (twice, o, k)"),
        tensors=TENSORS,
    ),
    Rewriting(
        "label behind an ArgMin",
        "n (float[1, 1000] x) => (int64[1] y) {i = ArgMin <axis = 1, keepdims = 0> (x) @}",
        *("y = Gather (labels, i)", "y = Gather (off, i)", "~j = Gather (labels, i) y = Identity (~j)"),
        tensors=TENSORS,
    ),
    Rewriting(
        "label of a pixel",
        "n (float[1, 1000, 2, 3] x) => (int64[1, 2, 3] y) {s = Softmax <axis = 1> (x) "
        "i = ArgMax <axis = 1, keepdims = 0> (s) @}",
        *("y = Gather (labels, i)", "y = Gather (off, i)", "~j = Gather (labels, i) y = Identity (~j)"),
        tensors=TENSORS,
    ),
    Rewriting(
        "row of a table that an input chooses from",
        "n (int64[N, 3] x) => (int64[N, 3] y) {@}",
        *("y = Gather (labels, x)", "y = Gather (off, x)", "~j = Gather (labels, x) y = Identity (~j)"),
        tensors=TENSORS,
    ),
    Rewriting(
        "integer that an input is held against",
        "n (int64[N, 3] x) => (bool[N, 3] y) <int64 a = {5000}, int64 b = {5001}> {@}",
        *("y = Equal (x, a)", "y = Equal (x, b)", "y = Equal (a, x)"),
    ),
    Rewriting(
        "numbers that are just at a threshold of both sides",
        "n (float[N, 3] x) => (bool[N, 3] y) <float one = {1}> {@}",
        *("y = Greater (x, one)", "y = GreaterOrEqual (x, one)", "y = Less (one, x)"),
    ),
    Rewriting(
        "positions that are just at the end of a mask",
        """n (float[B, S] x) => (float[B, S] y) <int64 l = {0}, int64 d = {1}, int64 e = {70}, float z = {0}>
           {k = Shape <start = 1> (x) i = Squeeze (k) p = Range (l, i, d) @ y = Where (m, x, z)}""",
        *("m = Less (p, e)", "m = LessOrEqual (p, e)", "m = Greater (e, p)"),
    ),
    Rewriting(
        "row of an embedding of positions",
        """n (float[B, S, 8] x) => (float[B, S, 8] y)
           {k = Shape <start = 1, end = 2> (x) p = Slice (labels, o, k) @ y = Add (x, q)}""",
        *("q = Gather (table, p)", "q = Gather (row, p)", "~q = Gather (table, p) q = Identity (~q)"),
        tensors=TENSORS,
    ),
]
OPEN = [
    Rewriting(
        "numbers that are just at one of many thresholds",
        "n (float[N, 64] x) => (bool[N, 64] y) {@}",
        *("y = Greater (x, tops)", "y = GreaterOrEqual (x, tops)", "y = Less (tops, x)"),
        tensors=TENSORS,
    ),
    Rewriting(
        "label that never wins",
        "n (float[B, 1000] x) => (int64[B] y) {@}",
        "a = Add (x, never) i = ArgMax <axis = 1, keepdims = 0> (a) y = Gather (labels, i)",
        "~a = Add (never, x) i = ArgMax <axis = 1, keepdims = 0> (~a) y = Gather (off, i)",
        "~a = Add (never, x) i = ArgMax <axis = 1, keepdims = 0> (~a) ~j = Gather (labels, i) y = Identity (~j)",
        tensors=TENSORS,
    ),
    Rewriting(
        "what an imputer writes",
        "n (float[N, 9] x) => (float[N, 9] y) {@}",
        *(
            f"""~a = ai.onnx.ml.Imputer <replaced_value_float = -999.0,
                imputed_value_floats = [1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0, {last}]> (x) {rest}"""
            for last, rest in (
                ("9.0", "y = Add (~a, ~a)"),
                ("10.0", "~b = Neg (~a) y = Sub (~a, ~b)"),
                ("9.0", "~b = Neg (~a) y = Sub (~a, ~b)"),
            )
        ),
    ),
    Rewriting(
        "row that no length reaches",
        """n (float[B, S, 8] x) => (float[B, S, 8] y)
           {j = Shape <start = 1, end = 2> (x) k = Min (j, few) z = Slice (x, o, k, one) @ t = Add (z, q)
            m = ReduceMean <axes = [1]> (t) y = Add (x, m)}""",
        *("q = Slice (table, o, k)", "q = Slice (row, o, k)", "~q = Slice (table, o, k) q = Identity (~q)"),
        tensors=TENSORS,
    ),
]


@pytest.mark.parametrize("case", DIFFERENT, ids=str)
def test_what_makes_a_difference_is_tried(case):
    """Both sides of a threshold, labels that differ, lengths at which a table is read to its end: regions tell it."""
    assert verify(*case.wrongly(), run=False).verdict is Verdict.DIFFERENT


@pytest.mark.parametrize("run", [False, True], ids=["regions", "runs"])
@pytest.mark.parametrize("case", OPEN, ids=str)
def test_what_was_not_exercised_is_not_equal(case, run):
    """Nor does a run say so in which it does not come up."""
    result = verify(*case.wrongly(), run=run)
    assert result.verdict is Verdict.NOT_VERIFIED
    assert {region.outcome for region in result.regions} - {Outcome.EQUAL} == {Outcome.NOT_EXERCISED}
    assert str(result).startswith("not verified: ")


@pytest.mark.parametrize("case", [*DIFFERENT, *OPEN], ids=str)
def test_the_same_done_right_is_equivalent(case):
    """No false alarm on the correct twin."""
    assert verify(*case.rightly(), run=False).verdict is Verdict.EQUIVALENT


@pytest.mark.parametrize(("factor", "verdict"), [("-3", Verdict.NOT_VERIFIED), ("2", Verdict.EQUIVALENT)])
def test_a_function_that_cannot_be_inlined_counts_by_what_it_says(factor, verdict):
    """Its name alone does not make it the same."""
    before, after = (function(k) for k in ("2", factor))
    assert verify(before, after, run=False).verdict is verdict
    assert verify(before, after).verdict is (verdict if verdict is Verdict.EQUIVALENT else Verdict.DIFFERENT)


def function(factor: str) -> onnx.ModelProto:
    """A function made for another version of a domain than the model, which ONNX does not inline."""
    model = parsed(
        f"""n (float[2, 4] x) => (float[2, 4] y) {{t = my.f (x) y = ai.onnx.ml.Normalizer <norm = "MAX"> (t)}}
        <domain: "my", opset_import: ["": 17]> f (v) => (w)
            {{k = Constant <value_float = {factor}.0> () w = Mul (v, k)}}"""
    )
    model.functions[0].opset_import.append(onnx.helper.make_opsetid("ai.onnx.ml", 2))
    return model


def test_sizes_may_be_written_in_another_way():
    """Integers from which only shapes are made have no values at which they could count."""
    model = "n (float[2, 6] x) => (float[K, M] y) {@}"
    tensors = {
        "a": np.array([-1, 3]),
        "b": np.array([4, 3]),
        "e": np.array([2**40]),
        "f": np.array([6]),
        "o": np.array([0]),
    }
    one = np.array([1])
    case = Rewriting(
        "sizes",
        model,
        "~s = Slice (x, o, e, one) y = Reshape (~s, a)",
        *["~s = Slice (x, o, f, one) y = Reshape (~s, b)"] * 2,
        tensors={**tensors, "one": one},
    )
    assert verify(*case.rightly(), run=False).verdict is Verdict.EQUIVALENT


def test_a_region_says_what_was_tried():
    """By the names of the table: here numbers alone, and such as are beyond the Clip; one of four samples is zero."""
    model = "n (float[4, 3, 8] x) => (float[4, 3, 8] y) <float top = {{{}}}> {{ a = Clip (x, , top) {} }}"
    pair = (parsed(model.format(500, end)) for end in ("y = Identity (a)", "b = Identity (a) y = Min (b, top)"))
    (region,) = verify(*pair, run=False).regions
    assert region.tried == ("weights", "samples", "bounds")


@pytest.mark.parametrize(("steps", "matters"), [(0.5, False), (2, True)])
def test_what_rounding_explains_does_not_matter(steps, matters):
    """The other side's constant shows where it moves the end of the region by more than a rounding of weights would."""
    side = side_of("n (float[3] x) => (float[3] y) <float[3] w = {1, 1, 1}> { y = Mul (x, w) }")
    (op,) = side.region.ops
    weight = op.input(1)
    rival = Rival(replace(side, changed=(weight,)), Read(op, 1, weight), np.ones(3) + steps * 2**-24)
    assert rival.matters({0: np.ones(3)}) == matters
