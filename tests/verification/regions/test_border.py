"""What is made up for the borders of regions."""

import numpy as np
import pytest
from verification.helpers import parsed

from bnfold.graph import Graph
from bnfold.model_io import load
from bnfold.verification.float64.kept import Kept
from bnfold.verification.regions.border import Frame, Kind, frame, made_up, says_nothing_new
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


@pytest.mark.parametrize(
    ("shapes", "told", "is_old"),
    [
        pytest.param([(4, 8, 7)], [[(4, 8, 7)]], True, id="the-same"),
        pytest.param([(4, 8, 7)], [[(4, 8, 9)]], False, id="another-size"),
        pytest.param([(3, 8, 7)], [[(4, 8, 7)]], False, id="another-number-of-samples"),
        pytest.param([(3, 8, 7)], [[(4, 8, 7)], [(5, 8, 7)]], True, id="a-third-number"),
        pytest.param([(3, 8, 7)], [[(4, 8, 7)], [(5, 8, 9)]], False, id="one-of-another-size"),
        pytest.param([(3, 8), (6, 8)], [[(4, 8), (8, 8)], [(5, 8), (10, 8)]], False, id="what-grows-with-it"),
        pytest.param([(3, 8), ()], [[(4, 8), ()], [(5, 8), ()]], True, id="a-number"),
    ],
)
def test_what_says_nothing_new(shapes, told, is_old):
    """A region knows nothing but the shapes at its border and what stands there."""

    def made(some):
        return Frame(tuple(some), (None,) * len(some))

    assert says_nothing_new(made(shapes), map(made, told)) == is_old


def test_many_numbers_are_drawn_once_for_all_kinds():
    """It takes longer than all else; few are drawn anew, since of one alone, one sign would be all that is tried."""
    graph = Graph(load(parsed("n (float[1, 5000] a, float b) => (float[1, 5000] y) { y = Add (a, b) }")))
    scene = Scene(graph, {"a": (1, 5000), "b": ()}, is_small=False)
    border = dict(enumerate(graph.main.values[name] for name in "ab"))
    made = frame(scene, border.values())
    first, second = made_up(graph, scene, border, made, [Kind("normal"), Kind("normal")], 0, 1, Kept())
    assert np.array_equal(first.given[0], second.given[0])
    assert first.given[1] != second.given[1]


def test_large_numbers_are_over_decades():
    """So that in some place one outweighs all others of a sum, and shows what its weight alone is."""
    graph = Graph(load(parsed("n (float[4, 3000] a) => (float[4, 3000] y) { y = Relu (a) }")))
    scene, border = Scene(graph, {"a": (4, 3000)}, is_small=False), {0: graph.main.values["a"]}
    (trial,) = made_up(graph, scene, border, frame(scene, border.values()), [Kind("mixed")], 0, 1, Kept())
    normal, large, _, still = np.abs(trial.given[0])
    assert normal.max() / np.median(normal) < 10
    assert large.max() / np.median(large) > 1000
    assert not still.any()
