"""What stands in the place of a BatchNormalization that stays: a Mul and an Add, or a depthwise Conv."""

import numpy as np
import onnx
import pytest
from helpers import (
    assert_close,
    assert_nothing_dead,
    assert_same_interface,
    assert_same_meaning,
    feeds_of,
    folded,
    model_of,
    run,
)
from onnx import numpy_helper

import bnfold
from bnfold.folding import Leftover, Outcome
from bnfold.reasons import Reason

SHAPES = {2: "T[2, 4]", 3: "T[2, 4, 5]", 4: "T[2, 4, 5, 5]", 5: "T[2, 4, 3, 3, 3]"}


def stuck(rank=4, norm="{bn: 4}", opset=17, dtype="float"):
    """A BatchNormalization between two operators that take nothing in."""
    body = f"""<ir_version: 8, opset_import: ["": {opset}]>
    g ({SHAPES[rank]} x) => ({SHAPES[rank]} y) {{
        [before] a = Sigmoid (x)
        [bn] b = BatchNormalization (a, {norm})
        [after] y = Tanh (b)
    }}"""
    return model_of(body, dtype)


def types_of(model):
    return " ".join(node.op_type for node in model.graph.node)


def assert_replaced(model, form, nodes, relative):
    """The nodes are those, the result is sound and computes the same, and a second run changes nothing."""
    planned, result = folded(model, leftover=form)
    assert [entry.outcome for entry in planned.entries if entry.is_batchnorm] == [Outcome.REPLACED]
    assert planned.entries[0].refusals
    assert types_of(result) == nodes
    onnx.checker.check_model(result, full_check=True)
    assert_same_interface(model, result)
    assert_nothing_dead(model, result)
    feeds = feeds_of(model)[0]
    assert_same_meaning(run(model, feeds), run(result, feeds), relative)
    again, same = folded(result, leftover=form)
    assert not again.changes
    assert same == result
    return result


@pytest.mark.parametrize(
    ("norm", "nodes"),
    [
        pytest.param("{bn: 4}", "Sigmoid Mul Add Tanh", id="both"),
        pytest.param("{bn: 4 unshifted}", "Sigmoid Mul Tanh", id="scale"),
    ],
)
@pytest.mark.parametrize("rank", SHAPES)
@pytest.mark.parametrize(("dtype", "relative"), [("float", 1e-6), ("double", 1e-14), ("float16", 1e-2)])
def test_affine(norm, nodes, rank, dtype, relative):
    """One Mul and one Add; one of them where the other would do nothing."""
    assert_replaced(stuck(rank, norm, dtype=dtype), Leftover.AFFINE, nodes, relative)


def without_scale(model, shift):
    """The model with a BatchNormalization whose scale is 1 and whose shift is given."""
    values = {"scale": 1.0, "bias": shift, "mean": 0.0, "var": 1.0 - 2.0**-16}  # epsilon makes the sum 1
    for tensor in model.graph.initializer:
        value = np.full(4, values[tensor.name.rpartition("_")[2]], np.float32)
        tensor.CopyFrom(numpy_helper.from_array(value, tensor.name))
    model.graph.node[1].attribute.append(onnx.helper.make_attribute("epsilon", 2.0**-16))
    return model


@pytest.mark.parametrize("form", [Leftover.AFFINE, Leftover.CONV])
def test_what_does_nothing_is_an_identity(form):
    """One that cannot go because of names, but computes nothing, is not made arithmetic."""
    text = """<ir_version: 8, opset_import: ["": 17]>
    g (float[2, 4, 5, 5] x) => (float[2, 4, 5, 5] a, float[2, 4, 5, 5] b) {
        a = Sigmoid (x)
        [bn] b = BatchNormalization (a, {bn: 4})
    }"""
    model = without_scale(model_of(text), 0.0)
    assert_replaced(model, form, "Sigmoid Identity", 1e-6)


def test_a_shift_is_one_add():
    """Where the scale is 1, no Mul is made."""
    assert_replaced(without_scale(stuck(), 0.5), Leftover.AFFINE, "Sigmoid Add Tanh", 1e-6)


@pytest.mark.parametrize("norm", ["{bn: 4}", "{bn: 4 unshifted}"])
@pytest.mark.parametrize("rank", [3, 4, 5])
@pytest.mark.parametrize(("dtype", "relative"), [("float", 1e-6), ("float16", 1e-2)])
def test_conv(norm, rank, dtype, relative):
    """A depthwise Conv of one tap, with a bias where there is a shift."""
    result = assert_replaced(stuck(rank, norm, dtype=dtype), Leftover.CONV, "Sigmoid Conv Tanh", relative)
    conv = result.graph.node[1]
    assert conv.name == "bn"
    assert len(conv.input) == (2 if "unshifted" in norm else 3)
    weight = next(tensor for tensor in result.graph.initializer if tensor.name == conv.input[1])
    assert list(weight.dims) == [4, 1, *[1] * (rank - 2)]


