"""What operators say to one affine node."""

import pytest
from helpers import model_of
from networks import MODELS

from bnfold.folding import FoldOptions
from bnfold.folding.asked import asked, table
from bnfold.limits import Deadline
from bnfold.model_io import ModelError, load


def answers(model, pattern, **options):
    return asked(load(MODELS / f"{model}.onnx"), pattern, FoldOptions(**options))


def told(found):
    return [(each.way, each.op_type, each.said) for each in found]


def test_who_takes_it_in():
    """The node itself, its way up with the equation of the operator that takes it, and its way down."""
    node = "/1/body/body.0/body.0.1/BatchNormalization"
    itself, up, down = answers("digits_resnet", node)
    assert (itself.node, itself.operator, itself.said) == (node, node, "is an affine")
    assert (up.way, up.op_type, up.said) == ("up", "Conv", "takes it in")
    assert up.equation == "s(W*x + b) + t = (sW)*x + (sb + t)"
    assert (down.way, down.op_type) == ("down", "Relu")
    assert down.said.startswith("Relu passes a scale but no shift")


def test_halves_of_what_cannot_go_whole():
    """The scale goes down through three operators into the next BatchNormalization."""
    found = told(answers("digits_preact", "/4/4.0/*"))
    assert [way for way, _, _ in found] == [
        *("", "up", "down", "scale up"),
        *["scale down"] * 4,
        *("shift up", "shift down"),
    ]
    assert found[4:8] == [
        ("scale down", "Relu", "lets it pass"),
        ("scale down", "GlobalAveragePool", "lets it pass"),
        ("scale down", "Flatten", "lets it pass"),
        ("scale down", "BatchNormalization", "takes it in"),
    ]


def test_where_a_way_cannot_begin():
    """What many read, and an input of the graph, are said by the node itself."""
    found = told(answers("digits_preact", "/0/0.0/BatchNormalization"))
    assert ("up", "BatchNormalization", "image is an input of the graph (/0/0.0/BatchNormalization)") in found


def test_no_affine():
    """A node in training mode says why it is none that can be moved."""
    (only, *_) = answers("digits_mlp.train", "*BatchNormalization")
    assert only.said.startswith("runs in training mode")
    assert not only.equation


def test_nothing_of_that_name():
    """Other operators are not asked for."""
    with pytest.raises(ModelError, match="no BatchNormalization or other affine node matches '/1/Relu'"):
        answers("digits_resnet", "/1/Relu")


def test_out_of_time():
    """Nothing is asked any more."""
    assert asked(load(MODELS / "digits_resnet.onnx"), "*", FoldOptions(), Deadline.after(-1)) == ()


def test_equations_stand_below():
    """Sentences and equations are long."""
    shown = table(answers("digits_resnet", "/1/body/body.0/*"))
    assert shown.rows[1][3] == ("takes it in", "s(W*x + b) + t = (sW)*x + (sb + t)")


def in_text(text, pattern):
    model = model_of('<ir_version: 8, opset_import: ["": 17]> ' + text)
    return asked(load(model), pattern, FoldOptions())


def test_a_name_with_brackets():
    """A name is itself before it is a glob."""
    text = "g (float[1, 3, 4, 4] x) => (float[1, 3, 4, 4] y) { [bn] y = BatchNormalization (x, {bn: 3}) }"
    model = model_of('<ir_version: 8, opset_import: ["": 17]> ' + text)
    model.graph.node[0].name = "layer[0]/bn"
    assert {each.node for each in asked(load(model), "layer[0]/bn", FoldOptions())} == {"layer[0]/bn"}


def test_what_has_one_half_only():
    """A scale is not asked about once more as a half."""
    found = in_text("g (float[2, 3] x) => (float[2, 3] y) { [m] y = Mul (x, {s: 3}) }", "m")
    assert [each.way for each in found] == ["", "up", "down"]


def test_only_the_last_is_an_obstacle():
    """What comes before it on the way lets it pass."""
    found = in_text(
        "g (float[1, 3, 4, 4] x) => (float[1, 3, 4, 4] y) "
        "{ [b] b = BatchNormalization (x, {bn: 3}) t = Transpose <perm = [0, 1, 3, 2]> (b) y = Relu (t) }",
        "b",
    )
    passed, stopped = (each.said for each in found if each.way == "down")
    assert passed == "lets it pass"
    assert stopped.startswith("Relu passes a scale but no shift")
