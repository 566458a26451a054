"""Is the order of folds any matter? Small random models, planned and searched; prints how often a plan is beaten.

    python benchmarks/fold_orders.py --count 1000
    python benchmarks/fold_orders.py --count 1000 --crowded     models full of affines that want the same operators

The search does every fold that is possible, in every order and by every way, and computes every model on the way in
float64: tests/random_graphs/orders.py. It prints the smallest models that it leaves less over of than the plan does.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import onnx

sys.path.insert(0, str(Path(__file__).parents[1]))
sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from random_graphs.builder import Unfit
from random_graphs.crowded import crowded_case
from random_graphs.generate import Case, random_case
from random_graphs.orders import Search, examined
from random_graphs.properties import Discarded


def main() -> int:
    """Exit status 1 if any order gives a wrong model."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=1000, help="how many seeds")
    parser.add_argument("--seed", type=int, default=0, help="which: another number, others")
    parser.add_argument("--crowded", action="store_true", help="models full of affines that want the same operators")
    parser.add_argument("--nodes", type=int, default=14, help="how large a model may be")
    parser.add_argument("--states", type=int, default=200, help="how many models to look at on the way from one")
    parser.add_argument("--show", type=int, default=3, help="how many models that are beaten to print")
    options = parser.parse_args()
    start = time.process_time()
    first = options.seed * 1_000_000
    make = crowded_case if options.crowded else random_case
    results = list(_results(make, range(first, first + options.count), options.nodes, options.states))
    _tell(results, time.process_time() - start)
    beaten = [(case, found) for case, found in results if found.is_beaten]
    for case, found in sorted(beaten, key=lambda result: len(result[0].model.graph.node))[: options.show]:
        print(f"\n--- {case.seed}: {found.planned}, in the best order {found.best}: {found.moves}")
        print(onnx.printer.to_text(case.model))
    return int(any(found.faults for _, found in results))


def _results(
    make: Callable[[int], Case], seeds: range, most_nodes: int, most_states: int
) -> Iterator[tuple[Case, Search]]:
    for seed in seeds:
        with suppress(Unfit, Discarded):
            case = make(seed)
            if len(case.model.graph.node) <= most_nodes and (found := examined(case, most_states)) is not None:
                yield case, found


def _tell(results: list[tuple[Case, Search]], seconds: float) -> None:
    searches = [found for _, found in results]
    models = sum(len(found.states) for found in searches)
    cut = sum(not found.is_complete for found in searches)
    print(f"{len(searches)} models, {models} on the way from them, {seconds:.0f} CPU s")
    print(f"{cut} of them not searched to the end")
    for name, worse in {
        "more affine nodes": lambda found: found.best[0] < found.planned[0],
        "as many, but more BatchNormalizations": lambda found: (
            found.best[0] == found.planned[0] and found.best[1] < found.planned[1]
        ),
        "as many, but more nodes": lambda found: (
            found.best[:2] == found.planned[:2] and found.best[2] < found.planned[2]
        ),
        "more bytes alone": lambda found: found.best[:3] == found.planned[:3] and found.best[3] < found.planned[3],
    }.items():
        print(f"left over by the plan: {name}: {sum(map(worse, searches))}")
    wrong = [(case.seed, found.faults[0]) for case, found in results if found.faults]
    print(f"{len(wrong)} wrong", *(f"{seed}: {fault[:200]}" for seed, fault in wrong), sep="\n")


if __name__ == "__main__":
    raise SystemExit(main())
