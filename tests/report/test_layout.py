"""Where boxes and lines go."""

from itertools import combinations

import hypothesis.strategies as st
from hypothesis import given, settings

from bnfold.report.layout import HEIGHT, WIDTH, layout


@st.composite
def graphs(draw):
    """How many boxes, and lines from lower numbers to higher ones."""
    count = draw(st.integers(1, 12))
    pairs = list(combinations(range(count), 2))
    return count, draw(st.lists(st.sampled_from(pairs), unique=True, max_size=20)) if pairs else []


@settings(deadline=None, derandomize=True)
@given(graphs())
def test_boxes_are_apart_and_lines_lead_down(graph):
    """Whatever the graph: no two boxes overlap, all is inside, and each line goes from its box down to the other."""
    count, edges = graph
    made = layout(count, edges)
    assert len(made.places) == count
    for (x, y), (other_x, other_y) in combinations(made.places, 2):
        assert abs(x - other_x) >= WIDTH - 0.01 or abs(y - other_y) >= HEIGHT
    for x, y in made.places:
        assert -0.01 <= x <= made.width - WIDTH + 0.01
        assert 0 <= y <= made.height - HEIGHT
    for (upper, lower), line in zip(edges, made.lines, strict=True):
        starts, ends = made.places[upper], made.places[lower]
        assert abs(line[0][0] - starts[0] - WIDTH / 2) < 0.01
        assert line[0][1] == starts[1] + HEIGHT
        assert abs(line[-1][0] - ends[0] - WIDTH / 2) < 0.01
        assert line[-1][1] == ends[1]
        heights = [y for _, y in line]
        assert heights == sorted(heights)


def test_a_chain_is_a_straight_line():
    """One above the other."""
    made = layout(4, [(0, 1), (1, 2), (2, 3)])
    assert len({x for x, _ in made.places}) == 1
    assert [y for _, y in made.places] == sorted({y for _, y in made.places})


def test_a_line_that_passes_a_box_goes_around_it():
    """A shortcut around a box has its own room beside it."""
    made = layout(3, [(0, 1), (1, 2), (0, 2)])
    left = made.places[1][0]
    passing = [x for x, y in made.lines[2][1:-1]]
    assert passing
    assert all(x <= left or x >= left + WIDTH for x in passing)


def test_branches_stand_beside_each_other():
    """Those of a residual block, under what they come from."""
    made = layout(4, [(0, 1), (0, 2), (1, 3), (2, 3)])
    assert made.places[1][1] == made.places[2][1]
    middle = (made.places[1][0] + made.places[2][0]) / 2
    assert abs(made.places[0][0] - middle) < 1
    assert abs(made.places[3][0] - middle) < 1
