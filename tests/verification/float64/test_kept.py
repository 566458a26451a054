"""What is made once and used again, and when it is not."""

import numpy as np
import pytest
from verification.helpers import parsed

from bnfold.graph import Graph
from bnfold.model_io import load
from bnfold.verification.float64.carried import Rounding
from bnfold.verification.float64.evaluate import Evaluator
from bnfold.verification.float64.how import How
from bnfold.verification.float64.kept import Kept

MODEL = "n (float[3] x) => (float[3] z) <float[3] w = {1, 2, 3}> { y = Mul (x, w) z = Relu (y) }"
MEGABYTE = 1 << 17  # numbers


def test_what_nobody_asked_for_longest_goes_first():
    """Nothing is made twice that there is room for, and asking for something keeps it."""
    kept, made = Kept(most=5 << 19), []

    def get(key):
        return kept.array(key, lambda: made.append(key) or np.full(MEGABYTE, ord(key)))[0]

    assert [chr(get(key)) for key in "abacab"] == list("abacab")
    assert made == ["a", "b", "c", "b"]


@pytest.mark.parametrize(("memory", "made"), [(None, 2), (1 << 30, 2), (12 << 20, 3)])
def test_it_takes_a_part_of_the_memory(memory, made):
    """Where there is little, less is kept."""
    kept, times = Kept.within(memory), []
    for key in "aba":
        kept.array(key, lambda: times.append(1) or np.zeros(MEGABYTE))
    assert len(times) == made


def test_many_small_things_take_memory_too():
    """Of each, there is more than its array."""
    kept, times = Kept(most=1 << 20), []
    for key in (*range(2000), 0):
        kept.array(key, lambda: times.append(1) or np.zeros(1))
    assert len(times) == 2001


def evaluated(given, kept=None):
    """What comes of each of some inputs."""
    graph = Graph(load(parsed(MODEL)))
    evaluator = Evaluator(graph.model, kept=kept or Kept())
    ops, values = list(graph.main.live_ops()), graph.main.values
    known = ({values[name]: array for name, array in entry.items()} for entry in given)
    return [evaluator.evaluate(ops, entry, values["z"]).num for entry in known]


def test_the_same_arrays_are_evaluated_once():
    """The same array as input, the same result; an equal one may be changed, and is another."""
    x = np.array([1.0, -1.0, 2.0])
    first, second, third = evaluated([{"x": x}, {"x": x}, {"x": x.copy()}])
    assert first.value is second.value
    assert third.value is not first.value
    assert third.value.tolist() == first.value.tolist() == [1, 0, 6]


def test_a_constant_that_is_given_counts():
    """In the place of a weight another may be given."""
    x = np.array([1.0, 1.0, 1.0])
    usual, other = evaluated([{"x": x}, {"x": x, "w": np.array([4.0, 5.0, 6.0])}])
    assert (usual.value.tolist(), other.value.tolist()) == ([1, 2, 3], [4, 5, 6])


def test_how_counts():
    """The same values have another error if a weight may be off."""
    graph = Graph(load(parsed(MODEL)))
    evaluator, x = Evaluator(graph.model, kept=Kept()), np.array([1.0, 1.0, 1.0])
    ops, (x_in, w, z) = list(graph.main.live_ops()), (graph.main.values[name] for name in "xwz")
    hows = [How(), How(rounded={w: Rounding(0.5, 0.0)}), How(unit=0.25), How()]
    errors = [evaluator.evaluate(ops, {x_in: x}, z, how).num.error for how in hows]
    assert [None if error is None else error.tolist() for error in errors[:2]] == [None, [0.5, 1, 1]]
    assert errors[2] is not None
    assert errors[3] is None


def test_another_array_in_the_same_place_of_memory_is_another():
    """Arrays are told apart though what is kept is little and numpy uses memory again."""
    inputs = ({"x": np.full(3, float(number))} for number in range(200))
    results = evaluated(inputs, Kept(most=10_000))
    assert [num.value.tolist() for num in results] == [[k, 2 * k, 3 * k] for k in range(200)]
