"""A plan goes on until another run over what it has made finds nothing."""

import numpy as np
import onnx
import pytest
from helpers import assert_same_meaning, feeds_of, folded, model_of, run, told
from onnx import ModelProto, numpy_helper

from bnfold.folding.record import Outcome

HEADER = '<ir_version: 8, opset_import: ["": 17, "local": 1]>'

CALLED = """g (double[2, 4, 5, 5] x) => (double[2, 3, 4, 5] y) {
    [first] a = BatchNormalization (x, {bn: 4 positive unshifted})
    [call] b = local.Minus (a)
    [second] c = BatchNormalization (b, {bn2: 4 positive})
    [third] d = BatchNormalization (c, {bn3: 4 positive})
    [pool] e = MaxPool <kernel_shape = [2, 1]> (d)
    [sum] y = Einsum <equation = "ao,nabc->nobc"> ({w: 4, 3}, e) }
<domain: "local", opset_import: ["": 17]> Minus (v) => (n) { [neg] n = Neg (v) }"""
"""Once the second has gone into the Conv, the first can follow, but only if the call is written out."""


def hide_sizes(model: ModelProto, name: str) -> None:
    """Declares the constants as inputs, as old models do, one of them with sizes unknown."""
    for tensor in model.graph.initializer:
        dims = [None] * len(tensor.dims) if tensor.name == name else list(tensor.dims)
        model.graph.input.append(onnx.helper.make_tensor_value_info(tensor.name, tensor.data_type, dims))


def assert_settled(before: ModelProto) -> list[str]:
    """What became of everything, in a plan after which there is nothing left to do."""
    planned, after = folded(before)
    again, same = folded(after)
    assert not again.changes
    assert same == after
    onnx.checker.check_model(after, full_check=True)
    for feeds in feeds_of(before):
        assert_same_meaning(run(before, feeds), run(after, feeds), 1e-9)
    assert planned.nodes_after == len(after.graph.node)
    return [told(entry) for entry in planned.entries]


def test_a_function_is_written_out_once_that_helps() -> None:
    """What became of all is told in one plan."""
    assert assert_settled(model_of(f"{HEADER} {CALLED}", "double")) == [
        "first folded into sum through neg__1, pool",
        "second folded into third",
        "third reduced into sum through pool",
        "neg__1 kept: GRAPH_INPUT, SCALE_NOT_POSITIVE at pool",
    ]


def test_a_shape_that_a_fold_makes_known_is_used() -> None:
    """A weight that is declared with unknown sizes hides the shape of what follows until a fold writes it anew."""
    before = model_of(
        """<ir_version: 3, opset_import: ["": 9]> g (double[2, 3, 6, 6] x) => (double[2, 4, 6, 6] y) {
        [div] d = Div (x, {std: 1, 3, 1, 1})
        v = Transpose <perm = [1, 0, 2, 3]> ({w: 3, 4, 1, 1})
        [conv] c = Conv (d, v)
        [slice] s = Slice <axes = [2], starts = [0], ends = [6]> (c)
        [neg] n = Neg (s)
        y = Abs (n) }""",
        "double",
    )
    hide_sizes(before, "w")
    assert assert_settled(before) == ["div folded into conv", "neg folded into conv through slice"]


@pytest.mark.parametrize("dtype", ["float16", "double"])
def test_a_constant_that_becomes_another_type_is_written_as_that(dtype: str) -> None:
    """Two BatchNormalizations compose in the type of their parameters; the Add left of them is in that of the data."""
    before = model_of(
        """<ir_version: 10, opset_import: ["": 22]> g (T[2, 3, 4, 4] x) => (T[2, 4, 4, 4] y) {
        [relu] r = Relu (x)
        [bn] b = BatchNormalization (r, {bn: 3 float})
        [bn_2] c = BatchNormalization (b, {bn2: 3 float})
        [conv] y = Conv <pads = [1, 1, 1, 1]> (c, {w: 4, 3, 3, 3}) }""",
        dtype,
    )
    planned, after = folded(before)
    onnx.checker.check_model(after, full_check=True)
    assert planned.count(Outcome.REDUCED) == 1
    numbers = {tensor.name: numpy_helper.to_array(tensor) for tensor in after.graph.initializer}
    (add,) = (node for node in after.graph.node if node.op_type == "Add")
    assert numbers[add.input[1]].dtype == np.dtype({"float16": "float16", "double": "float64"}[dtype])


def test_two_runs_round_once() -> None:
    """The second run sees what the first has made before it is rounded."""
    before = model_of(
        """<ir_version: 3, opset_import: ["": 9]> g (float[2, 3, 6, 6] x) => (float[2, 4, 6, 6] y) {
        [div] d = Div (x, {std: 1, 3, 1, 1})
        v = Transpose <perm = [1, 0, 2, 3]> ({w: 3, 4, 1, 1})
        [conv] c = Conv (d, v)
        [slice] s = Slice <axes = [2], starts = [0], ends = [6]> (c)
        [scale] n = Mul (s, {r: 1, 4, 1, 1})
        y = Abs (n) }"""
    )
    hide_sizes(before, "w")
    _, after = folded(before)
    values = {tensor.name: numpy_helper.to_array(tensor).astype(np.longdouble) for tensor in before.graph.initializer}
    exact = values["w"].swapaxes(0, 1) / values["std"] * values["r"].swapaxes(0, 1)
    (weight,) = (numpy_helper.to_array(tensor) for tensor in after.graph.initializer)
    np.testing.assert_array_equal(weight, exact.astype(np.float32))
