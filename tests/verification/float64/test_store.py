"""Which weights stay in memory between two regions."""

import pytest
from verification.helpers import parsed

from bnfold.graph import Graph
from bnfold.model_io import load
from bnfold.verification.float64 import store
from bnfold.verification.float64.carried import Rounding


@pytest.mark.parametrize("kept", [pytest.param(48, id="weight-and-error"), pytest.param(47, id="one-byte-less")])
def test_what_is_small_stays_for_the_next_region(monkeypatch, kept):
    """A weight and its error are made once, as long as all of them together are no larger than is allowed."""
    monkeypatch.setattr(store, "_KEPT", kept)
    model = load(parsed("n (float[3] x) => (float[3] y) <float[3] w = {1, 2, 3}> { y = Mul (x, w) }"))
    weight = Graph(model).main.own("w")
    weights = store.Store(model)
    before = weights.rounded(weight, Rounding(0.5, 0.0))
    weights.forget()
    after = weights.rounded(weight, Rounding(0.5, 0.0))
    assert ((after.value is before.value), (after.error is before.error)) == (kept == 48, kept == 48)
    assert after.value.tolist() == [1, 2, 3]
    assert after.error.tolist() == [0.5, 1, 1]