@pytest.mark.parametrize(("rank", "dtype"), [(2, "float"), (4, "double")])
def test_conv_falls_back(rank, dtype):
    """A matrix, and a type that Conv is seldom built for, get a Mul and an Add."""
    assert_replaced(stuck(rank, dtype=dtype), Leftover.CONV, "Sigmoid Mul Add Tanh", 1e-6)


def test_constants_are_rounded_once():
    """Scale and shift are the nearest numbers of their type to the exact values."""
    model = stuck()
    _, result = folded(model, leftover=Leftover.AFFINE)
    parts = {tensor.name: numpy_helper.to_array(tensor).astype(np.float64) for tensor in model.graph.initializer}
    gamma, beta, mean, var = (parts[f"bn_{part}"] for part in ("scale", "bias", "mean", "var"))
    scale = gamma / np.sqrt(var + float(np.float32(1e-5)))
    written = {tensor.name: numpy_helper.to_array(tensor).ravel() for tensor in result.graph.initializer}
    mul, add = result.graph.node[1:3]
    np.testing.assert_array_equal(written[mul.input[1]], scale.astype(np.float32))
    np.testing.assert_array_equal(written[add.input[1]], (beta - mean * scale).astype(np.float32))


@pytest.mark.parametrize("form", Leftover)
def test_what_folds_is_folded(form):
    """Only what finds no place is replaced; the entries tell them apart."""
    text = """<ir_version: 8, opset_import: ["": 17]>
    g (float[2, 4, 5, 5] x) => (float[2, 4, 5, 5] y) {
        a = Conv (x, {w: 4, 4, 1, 1})
        b = BatchNormalization (a, {bn: 4})
        c = Sigmoid (b)
        [stays] d = BatchNormalization (c, {bn_2: 4})
        y = Tanh (d)
    }"""
    model = model_of(text)
    planned, result = folded(model, leftover=form)
    left = Outcome.KEPT if form is Leftover.KEEP else Outcome.REPLACED
    assert [entry.outcome for entry in planned.entries] == [Outcome.FOLDED, left]
    assert (
        types_of(result)
        == {
            Leftover.KEEP: "Conv Sigmoid BatchNormalization Tanh",
            Leftover.AFFINE: "Conv Sigmoid Mul Add Tanh",
            Leftover.CONV: "Conv Sigmoid Conv Tanh",
        }[form]
    )


@pytest.mark.parametrize(
    ("model", "options"),
    [
        pytest.param(stuck(opset=14), {"keep": ["bn"]}, id="named"),
        pytest.param(stuck(opset=6, norm="{bn: 4}"), {}, id="old-opset"),
    ],
)
def test_what_stays_nevertheless(model, options):
    """A node named by `keep`, and one before opset 7 where Mul and Add broadcast otherwise."""
    if model.opset_import[0].version < 7:
        model.graph.node[1].attribute.append(onnx.helper.make_attribute("is_test", 1))
    planned, result = folded(model, leftover=Leftover.AFFINE, **options)
    assert not planned.changes
    assert result == model


def test_training_mode_stays():
    """It is no affine, so nothing can take its place."""
    model = stuck(opset=15)
    model.graph.node[1].attribute.append(onnx.helper.make_attribute("training_mode", 1))
    planned, result = folded(model, leftover=Leftover.CONV)
    assert [refusal.reason for refusal in planned.entries[0].refusals] == [Reason.TRAINING_MODE]
    assert result == model


def test_function_bodies():
    """A function's body says nothing of ranks, so it is replaced where it is called."""
    model = onnx.parser.parse_model("""<ir_version: 10, opset_import: ["": 21, "local": 1]>
    g (float[2, 4, 5, 5] x) => (float[2, 4, 5, 5] y) { y = local.f (x) }
    <domain: "local", opset_import: ["": 21]>
    f (x) => (y) {
        p = Constant <value = float[4] {1, 2, 3, 4}> ()
        c = Sigmoid (x)
        y = BatchNormalization (c, p, p, p, p)
    }""")
    _, result = folded(model, leftover=Leftover.AFFINE)
    assert types_of(result) == "Sigmoid Mul Add"
    feeds = feeds_of(model)[0]
    assert_close(run(result, feeds)["y"], run(model, feeds)["y"], 1e-6)


def test_the_verbs_take_it(tmp_path):
    """As a name too, and the result is verified like any other."""
    path = tmp_path / "model.onnx"
    onnx.save(stuck(), path)
    result = bnfold.optimize(path, tmp_path / "out.onnx", leftover="conv")
    assert types_of(onnx.load(tmp_path / "out.onnx")) == "Sigmoid Conv Tanh"
    assert result.verification is not None
    assert result.verification.ok
    assert "1 replaced" in str(result)
