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
from bnfold.optimization.gate import Gate
from bnfold.optimization.inventory import Change, Inventory
from bnfold.optimization.results import Checked, Failed, Optimized
from bnfold.optimization.status import Status
from bnfold.optimization.summary import summary
from bnfold.page import LOG, Tone, markdown
from bnfold.reasons import Reason, Refusal
from bnfold.verification import Verdict, Verification

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


def test_what_is_part_of_an_operator_is_counted():
    """Else nobody would know that nearly all of what stays is where it should be."""
    fused = Refusal(Reason.FUSED_BY_RUNTIME, {"pattern": "Gelu"})
    entries = [kept("mul", fused, op_type="Mul"), kept("div", fused, op_type="Div"), kept("add", SHIFT, op_type="Add")]
    assert rows(plan(*entries))[0].notes == ("2 of them are FUSED_BY_RUNTIME; -v tells why",)
    assert rows(plan(entries[0]))[0].notes == ("1 of them is FUSED_BY_RUNTIME; -v tells why",)


def test_what_the_gate_stops_is_named():
    """All of it with -v; nothing where it lets all pass."""
    entries = [kept(f"bn{number}", SHIFT) for number in range(5)]
    strict = Checked("net.onnx", plan(*entries), Gate(("any", "affines")))
    shown = "--fail-on affines,any stops 5 nodes: bn0, bn1, bn2"
    assert strict.page().notes == (f"{shown} and 2 more (-v tells all)",)
    assert strict.page(verbose=True).notes == (f"{shown}, bn3, bn4",)
    assert Checked("net.onnx", plan(*entries)).page().notes == ()


def test_verbose_tells_all_of_a_node():
    """Names instead of operators, and what was renamed and copied."""
    (row,) = rows(plan(folded("bn", "conv1", renamed={"a": "a_folded"}, copied={"w": 12})), verbose=True)
    assert (row.what, row.notes) == (
        "bn",
        ("into conv1", "a is now a_folded", "w is shared, and was copied (12 bytes)"),
    )


@pytest.mark.parametrize(
    ("entries", "lines"),
    [
        pytest.param([], ["CLEAN  net.onnx  no BatchNormalization"], id="none"),
        pytest.param([folded("bn", "conv1")], ["FOUND  net.onnx  1 of 1 BatchNormalization would fold"], id="one"),
        pytest.param(
            [folded("bn", "conv1"), kept("bn2", SHIFT), folded("mul", "conv1", "Mul")],
            ["FOUND  net.onnx  1 of 2 BatchNormalizations would fold", "  also 1 other affine folded"],
            id="some",
        ),
        pytest.param([kept("bn", SHIFT)], ["CLEAN  net.onnx  0 of 1 BatchNormalization would fold"], id="kept"),
        pytest.param(
            [Entry("bn", "BatchNormalization", Outcome.REDUCED, ("conv1",))],
            ["FOUND  net.onnx  0 of 1 BatchNormalization would fold, 1 reduced"],
            id="reduced",
        ),
        pytest.param(
            [folded("bn", "conv1"), Entry("conv2", "Conv", Outcome.MERGED, ("conv1",))],
            ["FOUND  net.onnx  1 of 1 BatchNormalization would fold", "  also 1 node merged"],
            id="merged",
        ),
        pytest.param(
            [folded("mul", "conv1", "Mul")],
            ["CLEAN  net.onnx  no BatchNormalization, 1 other affine would fold"],
            id="others-only",
        ),
        pytest.param(
            [folded("bn", "conv1"), folded("mul", "conv1", "Mul", part_of="mul")],
            [
                "FOUND  net.onnx  2 of 2 BatchNormalizations would fold",
                "  1 BatchNormalization is spelt out as Mul and Add",
            ],
            id="spelt-out",
        ),
    ],
)
def test_headline(entries, lines):
    """One line that says it all, and what there is beside it."""
    assert str(Checked("net.onnx", plan(*entries))).splitlines()[: len(lines)] == lines


EQUIVALENT = Verification(Verdict.EQUIVALENT)
REDUCED = reduced("bn2", "Add", SHIFT)


