"""What a file mentions: no value that a fold makes may take a name that stands anywhere in it."""

from collections.abc import Callable

import onnx
import pytest
from helpers import assert_same_meaning, feeds_of, folded, model_of, run
from onnx import ModelProto, TensorProto, helper

from bnfold.graph import Graph
from bnfold.model_io import load

NAME = "w_folded"  # what the new weight would be called
CONV_BN = """<ir_version: 11, opset_import: ["": 17, "my": 1]>
g (float[2, 3, 6, 6] x, bool p) => (float[2, 3, 4, 4] y, float[2, 3, 4, 4] z) {
    c = Conv (x, {w: 3, 3, 3, 3})
    y = BatchNormalization (c, {bn: 3})
    z = If (p) <then_branch = a () => (float[2, 3, 4, 4] o) { o = my.twice (y) },
                else_branch = b () => (float[2, 3, 4, 4] o) { o = Identity (y) }>
}
<domain: "my", opset_import: ["": 17]> twice (x) => (y) { y = Add (x, x) }"""


def info(name: str = NAME, elem_type: int = TensorProto.INT64) -> onnx.ValueInfoProto:
    """A note that fits no weight."""
    return helper.make_tensor_value_info(name, elem_type, [7, 7])


def entry(key: str = "a", value: str = "b") -> onnx.StringStringEntryProto:
    return onnx.StringStringEntryProto(key=key, value=value)


def branch(model: ModelProto) -> onnx.GraphProto:
    graph: onnx.GraphProto = model.graph.node[2].attribute[0].g
    return graph


def sharding(model: ModelProto) -> None:
    configuration = model.graph.node[0].device_configurations.add(configuration_id="two")
    configuration.sharding_spec.add(tensor_name=NAME)


MENTIONS: dict[str, Callable[[ModelProto], object]] = {
    "value-info": lambda model: model.graph.value_info.append(info()),
    "value-info-of-a-body": lambda model: branch(model).value_info.append(info()),
    "value-info-of-a-function": lambda model: model.functions[0].value_info.append(info()),
    "quantization": lambda model: model.graph.quantization_annotation.add(tensor_name=NAME),
    "quantization-parameter": lambda model: model.graph.quantization_annotation.add(
        tensor_name="x", quant_parameter_tensor_names=[entry("SCALE_TENSOR", NAME)]
    ),
    "quantization-in-a-body": lambda model: branch(model).quantization_annotation.add(tensor_name=NAME),
    "metadata": lambda model: model.metadata_props.append(entry(value=NAME)),
    "metadata-key": lambda model: model.metadata_props.append(entry(key=NAME)),
    "metadata-of-a-graph": lambda model: model.graph.metadata_props.append(entry(value=NAME)),
    "metadata-of-a-node": lambda model: model.graph.node[0].metadata_props.append(entry(value=NAME)),
    "metadata-of-a-node-in-a-body": lambda model: branch(model).node[0].metadata_props.append(entry(value=NAME)),
    "metadata-of-a-tensor": lambda model: model.graph.initializer[0].metadata_props.append(entry(value=NAME)),
    "metadata-of-an-input": lambda model: model.graph.input[0].metadata_props.append(entry(value=NAME)),
    "metadata-of-a-function": lambda model: model.functions[0].metadata_props.append(entry(value=NAME)),
    "sharding": sharding,
    "training": lambda model: model.training_info.add().update_binding.append(entry("other", NAME)),
    "training-step": lambda model: model.training_info.add().algorithm.node.append(
        helper.make_node("Relu", ["w"], [NAME])
    ),
}


@pytest.mark.parametrize("name", MENTIONS)
def test_no_new_value_takes_a_name_that_is_mentioned(name):
    """The weight gets another name, and the model is as valid as before."""
    model = model_of(CONV_BN)
    MENTIONS[name](model)
    onnx.checker.check_model(model, full_check=True)
    planned, result = folded(model)
    assert planned.changes
    assert NAME not in {tensor.name for tensor in result.graph.initializer}
    onnx.checker.check_model(result, full_check=True)


