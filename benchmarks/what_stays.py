"""What stays of many models, by the case that it is, and by name what is none of the known ones.

    python benchmarks/what_stays.py MODEL...

Exits with 1 if a BatchNormalization stays that is no known case: it has to be folded, or understood and written down.
"""

from __future__ import annotations

import sys
from collections import Counter
from pathlib import Path

import bnfold
from bnfold.folding.stays import kind_of

_GONE = (bnfold.Outcome.FOLDED, bnfold.Outcome.MERGED)


def main(models: list[str]) -> int:
    total: Counter[str] = Counter()
    unknown = 0
    for model in models:
        norms = [entry for entry in bnfold.plan(model).entries if entry.is_batchnorm]
        staying = [entry for entry in norms if entry.outcome not in _GONE]
        kinds = Counter(f"{entry.outcome.value}, {kind.name}" for entry in staying if (kind := kind_of(entry)))
        total += kinds + Counter({"all": len(norms)})
        told = "; ".join(f"{count} {kind}" for kind, count in kinds.most_common())
        print(f"{Path(model).name}: {len(norms)} BatchNormalizations; {told or 'none stays'}")
        for entry in staying:
            if kind_of(entry) is None:
                unknown += 1
                print(f"  {entry.node}: {'; '.join(map(str, entry.refusals))}")
    print("\nin all: " + ", ".join(f"{count} {kind}" for kind, count in total.most_common()))
    return int(unknown > 0)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
