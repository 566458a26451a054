"""Two models node by node."""

import onnx

from bnfold.optimization.difference import NodeChange, difference


def model(body: str) -> onnx.ModelProto:
    return onnx.parser.parse_model(
        f'<ir_version: 8, opset_import: ["": 17]> net (float[2] x, float[2] w) => (float[2] y) {{ {body} }}'
    )


def named(made: onnx.ModelProto, *names: str) -> onnx.ModelProto:
    for node, name in zip(made.graph.node, names, strict=True):
        node.name = name
    return made


BEFORE = model("a = Relu (x) b = Elu <alpha = 2.> (a) y = Mul (b, w)")


def test_equal_models_have_none():
    """Neither with names nor without."""
    assert difference(BEFORE, BEFORE) == ()
    assert difference(named(model("y = Relu (x)"), "n"), named(model("y = Relu (x)"), "n")) == ()


def test_all_that_may_change_of_a_node():
    """Its type, what it reads and makes, and its attributes."""
    before = named(model("a = Elu <alpha = 2.> (x) y = Mul (a, w)"), "e", "m")
    after = named(model("b = Elu <alpha = 3.> (x) y = Add (b, x)"), "e", "m")
    assert difference(before, after) == (
        NodeChange("changed", "e", "Elu", ("output 0: a → b", "alpha: 2.0 → 3.0")),
        NodeChange("changed", "m", "Mul", ("is now Add", "input 0: a → b", "input 1: w → x")),
    )


def test_nodes_without_names():
    """Are the same by what they make, or else by what they read."""
    after = model("c = Relu (x) y = Mul (c, w)")
    assert difference(BEFORE, after) == (
        NodeChange("removed", "b", "Elu"),
        NodeChange("changed", "a", "Relu", ("output 0: a → c",)),
        NodeChange("changed", "y", "Mul", ("input 0: b → c",)),
    )


def test_what_has_come_says_where_it_stands():
    """And an input that is left out is none."""
    after = model("a = Relu (x) b = Elu <alpha = 2.> (a) z = Mul (b, w) y = Clip (z, , w)")
    assert difference(BEFORE, after) == (
        NodeChange("changed", "y", "Mul", ("output 0: y → z",)),
        NodeChange("added", "y", "Clip", ("reads z, w; makes y",)),
    )


def test_nodes_of_one_name():
    """Names need not be unique; then the order decides."""
    two = named(model("a = Relu (x) y = Relu (a)"), "n", "n")
    assert difference(two, two) == ()
    assert difference(two, named(model("y = Relu (x)"), "n")) == (
        NodeChange("removed", "n", "Relu"),
        NodeChange("changed", "n", "Relu", ("output 0: a → y",)),
    )


def test_attributes_of_no_type():
    """Old exporters write such; that is no reason to fail."""
    before, after = model("y = Relu (x)"), model("y = Relu (x)")
    before.graph.node[0].attribute.add(name="consumed_inputs")
    assert difference(before, after) == (
        NodeChange("changed", "y", "Relu", ("consumed_inputs: of no known type → nothing",)),
    )


def test_an_input_that_is_gone():
    """It is nothing now."""
    (change,) = difference(model("y = Clip (x, w)"), model("y = Clip (x)"))
    assert change.details == ("input 1: w → nothing",)