@pytest.mark.parametrize(
    ("entries", "details", "line"),
    [
        pytest.param(
            [folded("bn", "conv1")],
            {"verification": EQUIVALENT},
            "OK  net.onnx  1 of 1 BatchNormalization folded, verified",
            id="all",
        ),
        pytest.param(
            [folded("bn", "conv1"), REDUCED],
            {"verification": EQUIVALENT},
            "PARTLY  net.onnx  1 of 2 BatchNormalizations folded, 1 reduced, verified",
            id="some",
        ),
        pytest.param(
            [folded("bn", "conv1")],
            {},
            "UNVERIFIED  net.onnx  1 of 1 BatchNormalization folded, not verified",
            id="not-compared",
        ),
        pytest.param(
            [folded("bn", "conv1"), REDUCED],
            {"verification": Verification(Verdict.NOT_VERIFIED, reasons=("out of time",))},
            "UNVERIFIED  net.onnx  1 of 2 BatchNormalizations folded, 1 reduced, not verified",
            id="not-found-out",
        ),
        pytest.param(
            [folded("bn", "conv1")],
            {"verification": Verification(Verdict.DIFFERENT)},
            "DIFFERENT  net.onnx  1 of 1 BatchNormalization folded, not equivalent, not written",
            id="different",
        ),
        pytest.param([], {}, "NOTHING  net.onnx  no BatchNormalization, unchanged", id="nothing"),
        pytest.param(
            [folded("bn", "conv1"), kept("bn2", SHIFT)],
            {"stopped": (kept("bn2", SHIFT),)},
            "STAYS  net.onnx  1 of 2 BatchNormalizations folded, not written",
            id="none-may-stay",
        ),
    ],
)
def test_the_first_word_says_what_it_comes_to(entries, details, line):
    """Scripts look for it; the most serious of what could be said is."""
    result = Optimized("net.onnx", plan(*entries), None, 10, 9, **details)
    assert str(result).splitlines()[0] == line
    assert result.to_dict()["status"] == result.status.value == line.partition(" ")[0]


BEFORE = Inventory({"Conv": 2, "BatchNormalization": 1, "Add": 1}, 4000, 9000)
AFTER = Inventory({"Conv": 1, "Add": 1, "Mul": 1}, 3000, 4500)


def test_operators_and_totals_before_and_after():
    """Of the operators, those of which there are more or fewer."""
    result = Optimized(
        "net.onnx",
        plan(folded("bn", "conv1")),
        Path("out.onnx"),
        46_800_000,
        999_000,
        change=Change(BEFORE, AFTER),
        seconds=1.26,
    )
    lines = str(result).splitlines()
    assert lines[1:9] == [
        "                       before   after   change",
        "  BatchNormalization        1       0       -1",
        "  Conv                      2       1       -1",
        "  Mul                       0       1       +1",
        "  nodes                     5       2  -60.0 %",
        "  size                46.8 MB  1.0 MB  -97.9 %",
        "  parameters            4,000   3,000  -25.0 %",
        "  MACs                  9,000   4,500  -50.0 %",
    ]
    assert lines[-2:] == ["took 1.3 s", "written to out.onnx"]
    assert markdown(result.page()).count("| parameters | 4,000 | 3,000 | -25.0 % |") == 1
    assert "<td>4,000</td>" in result._repr_html_()
    told = result.to_dict()
    assert told["operators"]["Conv"] == {"before": 2, "after": 1}
    assert (told["parameters"], told["macs"]) == ({"before": 4000, "after": 3000}, {"before": 9000, "after": 4500})


def test_many_types_of_operators_share_a_row():
    """The table stays as short as a screen."""
    many = Inventory({f"Op{number:02}": 1 for number in range(30)}, 1)
    rows = summary(Change(many, Inventory({}, 1)), (30, 0)).rows
    assert [row[:3] for row in rows[11:]] == [
        ("Op11", "1", "0"),
        ("18 other types", "18", "0"),
        ("nodes", "30", "0"),
        ("parameters", "1", "1"),
    ]


@pytest.mark.parametrize(
    ("sizes", "told"),
    [
        ((999, 10), ("999 bytes", "10 bytes", "-99.0 %")),
        ((46_800_000, 999_000), ("46.8 MB", "1.0 MB", "-97.9 %")),
        ((2_250_000_000, 2_300_000_000), ("2.2 GB", "2.3 GB", "+2.2 %")),
    ],
)
def test_sizes(sizes, told):
    """Both in the unit of the model, however little is left of it."""
    (row,) = (row for row in summary(Change(BEFORE, AFTER), (5, 2), sizes).rows if row[0] == "size")
    assert row[1:] == told


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
        "status": "UNVERIFIED",
        "output": None,
        "bytes": {"before": 10, "after": 9},
        "verification": None,
        "calibration": None,
        "batchnorms": {"folded": 1, "reduced": 1, "kept": 1, "replaced": 0},
        "spelt_out": 0,
        "affines": {"folded": 0, "reduced": 0, "kept": 0, "replaced": 0},
        "norms": {"cleared": 0, "kept": 0},
        "merged": 0,
        "nodes": {"before": 5, "after": 2},
        "seconds": None,
        "dry_run": False,
        "diff": None,
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
        "assumes": None,
        "part_of": None,
    }
    assert entries[2]["left"] == [{"node": "bn3", "op_type": "Add"}]
    assert [reason["reason"] for reason in entries[2]["reasons"]] == ["SHIFT_NOT_ZERO"]


def test_a_model_that_failed_is_in_what_is_sent_around():
    """On a terminal its line is on standard error already."""
    failed = [Failed("bad.onnx", "is empty")]
    assert FORMATS["text"](failed, False, LOG) == ""
    assert FORMATS["markdown"](failed, False, LOG) == "**FAILED bad.onnx is empty**"


def test_tones():
    """Red, as an error is."""
    assert Status.STAYS.tone is Tone.BAD
