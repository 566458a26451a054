"""What the verifier finds, and what fixed tolerances find, on the same pairs.

    python benchmarks/verify_faults.py [MODEL.onnx ...]

Correct folds of small nets of every kind (tests/verification/helpers.py) and of the given models, and mutants of the
latter (tests/wrong_folds). A fixed tolerance t accepts a pair if every element of every output is within t
of the other, absolutely or relatively, on one normal input, as ``polygraphy run`` does.
"""

from __future__ import annotations

import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

import numpy as np
import onnx
import onnxruntime as ort
from verification.helpers import KINDS, nets
from wrong_folds.faults import mutants

from bnfold.folding import plan
from bnfold.model_io import load, to_proto
from bnfold.verification import Verdict, verify

TOLERANCES = (1e-5, 1e-4, 1e-3)
OPERATORS = 2


class Fixed:
    """Comparison by fixed tolerances under ONNX Runtime."""

    def __init__(self, before: onnx.ModelProto) -> None:
        session = self._session(before)
        random = np.random.default_rng(0)
        types = {"tensor(float)": np.float32, "tensor(float16)": np.float16, "tensor(double)": np.float64}
        self._feed = {
            entry.name: random.standard_normal([d if isinstance(d, int) else 2 for d in entry.shape]).astype(
                types[entry.type]
            )
            for entry in session.get_inputs()
        }
        self._outputs = session.run(None, self._feed)

    def accepts(self, after: onnx.ModelProto) -> dict[float, bool]:
        outputs = self._session(after).run(None, self._feed)
        return {
            tolerance: all(_within(a, b, tolerance) for a, b in zip(self._outputs, outputs, strict=True))
            for tolerance in TOLERANCES
        }

    @staticmethod
    def _session(model: onnx.ModelProto) -> ort.InferenceSession:
        options = ort.SessionOptions()
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
        options.log_severity_level = 4
        options.intra_op_num_threads = 1
        return ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])


def _within(a: Any, b: Any, tolerance: float) -> bool:
    a, b = a.astype(np.float64), b.astype(np.float64)
    with np.errstate(invalid="ignore"):  # some half-precision nets overflow, before and after
        error = np.abs(a - b)
    return bool(
        ((error <= tolerance) | (error <= tolerance * np.abs(a)) | (np.isnan(a) & np.isnan(b)) | (a == b)).all()
    )


def correct(paths: list[Path]) -> Iterator[tuple[onnx.ModelProto, onnx.ModelProto]]:
    for model in [*(model for kind in KINDS for _, model in nets(kind, 3)), *map(onnx.load, paths)]:
        yield model, to_proto(plan(load(model)).model)


def main(paths: list[Path]) -> None:
    alarms, count, run = Counter[str](), 0, 0
    for before, after in correct(paths):
        count += 1
        alarms["bnfold"] += verify(before, after, run=False).verdict is not Verdict.EQUIVALENT
        try:
            accepted = Fixed(before).accepts(after)
        except Exception:  # no kernel for float64 convolutions
            continue
        run += 1
        alarms.update(str(tolerance) for tolerance, passed in accepted.items() if not passed)
    print(f"correct folds: {count}, of which {run} run under ONNX Runtime; false alarms: {dict(alarms)}", flush=True)
    total = Counter[str]()
    for path in paths:
        loaded = load(path)
        before = to_proto(loaded)
        fixed, tally, start = Fixed(before), Counter[str](), time.monotonic()
        for mutant in mutants(before, to_proto(plan(loaded).model), OPERATORS):
            is_usual = mutant.before is before
            result = verify(loaded if is_usual else mutant.before, mutant.model, run=False)
            tally["mutants"] += 1
            tally["found"] += result.verdict is Verdict.DIFFERENT
            place = result.first_difference
            tally["pinned"] += place is not None and mutant.is_pinned_by(place.suspect)
            accepted = (fixed if is_usual else Fixed(mutant.before)).accepts(mutant.model)
            tally.update(str(tolerance) for tolerance, passed in accepted.items() if not passed)
        total.update(tally)
        print(f"{path.stem:28} {dict(tally)} {time.monotonic() - start:.0f} s", flush=True)
    print(f"{'all':28} {dict(total)}")


if __name__ == "__main__":
    main([Path(argument) for argument in sys.argv[1:]])
