"""What is made up for the borders of regions."""

import numpy as np
from verification.helpers import parsed

from bnfold.graph import Graph
from bnfold.model_io import load
from bnfold.verification.float64.kept import Kept
from bnfold.verification.regions.border import Kind, frame, made_up
from bnfold.verification.regions.scenes import Scene

KINDS = [Kind("mixed"), Kind("normal")]
TWO = "n (float[4, 3] a, float[4, 3] b) => (float[4, 3] y) { c = Add (a, b) y = Relu (c) }"


def test_a_value_is_made_up_once_for_all_regions():
    """Two regions that start from the same value get the same array for it, and independent ones for others."""
    graph, kept = Graph(load(parsed(TWO))), Kept()
    scene = Scene(graph, {"a": (4, 3), "b": (4, 3)}, is_small=False)
    values = dict(enumerate(graph.main.values[name] for name in "ab"))
    borders = ({n: values[n] for n in numbers} for numbers in ([1], [0, 1]))
    alone, both = (
        list(made_up(graph, scene, border, frame(scene, border.values()), KINDS, 0, 1, kept)) for border in borders
    )
    assert len(alone) == len(both) == 2
    for one, two in zip(alone, both, strict=True):
        assert one.given[1] is two.given[1]
        assert not np.array_equal(two.given[0], two.given[1])
