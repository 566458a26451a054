"""What results tell: who stands together in a row, what it says, and what programs read."""

import json
from pathlib import Path

import numpy as np
import onnx
import pytest

from bnfold.affine import Affine
from bnfold.folding import Entry, Outcome, Plan
from bnfold.folding.record import Ability, Answer, Remnant
from bnfold.folding.told import Row, rows, table
from bnfold.model_io import load
from bnfold.optimization.formats import FORMATS
from bnfold.optimization.results import Checked, Failed, Optimized
from bnfold.reasons import Reason, Refusal

MODEL = """
    <ir_version: 8, opset_import: ["": 17]>
    net (float[1, 2] x) => (float[1, 2] y) {
        a = Relu (x)
        b = Identity (a)
        y = Relu (b)
    }
"""


def plan(*entries: Entry, after: int = 2) -> Plan:
    return Plan(entries, 5, after, load(onnx.parser.parse_model(MODEL)))


IDENTITY = Affine.identity(4)
ANSWERS = tuple(
    Answer(node, op_type, Ability.TOOK_OUTPUT, None, IDENTITY.extent)
    for node, op_type in (("conv1", "Conv"), ("conv2", "Conv"), ("relu", "Relu"))
)


def folded(node: str, into: str, op_type: str = "BatchNormalization", **details: object) -> Entry:
    return Entry(node, op_type, Outcome.FOLDED, (into,), answers=ANSWERS, **details)


def reduced(node: str, left: str, *refusals: Refusal) -> Entry:
    remnant = Remnant(node, left)
    return Entry(node, "BatchNormalization", Outcome.REDUCED, ("conv1",), (), (remnant,), refusals, answers=ANSWERS)


def kept(node: str, *refusals: Refusal, op_type: str = "BatchNormalization") -> Entry:
    return Entry(node, op_type, Outcome.KEPT, refusals=refusals)


def branches(value: str, readers: int = 2) -> Refusal:
    return Refusal(Reason.BRANCHES, {"value": value, "readers": readers}, "conv1")


SHIFT = Refusal(Reason.SHIFT_NOT_ZERO, {"op_type": "Relu"}, "relu")


def test_nodes_that_go_the_same_way_share_a_row():
    """The row names operators, not nodes."""
    (row,) = rows(plan(folded("bn1", "conv1"), folded("bn2", "conv2")))
    assert row == Row("folded", "2", "BatchNormalization", ("into Conv",))


def test_another_way_is_another_row():
    """Largest group first."""
    found = rows(plan(folded("a", "conv1", through=("relu",)), folded("b", "conv1"), folded("c", "conv2")))
    assert [(row.what, *row.notes) for row in found] == [("2", "into Conv"), ("1", "into Conv through Relu")]


def test_counts_end_below_each_other():
    """In the table; in a row of their own they are just numbers."""
    found = plan(*(folded(f"a{number}", "conv1") for number in range(12)), folded("b", "conv1", through=("relu",)))
    assert [cells[1] for cells in table(found).rows] == ["12", " 1"]


def test_kept_nodes_are_grouped_by_reason():
    """A fact that all share is told; one that they do not share is an example."""
    (row,) = rows(plan(kept("bn1", branches("x"), SHIFT), kept("bn2", branches("y"), SHIFT)))
    assert row.notes == (
        "BRANCHES: e.g. x has 2 readers (conv1)",
        "SHIFT_NOT_ZERO: Relu passes a scale but no shift",
        "bn1, bn2",
    )


def test_one_kept_node_is_told_in_full():
    """No example, and the place of the refusal."""
    (row,) = rows(plan(kept("bn1", branches("x"))))
    assert row.notes == ("BRANCHES: x has 2 readers (conv1)", "bn1")


def test_reduced_nodes_say_why_and_what_is_left():
    """Nodes that went the same way, for the same reasons, and left the same, share a row."""
    entries = [reduced("bn1", "Add", SHIFT), reduced("bn2", "Add", SHIFT), reduced("bn3", "Mul", SHIFT)]
    assert [row.notes for row in rows(plan(*entries))] == [
        ("into Conv", "SHIFT_NOT_ZERO: Relu passes a scale but no shift", "left: Add bn1, bn2"),
        ("into Conv", "SHIFT_NOT_ZERO: Relu passes a scale but no shift (relu)", "left: Mul bn3"),
    ]
    first, *_ = rows(plan(*entries), verbose=True)
    assert first.notes == (
        "into conv1",
        "left: Add bn1",
        "SHIFT_NOT_ZERO: Relu passes a scale but no shift (relu)",
    )


def test_many_names_are_cut_short():
    """A model of hundreds of nodes has a short table, which says how to see all."""
    (row,) = rows(plan(*(kept(f"bn{number}", SHIFT) for number in range(121))))
    assert row.what == "121"
    assert row.notes[-1] == "bn0, bn1, bn2 and 118 more (-v tells all)"


