"""More than a thousand whole random graphs: folded, they compute the same, and everything around them stays as it was.

A fault is told with its seed; `python benchmarks/random_graphs.py --shrink SEED` prints a small model that shows it.
"""

from __future__ import annotations

import os
from contextlib import suppress

import pytest

from bnfold.ops import RULES, linear
from bnfold.ops.rule import passes
from random_graphs.builder import Unfit
from random_graphs.campaign import Fault, faults_of, parallel
from random_graphs.extremes import extreme_model
from random_graphs.generate import random_case
from random_graphs.properties import check_numbers
from random_graphs.tally import Statistics

SEEDS = range(1500)
EXTREMES = range(120)
Result = tuple[Statistics, list[Fault]]


@pytest.fixture(scope="module")
def result() -> Result:
    return parallel(SEEDS, workers=min(2, os.cpu_count() or 1))


def test_the_generator_makes_enough_usable_graphs(result: Result) -> None:
    """At least 1,200 graphs are valid, can be evaluated, and most of them fold somewhere."""
    statistics, _ = result
    print(statistics)
    assert statistics.graphs >= 1200
    assert statistics.changed >= 0.6 * statistics.graphs
    assert statistics.outcomes["affine", "cleared"]


def test_no_graph_comes_out_wrong(result: Result) -> None:
    """Folded graphs are valid, equal in float64 and in ONNX Runtime, stable, and keep their inputs and outputs."""
    _, faults = result
    assert not faults, "\n".join(f"seed {fault.seed}: {fault.what[0][:300]}" for fault in faults)


def test_extreme_numbers_break_no_promise() -> None:
    """Nothing fails while it is written, nothing overflows, and a second run finds nothing, whatever the numbers."""
    faults, count = [], 0
    for seed in EXTREMES:
        with suppress(Unfit):
            model = extreme_model(seed)
            count += 1
            faults += [f"seed {seed}: {fault}" for fault in check_numbers(model)]
    assert count >= len(EXTREMES) / 2
    assert not faults, "\n".join(faults)


def test_every_rule_is_used(result: Result) -> None:
    """Each ability in the table of rules takes part in folds that were done."""
    statistics, _ = result
    unused = {ability for ability, count in statistics.abilities().items() if count < 1}
    assert not unused


def test_a_seed_always_gives_the_same_model() -> None:
    """A fault can be found again by its seed."""
    first, second = (random_case(5) for _ in range(2))
    assert first.model.SerializeToString() == second.model.SerializeToString()


def test_a_rule_that_lets_too_much_pass_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """Were Relu to pass every affine, a few dozen graphs would show it."""
    monkeypatch.setitem(RULES, "Relu", passes(lambda op, affine: affine))
    assert any("is off by" in what for fault in faults_of(range(60), Statistics()) for what in fault.what)


def test_a_forgotten_condition_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """Were a Conv to absorb shifts although it pads with zeros, some hundred graphs would show it."""
    monkeypatch.setattr(linear, "is_padded", lambda op, kernel: False)
    assert any("is off by" in what for fault in faults_of(range(200), Statistics()) for what in fault.what)
