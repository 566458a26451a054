"""Many random graphs, folded and checked; prints how many, what became of them, and every fault.

    python benchmarks/random_graphs.py --count 50000 --seed 7
    python benchmarks/random_graphs.py --shrink 1234     prints a small model that shows the fault of seed 1234

The graphs are those of tests/random_graphs; a fault found here belongs in tests/cases/.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from pathlib import Path

import onnx

sys.path.insert(0, str(Path(__file__).parents[1]))
sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from random_graphs.campaign import parallel
from random_graphs.generate import random_case
from random_graphs.shrink import shrunk


def main() -> int:
    """Exit status 1 if there is any fault."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=5000, help="how many graphs")
    parser.add_argument("--seed", type=int, default=0, help="which graphs: another number, others")
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--shrink", type=int, nargs="*", help="graphs, by the numbers that a run has printed")
    options = parser.parse_args()
    if options.shrink is not None:
        for seed in options.shrink:
            _show(seed)
        return 0
    start = time.perf_counter()
    first = options.seed * 1_000_000
    statistics, faults = parallel(range(first, first + options.count), options.workers)
    print(statistics)
    print(f"\n{time.perf_counter() - start:.0f} s, {len(faults)} faults")
    for fault in faults:
        print(f"{fault.seed}: {fault.what[0][:200]}")
    return int(bool(faults))


def _show(seed: int) -> None:
    case, faults = shrunk(random_case(seed))
    if not faults:
        print(f"--- {seed}: no fault")
        return
    path = Path(f"random_graph_{seed}.onnx")
    onnx.save(case.model, path)
    print(f"--- {seed}: {faults[0][:300]}")
    print(f"{onnx.printer.to_text(case.model)}\nwritten to {path}")


if __name__ == "__main__":
    raise SystemExit(main())