def test_other_affines_that_stay_are_counted():
    """Nobody asked for them; -v tells."""
    entries = plan(kept("mul", SHIFT, op_type="Mul"), folded("add", "conv1", "Add"), folded("bn", "conv1"))
    assert [(row.outcome, row.what, row.op_type) for row in rows(entries)] == [
        ("folded", "1", "BatchNormalization"),
        ("folded", "1", "Add"),
        ("kept", "1", "other affines"),
    ]
    assert [row.op_type for row in rows(entries, verbose=True)] == ["Mul", "Add", "BatchNormalization"]


def test_verbose_tells_all_of_a_node():
    """Names instead of operators, and what was renamed and copied."""
    (row,) = rows(plan(folded("bn", "conv1", renamed={"a": "a_folded"}, copied={"w": 12})), verbose=True)
    assert (row.what, row.notes) == (
        "bn",
        ("into conv1", "a is now a_folded", "w is shared, and was copied (12 bytes)"),
    )


@pytest.mark.parametrize(
    ("entries", "line"),
    [
        pytest.param([], "no BatchNormalization; 2 nodes", id="none"),
        pytest.param([folded("bn", "conv1")], "1 of 1 BatchNormalization would fold; 5 → 2 nodes", id="one"),
        pytest.param(
            [folded("bn", "conv1"), kept("bn2", SHIFT), folded("mul", "conv1", "Mul")],
            "1 of 2 BatchNormalizations and 1 other affine would fold; 5 → 2 nodes",
            id="some",
        ),
        pytest.param([kept("bn", SHIFT)], "0 of 1 BatchNormalization would fold; 2 nodes", id="kept"),
        pytest.param(
            [Entry("bn", "BatchNormalization", Outcome.REDUCED, ("conv1",))],
            "0 of 1 BatchNormalization would fold, 1 reduced to one node; 5 → 2 nodes",
            id="reduced",
        ),
        pytest.param(
            [folded("bn", "conv1"), Entry("conv2", "Conv", Outcome.MERGED, ("conv1",))],
            "1 of 1 BatchNormalization would fold, 1 parallel node merged; 5 → 2 nodes",
            id="merged",
        ),
        pytest.param(
            [folded("mul", "conv1", "Mul")],
            "no BatchNormalization and 1 other affine would fold; 5 → 2 nodes",
            id="others-only",
        ),
    ],
)
def test_headline(entries, line):
    """One line that says it all."""
    assert str(Checked("net.onnx", plan(*entries))).splitlines()[0] == f"net.onnx: {line}"


@pytest.mark.parametrize(
    ("sizes", "told"),
    [
        ((999, 10), "999 → 10 bytes"),
        ((46_800_000, 999_000), "46.8 → 1.0 MB"),
        ((2_250_000_000, 2_200_000_000), "2.2 → 2.2 GB"),
    ],
)
def test_sizes(sizes, told):
    """Both in the unit of the model, however little is left of it."""
    result = Optimized("net.onnx", plan(folded("bn", "conv1")), Path("out.onnx"), *sizes)
    assert f"; {told}; not verified\n" in str(result)
    assert str(result).endswith("\nwritten to out.onnx")


def test_json_is_what_the_docs_say():
    """Every key of the schema, with facts of any type as JSON has them."""
    facts = {"axes": frozenset({1, 0}), "expected": np.int64(3)}
    refusal = Refusal(Reason.WRONG_AXIS, {**facts, "op_type": "Conv"}, "conv1")
    result = Optimized(
        "net.onnx", plan(kept("bn", refusal), folded("bn2", "conv1"), reduced("bn3", "Add", SHIFT)), None, 10, 9
    )
    document = json.loads(FORMATS["json"]([result, Failed("bad.onnx", "is empty")], False))
    assert document["schema"] == 3
    good, bad = document["models"]
    assert bad == {"model": "bad.onnx", "error": "is empty"}
    entries = good.pop("entries")
    assert good == {
        "model": "net.onnx",
        "error": None,
        "output": None,
        "bytes": {"before": 10, "after": 9},
        "verification": None,
        "calibration": None,
        "batchnorms": {"folded": 1, "reduced": 1, "kept": 1, "replaced": 0},
        "spelt_out": 0,
        "affines": {"folded": 0, "reduced": 0, "kept": 0, "replaced": 0},
        "merged": 0,
        "nodes": {"before": 5, "after": 2},
    }
    assert entries[0] == {
        "node": "bn",
        "op_type": "BatchNormalization",
        "outcome": "kept",
        "into": [],
        "through": [],
        "left": [],
        "stays": None,
        "reasons": [
            {
                "reason": "WRONG_AXIS",
                "text": str(refusal),
                "facts": {"axes": [0, 1], "expected": 3, "op_type": "Conv"},
                "node": "conv1",
                "towards": "",
            }
        ],
        "renamed": {},
        "copied": {},
        "part_of": None,
    }
    assert entries[2]["left"] == [{"node": "bn3", "op_type": "Add"}]
    assert [reason["reason"] for reason in entries[2]["reasons"]] == ["SHIFT_NOT_ZERO"]


def test_a_model_that_failed_is_in_what_is_sent_around():
    """On a terminal its line is on standard error already."""
    failed = [Failed("bad.onnx", "is empty")]
    assert FORMATS["text"](failed, False) == ""
    assert FORMATS["markdown"](failed, False) == "**bad.onnx: is empty**"
