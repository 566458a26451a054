"""What a file mentions: no value that a fold makes may take a name that stands anywhere in it."""

from collections.abc import Callable

import onnx
import pytest
from helpers import folded, model_of
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
