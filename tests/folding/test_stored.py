"""Constant nodes become initializers where something is folded, and an Identity of one goes."""

import numpy as np
import onnx
import pytest
from helpers import assert_same_meaning, feeds_of, folded, is_accepted, model_of, run

from bnfold.folding import FoldOptions, plan
from bnfold.model_io import load, to_proto

HEADER = '<ir_version: 8, opset_import: ["": 17]>'
CLIPPED = """
    g (float[2, 4, 5, 5] x) => (float[2, 4, 5, 5] y) {
        c = Conv (x, {w: 4, 4, 1, 1}) b = BatchNormalization (c, {bn: 4})
        [low] low = Constant <value = float {0.0}> () [high] high = Constant <value_float = 6.0> ()
        [same] same = Identity (high)
        [clip] y = Clip (b, low, same)
    }"""


def types_of(model) -> list[str]:
    return [node.op_type for node in model.graph.node]


def assert_equal(before, after) -> None:
    for feeds in feeds_of(before):
        assert_same_meaning(run(before, feeds), run(after, feeds), 1e-5)
    assert is_accepted(after) is is_accepted(before)


def test_they_become_initializers():
    """Of the same names and values; the model computes what it did, and folding it again changes nothing."""
    model = model_of(HEADER + CLIPPED)
    planned, result = folded(model)
    assert types_of(result) == ["Conv", "Clip"]
    assert planned.nodes_after == 2
    stored = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in result.graph.initializer}
    assert stored["low"] == 0
    assert stored["high"] == 6
    assert stored["high"].dtype == np.float32
    assert result.graph.node[1].input[1:] == ["low", "high"]
    assert len(result.SerializeToString()) < len(model.SerializeToString())
    assert_equal(model, result)
    assert folded(result)[1].SerializeToString() == result.SerializeToString()


def test_nothing_else_to_fold():
    """A model in which nothing folds stays as it is, byte for byte."""
    model = model_of(HEADER + "g (float[2] x) => (float[2] y) { c = Constant <value_float = 6.0> () y = Max (x, c) }")
    assert folded(model)[1].SerializeToString() == model.SerializeToString()


@pytest.mark.parametrize(
    ("kept", "left"),
    [
        ("low", ["Conv", "Constant", "Clip"]),
        ("same", ["Conv", "Identity", "Clip"]),
        ("clip", ["Conv", "Identity", "Clip"]),
    ],
)
def test_keep(kept, left):
    """What is kept by name stays, and reads what it read."""
    model = model_of(HEADER + CLIPPED)
    result = to_proto(plan(load(model), FoldOptions(keep=[kept])).model)
    assert types_of(result) == left
    before = next(node for node in model.graph.node if node.name == kept)
    assert before in list(result.graph.node)


def test_before_ir_4():
    """There an initializer would be an input of the model."""
    model = model_of(HEADER + CLIPPED)
    model.ir_version = 3
    model.graph.input.extend(
        onnx.helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims)
        for tensor in model.graph.initializer
    )
    assert types_of(folded(model)[1]).count("Constant") == 2


def test_an_output():
    """A constant that is an output keeps its node, and so does the Identity that gives an output its name."""
    text = CLIPPED.replace("y) {", "y, float[] low, float[] same) {")
    model = model_of(HEADER + text)
    result = folded(model)[1]
    assert types_of(result) == ["Conv", "Constant", "Identity", "Clip"]
    assert_equal(model, result)


def test_read_in_a_body():
    """A body sees the initializer as it saw what the node made."""
    text = CLIPPED.replace(
        "[clip] y = Clip (b, low, same)",
        """y = If (k) <then_branch = then () => (float[2, 4, 5, 5] t) { t = Clip (b, low, same) },
                    else_branch = other () => (float[2, 4, 5, 5] e) { e = Identity (b) }>""",
    ).replace("x) =>", "x, bool k) =>")
    model = model_of(HEADER + text)
    result = folded(model)[1]
    assert types_of(result) == ["Conv", "If"]
    assert_equal(model, result)


def test_a_name_that_a_body_has_too():
    """A body that comes before the node must not find an initializer where it had a value of its own."""
    text = CLIPPED.replace("x) =>", "x, bool k) =>").replace(
        "c = Conv (x",
        """i = If (k) <then_branch = then () => (float[2, 4, 5, 5] t) { low = Relu (x) t = Abs (low) },
                    else_branch = other () => (float[2, 4, 5, 5] e) { e = Identity (x) }>
        c = Conv (i""",
    )
    model = model_of(HEADER + text)
    result = folded(model)[1]
    assert types_of(result) == ["If", "Conv", "Constant", "Clip"]
    assert_equal(model, result)


def test_a_malformed_constant():
    """A node that is not valid stays, and the others are folded all the same."""
    model = model_of(HEADER + CLIPPED)
    low = next(node for node in model.graph.node if node.name == "low")
    low.attribute[0].CopyFrom(onnx.helper.make_attribute("value_float", 1))
    result = to_proto(plan(load(model)).model)
    assert types_of(result) == ["Conv", "Constant", "Clip"]


def test_a_constant_with_two_values():
    """Not valid, though runtimes load it: which of the two counts is theirs to say, so it stays, and is no constant."""
    model = model_of(
        HEADER
        + CLIPPED.replace(
            "[low] low = Constant <value = float {0.0}> ()", "[low] low = Constant <value_float = 3.0> ()"
        )
    )
    (low,) = (node for node in model.graph.node if node.name == "low")
    low.attribute.append(onnx.helper.make_attribute("value", onnx.numpy_helper.from_array(np.float32(0.5))))
    _, result = folded(model)
    assert [node for node in result.graph.node if node.name == "low"] == [low]
    assert [node.op_type for node in result.graph.node if node.op_type == "BatchNormalization"] == []


def test_from_ir_4():
    """From there on an initializer is no input."""
    model = model_of(HEADER + CLIPPED)
    model.ir_version = 4
    assert types_of(folded(model)[1]) == ["Conv", "Clip"]


@pytest.mark.parametrize("op_type", ["Constant", "Identity"])
def test_without_an_output(op_type):
    """Not valid, and no reason to fail."""
    model = model_of(HEADER + CLIPPED)
    given, value = ([], {"value_float": 1.0}) if op_type == "Constant" else (["high"], {})
    model.graph.node.insert(4, onnx.helper.make_node(op_type, given, [], **value))
    assert types_of(to_proto(plan(load(model)).model)) == ["Conv", op_type, "Clip"]


def test_noted_by_a_quantizer():
    """An Identity stays where values are named in quantization notes."""
    model = model_of(HEADER + CLIPPED)
    model.graph.quantization_annotation.add(tensor_name="same")
    result = to_proto(plan(load(model)).model)
    assert types_of(result) == ["Conv", "Identity", "Clip"]
    assert [note.tensor_name for note in result.graph.quantization_annotation] == ["same"]
