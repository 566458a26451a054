"""What shows in one branch, at one iteration, under one combination of conditions, or inside a function."""

import pytest
from verification.helpers import Rewriting, assert_told_apart

from bnfold.verification import Outcome, Verdict, verify

THEN = "t () => (float[N, 3] a) {a = Neg (x)}"
ELSE = "e () => (float[N, 3] b) {b = Mul (x, x)}"
LOOP = """n (float[2, 4] x, int64 m) => (float[2, 4] y)
<int64 o = {0}, int64 one = {1}, int64 two = {2}, float tenth = {0.1}, float half = {0.5}> {
    y = Loop (m, "", x) <body = b (int64 i, bool c, float[2, 4] s) => (bool d, float[2, 4] z) {d = Identity (c) @}>
}"""
BRANCHES = """n (float[2, 8] x) => (float[2, 8] y) <float o = {0}, float k = {1.5}, float q = {0.75}, float h = {0.5}> {
    s = ReduceMean <keepdims = 0> (x) @
}"""
IF = """y = If (~c) <then_branch = t () => (float[2, 8] a) {a = Mul (x, k)},
                     else_branch = e () => (float[2, 8] b) {b = Neg (x)}>"""
HALVED = """y = If (~c) <then_branch = t () => (float[2, 8] a) {p = Mul (x, q) a = Div (p, h)},
                         else_branch = e () => (float[2, 8] b) {b = Neg (x)}>"""

CASES = [
    Rewriting(
        "branches of If change places",
        "n (float[N, 3] x, bool c) => (float[N, 3] y) {v = If (c) <@> y = Relu (v)}",
        f"then_branch = {THEN}, else_branch = {ELSE}",
        f"else_branch = {THEN}, then_branch = {ELSE}",
        f"else_branch = {ELSE}, then_branch = {THEN}",
    ),
    Rewriting(
        "function of another opset",
        """n (float[N, 3] x) => (float[N, 3] y) {y = my.scale (x)}
        <domain: "my", opset_import: ["": 16]> scale (v) => (w) {@ w = Relu (t)}""",
        "f = Constant <value_float = 2.0> () t = Mul (v, f)",
        "f = Constant <value_float = 2.5> () t = Mul (v, f)",
        "f = Constant <value_float = 0.5> () t = Div (v, f)",
    ),
    Rewriting(
        "number of the iteration",
        LOOP,
        "j = Identity (i) f = Cast <to = 1> (j) g = Mul (f, tenth) z = Add (s, g)",
        "j = Min (i, one) f = Cast <to = 1> (j) g = Mul (f, tenth) z = Add (s, g)",
        "j = Add (i, o) f = Cast <to = 1> (j) g = Mul (f, tenth) z = Add (s, g)",
    ),
    Rewriting(
        "one iteration",
        LOOP,
        "e = Equal (i, two) w = Where (e, half, s) z = Add (w, tenth)",
        "e = Equal (i, two) w = Where (e, tenth, s) z = Add (w, tenth)",
        "e = Equal (i, two) f = Not (e) w = Where (f, s, half) z = Add (w, tenth)",
    ),
    Rewriting(
        "count of iterations",
        """n (float[N, 4] x, int64 m) => (float[N, 4] y) <int64 o = {0}, int64 one = {1}, float q = {1.25}> {
            @ y = Loop (k, "", x) <body = b (int64 i, bool c, float[N, 4] s) => (bool d, float[N, 4] z)
                {d = Identity (c) z = Mul (s, q)}>
        }""",
        *("k = Identity (m)", "k = Min (m, one)", "k = Add (m, o)"),
    ),
    Rewriting(
        "two conditions that are one",
        """n (float[2, 8] x) => (float[2, 8] y) <float o = {0}> {
            m = ReduceMax <keepdims = 0> (x) l = ReduceMin <keepdims = 0> (x)
            a = Greater (m, o) b = Less (l, o) @ z = Neg (x) y = Where (c, x, z)
        }""",
        "c = And (a, b)",
        "na = Not (a) f = And (a, na) c = And (f, b)",
        "na = Not (a) nb = Not (b) f = Or (na, nb) c = Not (f)",
    ),
    Rewriting(
        "then-branch behind a condition that is computed otherwise",
        BRANCHES,
        f"~c = Greater (s, o) {IF}",
        f"~d = LessOrEqual (s, o) ~c = Not (~d) {IF.replace('(x, k)', '(x, q)')}",
        f"~d = LessOrEqual (s, o) ~c = Not (~d) {HALVED}",
    ),
    Rewriting(
        "else-branch behind a condition that is computed otherwise",
        BRANCHES,
        f"~c = Greater (s, o) {IF}",
        f"~d = LessOrEqual (s, o) ~c = Not (~d) {IF.replace('Neg (x)', 'Mul (x, q)')}",
        f"~d = LessOrEqual (s, o) ~c = Not (~d) {HALVED}",
    ),
]

LONG = """n (float[2, 4] x) => (float[2, 4] y)
<bool go = {1}, float o = {0}, float late = {70}, float one = {1}, float n = {100}, float p = {0.2}, float q = {0.5}> {
    e, y = Loop ("", go, o, x) <body = b (int64 i, bool c, float t, float[2, 4] s) => (bool d, float u, float[2, 4] z) {
        f = Greater (t, late) w = Where (f, @, p) z = Add (s, w) u = Add (t, one) d = Less (u, n)}>
}"""


@pytest.mark.parametrize("case", CASES, ids=str)
def test_a_difference_is_found(case):
    """And none in the correct twin."""
    assert_told_apart(case)


def test_a_loop_that_is_too_long_is_left_to_the_run():
    """The regions do not claim to have seen the iterations from the 70th on; the run finds the difference there."""
    result = verify(*Rewriting("long", LONG, before="p", wrong="q", right="p").wrongly())
    assert {region.outcome for region in result.regions} == {Outcome.NOT_EVALUATED}
    assert result.verdict is Verdict.DIFFERENT


@pytest.mark.parametrize("nested", [False, True])
def test_sizes_that_no_trial_has_decide_otherwise(nested):
    """Both sides can be forced into a branch, unless they go by different sizes; within another branch, too."""
    inner = f"""s = Shape (x) k = @ g = Greater (k, big) r = If (g) <then_branch = {THEN}, else_branch = {ELSE}>"""
    outer = f"""m = ReduceMax <keepdims = 0> (x) p = Greater (m, o) r = If (p) <
        then_branch = o () => (float[N, 3] r) {{{inner}}}, else_branch = f () => (float[N, 3] w) {{w = Abs (x)}}>"""
    model = f"""n (float[N, 3] x) => (float[N, 3] y) <float o = {{0}}, int64 first = {{0}}, int64 big = {{100000}}>
        {{ {outer if nested else inner} y = Relu (r) }}"""
    case = Rewriting("", model, before="Gather (s, first)", wrong="Size (x)", right="Gather (s, first)")
    assert verify(*case.wrongly(), run=False).verdict is Verdict.NOT_VERIFIED
