"""How often models run."""

import numpy as np
import pytest
from verification.helpers import parsed

from bnfold.verification import Verdict, verify
from bnfold.verification.running import runner

OPEN = "n (float[N, 3] x) => (float[N, 3] y) { y = Relu (x) }"
ONE = "n (float[N, 3] x) => (float[1, 3] y) <int64[2] s = {1, 3}> { y = Reshape (x, s) }"
SIZES = "n (float[N, 3, H, W] x) => (float[N, 192] y) <int64[2] s = {0, 192}> { y = Reshape (x, s) }"

KNOWN = "n (float[N, 3, H, W] x) => (float[A, 3, H, W] y) { y = Add (x, c) }"


@pytest.mark.parametrize(
    ("text", "thorough", "children"),
    [
        pytest.param(OPEN, False, 1, id="batch"),
        pytest.param(ONE, False, 1, id="batch-of-one"),
        pytest.param(ONE, True, 2, id="thorough"),
        pytest.param(SIZES, False, 3, id="sizes"),
        pytest.param(KNOWN, False, 1, id="sizes-that-inference-knows"),
    ],
)
def test_a_shape_is_looked_for_only_if_sizes_are_open(monkeypatch, text, thorough, children):
    """One process runs both models; another one finds out which shape fits if there are many and the first does not."""
    started, spawn = [], runner._spawn
    monkeypatch.setattr(runner, "_spawn", lambda *given: started.append(given) or spawn(*given))
    model = parsed(text, tensors={"c": np.ones((1, 1, 1, 64), np.float32)})
    result = verify(model, model, thorough=thorough)
    assert result.verdict is Verdict.EQUIVALENT
    assert [output.passed for output in result.outputs] == [True]
    assert len(started) == children


def test_noise_is_measured_on_the_smallest_of_like_samples(monkeypatch):
    """Inputs that differ in how many there are have one noise, until an output of theirs is in question."""
    jobs, run = [], runner.Runner.run
    monkeypatch.setattr(runner.Runner, "run", lambda self, given: jobs.append(given) or run(self, given))
    verify(parsed(OPEN), parsed(OPEN))
    ((before, after),) = jobs
    assert [len(feed["x"]) for feed in before.feeds] == [2, 1, 1]
    assert [len(feed["x"]) for feed in after.feeds] == [2, 1]