def test_a_name_that_is_not_mentioned_is_taken():
    """It is what the tests above would find."""
    _, result = folded(model_of(CONV_BN))
    assert NAME in {tensor.name for tensor in result.graph.initializer}


def test_long_texts_are_no_names():
    """Metadata hold stack traces, which would only take memory."""
    model = model_of(CONV_BN)
    model.graph.node[0].metadata_props.append(entry(value="x" * 5000))
    assert not any(len(name) > 2000 for name in Graph(load(model)).names)


TRAINED = """<ir_version: 11, opset_import: ["": 17]> g (float[2, 3, 6, 6] x) => (float[2, 3, 4, 4] y) {
    c = Conv (x, {w: 3, 3, 3, 3}) d = BatchNormalization (c, {bn: 3}) y = BatchNormalization (d, {bnn: 3})
}"""


@pytest.mark.parametrize(
    ("read", "left"),
    [("w", 1), ("c", 2), ("d", 2), ("y", 1), ("x", 1)],
    ids=["weight", "conv", "bn", "output", "input"],
)
@pytest.mark.parametrize("how", ["input", "attribute", "output", "body"])
def test_what_a_training_step_reads_stays(how, read, left):
    """Its graph is appended to that of the model: values and weights have to be there, and mean the same."""
    model = model_of(TRAINED)
    algorithm = model.training_info.add().algorithm
    body = helper.make_graph(
        [helper.make_node("Relu", [read], ["inner"])], "b", [], [helper.make_tensor_value_info("inner", 1, [])]
    )
    nodes = {
        "input": helper.make_node("ReduceSum", [read], ["loss"]),
        "attribute": helper.make_node("Gradient", ["x"], ["loss"], domain="ai.onnx.preview.training", xs=[read], y="y"),
        "body": helper.make_node("If", ["p"], ["loss"], then_branch=body, else_branch=body),
    }
    if how == "output":
        algorithm.output.append(helper.make_tensor_value_info(read, 1, None))
    else:
        algorithm.node.append(nodes[how])
    _, result = folded(model)
    assert len(result.graph.node) == left
    (feeds,) = feeds_of(model)
    assert_same_meaning({read: run(model, feeds).get(read)}, {read: run(result, feeds).get(read)}, 1e-5)
    weights = [{tensor.name: tensor for tensor in each.graph.initializer} for each in (model, result)]
    assert weights[1].get(read) == weights[0].get(read)


def test_shardings_follow_the_values_of_a_node():
    """What a node says of its weight and result is said of the new ones; of what it no longer reads, nothing."""
    model = model_of("""<ir_version: 11, opset_import: ["": 17]> g (float[2, 3, 6, 6] x) => (float[2, 3, 4, 4] y) {
        c = Conv (x, {w: 3, 3, 3, 3}) b = BatchNormalization (c, {bn: 3})
        r = Relu (b) y = Mul (r, {s: 3, 1, 1 positive})
    }""")
    for node in model.graph.node:
        configuration = node.device_configurations.add(configuration_id="two")
        for name in (*node.input, *node.output, "another"):
            configuration.sharding_spec.add(tensor_name=name)
    _, result = folded(model)
    for node in result.graph.node:
        named = [spec.tensor_name for spec in node.device_configurations[0].sharding_spec]
        assert named == [*node.input[:2], *node.output, "another"]


def test_a_sharding_goes_with_an_input():
    """A BatchNormalization that becomes an Add reads no mean any more."""
    model = model_of("""<ir_version: 11, opset_import: ["": 17]> g (float[2, 3, 6, 6] x) => (float[2, 4, 6, 6] y) {
        b = BatchNormalization (x, {bn: 3}) y = Conv <pads = [1, 1, 1, 1]> (b, {w: 4, 3, 3, 3})
    }""")
    specs = model.graph.node[0].device_configurations.add(configuration_id="two").sharding_spec
    for name in model.graph.node[0].input:
        specs.add(tensor_name=name)
    _, result = folded(model)
    add = result.graph.node[0]
    assert add.op_type == "Add"
    assert [spec.tensor_name for spec in add.device_configurations[0].sharding_spec] == list(add.input)
