"""The order of folds is no matter, or a plan takes the best: small models, folded in every order."""

from __future__ import annotations

from contextlib import suppress

import pytest

from bnfold.folding import plan
from bnfold.folding.affines import remainder
from bnfold.folding.planner import Planner
from bnfold.model_io import load
from random_graphs.builder import Unfit
from random_graphs.crowded import crowded_case
from random_graphs.generate import Case
from random_graphs.orders import Search, examined
from random_graphs.properties import Discarded

SEEDS = range(380, 456)
MOST_STATES = 40
Result = list[tuple[Case, Search]]


@pytest.fixture(scope="module")
def result() -> Result:
    found: Result = []
    for seed in SEEDS:
        with suppress(Unfit, Discarded):
            case = crowded_case(seed)
            if (search := examined(case, MOST_STATES)) is not None:
                found.append((case, search))
    return found


def test_no_order_gives_a_wrong_model(result: Result) -> None:
    """Each model on each way computes the same."""
    assert [(case.seed, found.faults[0]) for case, found in result if found.faults] == []
    assert sum(len(found.states) for _, found in result) > 300


def test_no_order_leaves_less_over_than_the_plan(result: Result) -> None:
    """Nodes and BatchNormalizations, in models full of affines that want the same operators."""
    assert len(result) > 30
    assert [case.seed for case, found in result if found.is_beaten] == []


def test_one_order_alone_would_be_beaten(result: Result, monkeypatch: pytest.MonkeyPatch) -> None:
    """Were the plan not to try the other order, some of the models would show it."""
    monkeypatch.setattr(Planner, "is_contested", False)
    alone = [remainder(plan(load(case.model)).model) for case, _ in result]
    assert any(found.best[:3] < left[:3] for (_, found), left in zip(result, alone, strict=True))
