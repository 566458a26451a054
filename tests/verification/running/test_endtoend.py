"""How often models run."""

import pytest
from verification.helpers import parsed

from bnfold.verification import Verdict, verify
from bnfold.verification.running import runner

OPEN = "n (float[N, 3] x) => (float[N, 3] y) { y = Relu (x) }"
FLAT = "n (float[N, 3, H, W] x) => (float[N, 192] y) <int64[2] s = {0, 192}> { y = Reshape (x, s) }"


@pytest.mark.parametrize(("text", "children"), [pytest.param(OPEN, 1, id="first"), pytest.param(FLAT, 3, id="guessed")])
def test_a_shape_is_looked_for_only_if_the_most_sensible_one_does_not_fit(monkeypatch, text, children):
    """A process runs both models on inputs of the first shape; where BEFORE refuses those, another finds what fits."""
    started, spawn = [], runner._spawn
    monkeypatch.setattr(runner, "_spawn", lambda *given: started.append(given) or spawn(*given))
    model = parsed(text)
    result = verify(model, model)
    assert result.verdict is Verdict.EQUIVALENT
    assert [output.passed for output in result.outputs] == [True]
    assert len(started) == children
