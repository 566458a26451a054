"""A random node of a random graph, kept: it is there as it was, what it reads and makes means the same."""

from __future__ import annotations

import numpy as np
from helpers import all_nodes, label

from random_graphs.builder import Unfit
from random_graphs.generate import random_case
from random_graphs.properties import Discarded, check, usable

SEEDS = range(300)


def test_any_node_can_be_kept() -> None:
    """Folding around it gives a valid model that computes the same, and folding that again changes nothing."""
    faults: list[str] = []
    changed = 0
    for seed in SEEDS:
        try:
            case = random_case(seed)
            expected = usable(case)
        except (Unfit, Discarded):
            continue
        name = np.random.default_rng(seed).choice([label(node) for node in all_nodes(case.model)])
        checked = check(case, expected, keep=[str(name)])
        changed += checked.plan is not None and checked.plan.changes
        faults += [f"seed {seed}, {name}: {fault}" for fault in checked.faults[:1]]
    assert not faults, "\n".join(faults)
    assert changed > len(SEEDS) / 3
