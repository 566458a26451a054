"""What ONNX Runtime cannot run is evaluated in float64, by the kernels that compare the regions."""

import numpy as np
import onnx
import pytest
from verification.helpers import parsed

from bnfold.folding import plan
from bnfold.model_io import load, to_proto
from bnfold.verification import Verdict, verify

RANDOM = np.random.default_rng(0)
W = {"Conv": (4, 3, 2, 2), "ConvTranspose": (4, 1, 2, 2)}
NETS = [
    pytest.param("n (double[2, 3, 5, 5] x) => (double[2, 4, H, W] y) {c = Conv (x, w) @}", 11, id="old normalization"),
    pytest.param(
        "n (double[2, 4, 5, 5] x) => (double[2, 4, H, W] y) {c = ConvTranspose <group = 4> (x, w) @}",
        17,
        id="grouped ConvTranspose",
    ),
]


def pair(net: str, opset: int, factor: float = 1.0) -> tuple[onnx.ModelProto, onnx.ModelProto]:
    """A model, and what folding makes of it, with a bias that is off by a factor."""
    kind = "ConvTranspose" if "Transpose" in net else "Conv"
    tensors = {"w": RANDOM.standard_normal(W[kind])}
    tensors |= {name: RANDOM.uniform(0.5, 2, 4) for name in ("scale", "shift", "mean", "variance")}
    before = parsed(net.replace("@", "y = BatchNormalization (c, scale, shift, mean, variance)"), opset, tensors)
    after = to_proto(plan(load(before)).model)
    bias = next(tensor for tensor in after.graph.initializer if len(tensor.dims) == 1)
    bias.CopyFrom(onnx.numpy_helper.from_array(onnx.numpy_helper.to_array(bias) * factor, bias.name))
    return before, after


@pytest.mark.parametrize(("net", "opset"), NETS)
def test_a_right_fold_agrees_to_the_last_digits(net, opset):
    """The runs say so themselves: nothing is left to be explained."""
    result = verify(*pair(net, opset))
    assert result.verdict is Verdict.EQUIVALENT
    assert result.outputs[0].passed
    assert result.outputs[0].max_rel < 1e-14
    assert result.how.startswith("float64")


@pytest.mark.parametrize(("net", "opset"), NETS)
def test_a_wrong_fold_does_not(net, opset):
    """The run alone finds it."""
    result = verify(*pair(net, opset, 1 + 1e-12))
    assert result.verdict is Verdict.DIFFERENT
    assert not result.outputs[0].passed


def test_no_form_is_left_to_what_computes_another():
    """A normalization over positions too is none that is computed, rather than one over channels."""
    model = "n (double[2, 4, 3] x) => (double[2, 4, 3] y) {y = BatchNormalization <spatial = 0> (x, @, s, s, s)}"
    tensors = {"s": np.ones((4, 3)), "r": np.full((4, 3), 1 + 1e-9)}
    result = verify(*(parsed(model.replace("@", scale), 8, tensors) for scale in "sr"), run=False)
    assert "spatial=0" in str(result)
