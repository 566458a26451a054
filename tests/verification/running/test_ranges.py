"""Outputs that are kept within a range, and come out far below it."""

import numpy as np
import onnx
import pytest
from verification.helpers import parsed

from bnfold.graph import Graph
from bnfold.model_io import load
from bnfold.verification import Verdict, verify
from bnfold.verification.running.inputs import Sample
from bnfold.verification.running.outputs import Pair, Tolerance, held_against
from bnfold.verification.running.ranges import ranges
from bnfold.verification.running.runner import Outputs

RANDOM = np.random.default_rng(0)
W = (0.1 * RANDOM.standard_normal((1, 3, 3, 3))).astype(np.float32)
TENSORS = {"w": W, "scaled": W * np.float32(0.7), "more": W * np.float32(1.7), "s": np.float32(0.7)}
DETECTOR = "n (float[1, 3, 10, 10] x) => (float[1, 1, 8, 8] y) <float far = {16}, float near = {12}> {@}"
BEFORE = "c = Conv (x, w) a = Mul (c, s) b = Sub (a, far) p = ACT (b) y = Identity (p)"


def pair(after: str, act: str) -> list[onnx.ModelProto]:
    parts = (DETECTOR.replace("@", part).replace("ACT", act) for part in (BEFORE, after))
    return [parsed(part, tensors=TENSORS) for part in parts]


@pytest.mark.parametrize(
    ("far", "act", "is_accepted"),
    [
        pytest.param("far", "Sigmoid", True, id="the last digit of a sigmoid"),
        pytest.param("far", "Exp", False, id="an exponential has digits of its own"),
        pytest.param("near", "Sigmoid", False, id="more than the last digit"),
    ],
)
def test_digits_of_the_range_are_accepted(far, act, is_accepted):
    """All outputs are near 1e-7: in float32 the last digit of a sigmoid is as large."""
    before, after = pair(f"a = Conv (x, scaled) b = Sub (a, {far}) p = ACT (b) y = Identity (p)", act)
    arrays = (np.array([size, 1e-7], np.float32) for size in (1e-7, 1.6e-7 if far == "far" else 6e-6))
    left, right = (Outputs({"y": array}) for array in arrays)
    limit = Tolerance(ranges=ranges(Graph(load(before))))
    run = held_against([Pair(Sample("normal", {}), left, right)], {"y": "y"}, {}, limit, "")
    assert run.outputs[0].passed is is_accepted
    assert verify(before, after).passed is (far == "far")


def test_a_fault_is_found_by_the_regions():
    """What drowns in the run does not drown in float64."""
    result = verify(*pair("a = Conv (x, more) b = Sub (a, far) p = ACT (b) y = Identity (p)", "Sigmoid"))
    assert result.verdict is Verdict.DIFFERENT
    assert result.first_difference is not None


def test_zero_is_within_the_range():
    """A sigmoid that came out as 0 has no size that a difference could be relative to."""
    left, right = (Outputs({"y": np.full(2, value, np.float32)}) for value in (0.0, 6e-8))
    run = held_against([Pair(Sample("normal", {}), left, right)], {"y": "y"}, {}, Tolerance(ranges={"y": 1.0}), "")
    assert run.outputs[0].passed
