"""Whose rounding it is, and how much of it there is: runs that differ although no region does."""

from dataclasses import replace

import numpy as np
import pytest
from verification.helpers import parsed

from bnfold.verification import Verdict, verify
from bnfold.verification.conclusion import conclusion
from bnfold.verification.regions.alignment import Comparison
from bnfold.verification.running.outputs import Run
from bnfold.verification.running.referee import Ruling

NET = "n (float[N, 8] x) => (float[N, 8] y) <float k = {256}, float one = {1}> {a = Relu (x) r = Add (a, one) @}"
PLAIN = parsed(NET.replace("@", "y = Identity (r)"))
LOSSY = parsed(NET.replace("@", "s = Add (r, k) y = Sub (s, k)"))
SLOPE = parsed(NET.replace("@", "y = Identity (r)").replace("Relu", "LeakyRelu"))
ROUNDING = "the difference between the runs is rounding"


def test_the_rounding_of_before_is_not_held_against_after():
    """BEFORE's run loses digits that AFTER's keeps."""
    result = verify(LOSSY, PLAIN)
    assert (result.verdict, result.outputs[0].passed) == (Verdict.EQUIVALENT, False)
    assert ROUNDING in result.reasons
    assert "within" not in str(result)  # a run that failed is no agreement


def test_after_may_not_lose_digits():
    """Both are the same function of real numbers, and AFTER's run is off."""
    result = verify(PLAIN, LOSSY)
    assert result.verdict is Verdict.DIFFERENT
    assert ROUNDING not in result.reasons


LOSING = NET.replace("{1}", "{0.1}").replace("@", "s = Add (r, k) y = Sub (s, k)")
HALF, ALL = (parsed(LOSING.replace("{256}", f"{{{2.0**power}}}")) for power in (22, 23))


def test_what_loses_the_rest_of_an_output_is_not_rounding():
    """BEFORE's run is off by a quarter of its output, AFTER's by more than half: no two roundings are that unlike."""
    result = verify(HALF, ALL)
    assert result.verdict is Verdict.DIFFERENT
    assert not result.first_difference
    assert verify(ALL, HALF).verdict is Verdict.NOT_VERIFIED


@pytest.mark.parametrize(
    ("before", "after", "rtol", "verdict"),
    [
        pytest.param(LOSSY, PLAIN, 1e-6, Verdict.DIFFERENT, id="rounding that is too much"),
        pytest.param(PLAIN, SLOPE, 0.1, Verdict.EQUIVALENT, id="difference that is near enough"),
    ],
)
def test_the_users_tolerance_decides_alone(before, after, rtol, verdict):
    """Neither what float64 says of a run, nor what the regions say, overrules it."""
    assert verify(before, after, rtol=rtol).verdict is verdict


SINE = (
    "n (float[N, 8] x) => (float[N, 8] y) <float k = {3.3}, float j = {7.7}, float f = {25.41}, float g = {25.411}> {@}"
)
TWO_STEPS = parsed(SINE.replace("@", "a = Mul (x, k) b = Mul (a, j) y = Sin (b)"))
ONE_STEP, ONE_OFF = (parsed(SINE.replace("@", f"b = Mul (x, {name}) y = Sin (b)")) for name in "fg")
RANDOM = np.random.default_rng(0)
CALM, WILD = (size * RANDOM.standard_normal((4, 8)).astype(np.float32) for size in (np.float32(0.01), np.float32(1e4)))


def test_noise_is_measured_on_the_sample_in_question():
    """A sine of large angles is chaotic, and one of small angles is not: each is held against its own noise."""
    found = verify(TWO_STEPS, ONE_STEP, data=[{"x": CALM}, {"x": WILD}]).outputs[0]
    assert found.passed
    assert found.floor > 1e-4


def test_the_noise_of_one_sample_does_not_excuse_another():
    """An error that would drown in the wild sample is found in the calm one."""
    found = verify(TWO_STEPS, ONE_OFF, data=[{"x": CALM}, {"x": WILD}]).outputs[0]
    assert not found.passed


@pytest.mark.parametrize(
    ("apart", "before", "after", "verdict"),
    [
        pytest.param(1e-9, 0.01, 0.03, Verdict.EQUIVALENT, id="AFTER is as near"),
        pytest.param(1e-9, 0.4, 0.6, Verdict.NOT_VERIFIED, id="neither is near"),
        pytest.param(1e-9, 0.9, 1e-9, Verdict.NOT_VERIFIED, id="BEFORE is something else in float64"),
        pytest.param(1e-9, 0.2, 0.6, Verdict.DIFFERENT, id="AFTER is worse"),
        pytest.param(0.2, 0.4, 0.4, Verdict.DIFFERENT, id="the models are apart"),
    ],
)
def test_what_float64_says_of_a_gross_difference(apart, before, after, verdict):
    """Rounding has to be found in float64; where neither run is near to that, nothing is known."""
    output = replace(verify(PLAIN, SLOPE).outputs[0], max_rel=0.5, passed=False)
    ruling = Ruling("y", apart, 0.0, before, after, 1e-6)
    assert conclusion(Comparison(), Run(outputs=(output,)), [ruling], [], 0).verdict is verdict
