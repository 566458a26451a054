"""Numbers that are equal where they are compared: what is just at a threshold has been tried."""

import numpy as np
import pytest
from verification.helpers import parsed

from bnfold.graph import Graph
from bnfold.model_io import load
from bnfold.verification.float64.carried import Rounding
from bnfold.verification.float64.evaluate import Evaluator
from bnfold.verification.float64.how import How


@pytest.mark.parametrize(
    ("numbers", "step", "is_tied"),
    [
        pytest.param([0, 2], 0.0, True, id="exact"),
        pytest.param([0, 2], 0.5, False, id="a-threshold-that-was-rounded"),
        pytest.param([0, 3], 0.0, False, id="not-equal"),
    ],
)
@pytest.mark.parametrize("line", ["y = Greater (x, w)", "y = Less (w, x)"])
def test_equal_by_chance_of_rounding_is_no_tie(line, numbers, step, is_tied):
    """Where one of two equal numbers may be off, nobody knows that they are."""
    graph = Graph(load(parsed(f"n (float[2] x) => (bool[2] y) <float[2] w = {{1, 2}}> {{ {line} }}")))
    (op,) = graph.main.live_ops()
    values = {name: graph.main.own(name) for name in "xwy"}
    how = How(rounded={values["w"]: Rounding(0.0, step)} if step else {})
    found = Evaluator(graph.model).evaluate([op], {values["x"]: np.array(numbers, float)}, values["y"], how)
    assert found.coverage.tied == ({op} if is_tied else set())
