"""Small models, each in a file of tests/cases/ with the plan that is expected of it.

A file is a model as text (see `helpers.model_of`) below lines that start with `#`:

    # what the case shows, in a sentence
    # expect: bn folded into conv through relu    (one line for each entry of the plan, in order)
    # nodes: Conv Relu                            (what the main graph then consists of)
    # types: float double                         (the element types that T stands for; these two by default)
    # dims: N=3                                   (sizes of symbolic dimensions)
    # not run                                     (nothing can run it)
    # bug: …                                      (it fails, for this reason)
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from helpers import (
    Array,
    Feeds,
    assert_close,
    assert_nothing_dead,
    assert_same_interface,
    assert_same_meaning,
    feeds_of,
    folded,
    is_accepted,
    model_of,
    run,
    told,
)
from onnx import ModelProto

CASES = Path(__file__).parents[1] / "cases"
# of the largest magnitude; the folded weights are rounded to their type
TOLERANCE = {"double": 1e-9, "float": 1e-5, "float16": 1e-2, "bfloat16": 8e-2}


@dataclass
class Case:
    """A file of tests/cases/."""

    name: str
    text: str
    expected: list[str] = field(default_factory=list)
    nodes: str | None = None
    types: list[str] = field(default_factory=lambda: ["float", "double"])
    dims: dict[str, int] = field(default_factory=dict)
    runs: bool = True
    bug: str = ""


def read_case(path: Path) -> Case:
    case = Case(path.stem, "")
    lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
    case.text = "".join(line for line in lines if not line.startswith("#"))
    for line in (line[1:].strip() for line in lines if line.startswith("#")):
        key, _, value = line.partition(": ")
        match key:
            case "expect":
                case.expected.append(value)
            case "nodes":
                case.nodes = value
            case "types":
                case.types = value.split()
            case "dims":
                case.dims = {name: int(size) for name, size in re.findall(r"(\w+)=(\d+)", value)}
            case "not run":
                case.runs = False
            case "bug":
                case.bug = value
    return case


def parameters() -> list[object]:
    read = [read_case(path) for path in sorted(CASES.glob("*/*.txt"))]
    return [
        pytest.param(
            case,
            dtype,
            id=f"{case.name}-{dtype}",
            marks=pytest.mark.xfail(reason=case.bug, strict=True) if case.bug else (),
        )
        for case in read
        for dtype in case.types
    ]


@pytest.mark.parametrize(("case", "dtype"), parameters())
def test_case(case: Case, dtype: str) -> None:
    """The plan is the expected one, and the folded model is sound and computes what the model computed."""
    model = model_of(case.text, dtype)
    untouched = model.SerializeToString()
    planned, result = folded(model)

    assert [told(entry) for entry in planned.entries] == case.expected
    if case.nodes is not None:
        assert " ".join(node.op_type for node in result.graph.node) == case.nodes
    assert planned.nodes_after <= planned.nodes_before
    assert model.SerializeToString() == untouched
    assert_sound(model, result, case)

    again, same = folded(result)
    assert not again.changes, "folding the result again folds more"
    assert same == result
    assert planned.changes or result == model
    if case.runs:
        for feeds in feeds_of(model, case.dims):
            assert_same_function(model, result, feeds, TOLERANCE[dtype])


def assert_sound(model: ModelProto, result: ModelProto, case: Case) -> None:
    assert is_accepted(model) or not case.runs  # some that nothing can run are not valid to begin with
    if is_accepted(model):
        onnx.checker.check_model(result, full_check=True)
    assert_same_interface(model, result)
    assert_nothing_dead(model, result)


def assert_same_function(model: ModelProto, result: ModelProto, feeds: Feeds, tolerance: float) -> None:
    """Under the reference implementation, all values of the same name; under ONNX Runtime too where it can run both."""
    assert_same_meaning(run(model, feeds), run(result, feeds), tolerance)
    expected = run_fast(model, feeds)
    if expected is not None:
        actual = run_fast(result, feeds)
        assert actual is not None, "ONNX Runtime runs the model, but not the folded one"
        for one, other in zip(actual, expected, strict=True):
            assert_close(one, other, max(tolerance, 1e-5))


def run_fast(model: ModelProto, feeds: Feeds) -> list[Array] | None:
    """The outputs under ONNX Runtime, None if it cannot run the model."""
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 4
    options.intra_op_num_threads = 1
    try:
        session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
        return [np.asarray(value) for value in session.run(None, feeds)]
    except Exception:  # its exceptions have no common base
        return None


def test_every_case_says_what_it_shows() -> None:
    """The first line of a case is a sentence about it, and no two cases have the same name."""
    paths = sorted(CASES.glob("*/*.txt"))
    assert len({path.stem for path in paths}) == len(paths)
    for path in paths:
        first = path.read_text(encoding="utf-8").splitlines()[0]
        assert re.match(r"# .+\.$", first), f"{path.name}: {first}"
