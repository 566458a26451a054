"""Sizes that a user states: what folds for these alone is told, and nothing that folds without them rests on them."""

import numpy as np
import onnx
import pytest
from helpers import assert_close, folded, inputs_of, model_of, run

import bnfold
from bnfold.folding.told import besides, rows
from bnfold.model_io import ModelError
from bnfold.verification import verify

SIZES = 2, 3, 64, 48
BODY = """
    [relu] r = Relu (x)
    [bn] b = BatchNormalization (r, {bn: 3})
    [pool] p = ReduceSum <keepdims = 0> (b, axes)
    [gemm] y = Gemm (p, {w: 3, 4}, {c: 4})
"""


def summed(body: str = BODY, shape: str = "[N, 3, H, W]"):
    """The sum over positions gets so many shifts, which only a stated size tells."""
    return model_of(f"""<ir_version: 8, opset_import: ["": 17]>
        g (float{shape} x) => (float[N, 4] y) <int64[2] axes = {{2, 3}}> {{ {body} }}""")


def fate(plan, node="bn"):
    entry = next(entry for entry in plan.entries if entry.node == node)
    return entry.outcome.value, entry.assumes


@pytest.mark.parametrize(
    ("stated", "assumed"),
    [
        pytest.param({"shapes": {"x": SIZES}}, SIZES, id="shape"),
        pytest.param({"dims": {"H": 64, "W": 48}}, ("N", 3, 64, 48), id="dims"),
        pytest.param({"shapes": {"x": SIZES}, "dims": {"H": 64}}, SIZES, id="both"),
    ],
)
def test_a_fold_for_stated_sizes(stated, assumed):
    """It is right for these, its entry says so, and the interface stays as open as it was."""
    model = summed()
    assert fate(folded(model)[0]) == ("reduced", {})
    plan, result = folded(model, **stated)
    assert fate(plan) == ("folded", {"x": assumed})
    assert list(inputs_of(result)) == list(inputs_of(model))
    feeds = {"x": np.random.default_rng(0).normal(size=SIZES).astype(np.float32)}
    assert_close(run(result, feeds)["y"], run(model, feeds)["y"], 1e-5)


@pytest.mark.parametrize(
    "shape", [pytest.param("[N, 3, H, W]", id="ranked"), pytest.param("[2, 3, 64, 48]", id="declared")]
)
def test_what_folds_anyway_rests_on_nothing(shape):
    """Each fold is tried without the stated sizes first; sizes that the model says itself are no assumption."""
    body = BODY.replace("[relu] r = Relu (x)", "[conv] a = Conv (x, {k: 3, 3, 1, 1}) [early] r = Mul (a, {m: 3, 1, 1})")
    plan, _ = folded(summed(body, shape), shapes={"x": SIZES})
    assert fate(plan, "early") == ("folded", {})
    assert fate(plan) == ("folded", {})


def test_half_rests_on_it():
    """A node that was reduced without them, and is gone with them, says so, too."""
    plan, _ = folded(summed(), shapes={"x": SIZES})
    entry = next(entry for entry in plan.entries if entry.node == "bn")
    assert entry.left == ()
    assert entry.assumes
    assert besides(plan) == ("1 of these holds for the stated sizes alone",)
    assert "only where x is 2,3,64,48" in rows(plan)[0].notes


def test_verified_at_the_stated_sizes_alone():
    """There the models are equivalent, and elsewhere they are not."""
    model = summed()
    _, result = folded(model, shapes={"x": SIZES})
    assert verify(model, result, shapes={"x": SIZES})
    assert verify(model, result, dims={"H": 64, "W": 48})
    assert verify(model, result, shapes={"x": (2, 3, 33, 41)}).is_different
    assert verify(model, result).is_different


@pytest.mark.parametrize(
    ("stated", "message"),
    [
        ({"shapes": {"z": (1,)}}, "model: there is no input 'z'; the inputs are 'x'"),
        ({"shapes": {"x": (1, 4, 8, 8)}}, "model: input 'x' float[N,3,H,W] cannot have the shape 1,4,8,8"),
        ({"dims": {"T": 4}}, "model: no input has a dimension 'T'; there are H, N, W"),
        ({"shapes": {"x": SIZES}, "dims": {"H": 8}}, "model: input 'x' float[N,3,8,W] cannot have the shape 2,3,64,48"),
    ],
    ids=["input", "fixed", "dimension", "both"],
)
def test_sizes_that_do_not_fit(stated, message):
    """They are an error of planning, too."""
    with pytest.raises(ModelError) as error:
        bnfold.plan(summed(), **stated)
    assert str(error.value) == message
    with pytest.raises(ModelError):
        bnfold.check(summed(), node="bn", **stated)


def test_an_input_that_is_no_tensor():
    """It has no shape."""
    proto = summed()
    item = onnx.helper.make_tensor_type_proto(onnx.TensorProto.FLOAT, None)
    proto.graph.input.add(name="s").type.CopyFrom(onnx.helper.make_sequence_type_proto(item))
    with pytest.raises(ModelError, match="input 's' sequence cannot have the shape 2"):
        bnfold.plan(proto, shapes={"s": [2]})


def test_a_size_is_an_integer():
    """A text is not taken apart."""
    with pytest.raises(TypeError):
        bnfold.plan(summed(), shapes={"x": "2345"})


def test_asked_for_stated_sizes():
    """`check --node` asks as the plan does."""
    said = {reply.operator: reply.said for reply in bnfold.check(summed(), node="bn", shapes={"x": SIZES}).asked}
    assert said["pool"] == "lets it pass"


def test_sizes_that_a_window_does_not_fit():
    """What is behind it has no shape; at the Slice, ONNX's inference would end the process."""
    body = "c = Conv (x, {k: 4, 3, 9, 9}) [bn] b = BatchNormalization (c, {bn: 4}) y = Slice (b, one, two, two)"
    model = model_of(f"""<ir_version: 8, opset_import: ["": 17]>
        g (float[N, 3, H, W] x) => (float[N, 4, a, b] y) <int64[1] one = {{1}}, int64[1] two = {{2}}> {{ {body} }}""")
    assert fate(bnfold.check(model, shapes={"x": (1, 3, 5, 5)}).plan) == ("folded", {})


@pytest.mark.parametrize("leftover", ["affine", "conv"])
@pytest.mark.parametrize(("shape", "assumed"), [("", {"x": SIZES}), ("[N, 3, H, W]", {})], ids=["open", "ranked"])
def test_a_replacement_for_stated_sizes(leftover, shape, assumed):
    """Where the rank is stated alone, what takes the place of a BatchNormalization is for that rank."""
    body = "s = Sigmoid (x) [bn] b = BatchNormalization (s, {bn: 3}) y = Sigmoid (b)"
    model = model_of(f'<ir_version: 8, opset_import: ["": 17]> g (float{shape} x) => (float y) {{ {body} }}')
    model.graph.output[0].type.tensor_type.ClearField("shape")
    if not shape:
        model.graph.input[0].type.tensor_type.ClearField("shape")
    assert fate(bnfold.plan(model, leftover=leftover, shapes={"x": SIZES})) == ("replaced", assumed)
