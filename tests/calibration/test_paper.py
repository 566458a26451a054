"""What Ioffe & Szegedy (2015) say of batch normalisation holds here."""

import numpy as np
import pytest
from calibration.helpers import bn_model, moments, session
from onnx import helper, numpy_helper

from bnfold.calibration import calibrate

X = np.random.default_rng(0).normal(2, 3, size=(24, 3, 5, 5)).astype(np.float32)


def conv_bn(bias):
    """Conv, with a bias or without, and BatchNormalization."""
    model = bn_model()
    weight = np.random.default_rng(1).normal(size=(3, 3, 3, 3)).astype(np.float32)
    inputs = ["x", "weight"] + ["bias"] * (bias is not None)
    model.graph.initializer.append(numpy_helper.from_array(weight, "weight"))
    if bias is not None:
        model.graph.initializer.append(numpy_helper.from_array(np.full(3, bias, np.float32), "bias"))
    model.graph.node.insert(0, helper.make_node("Conv", inputs, ["conv"], kernel_shape=[3, 3]))
    model.graph.node[1].input[0] = "conv"
    return model


@pytest.mark.parametrize("method", ["sequential", "paper", "pooled"])
def test_a_bias_changes_nothing(method, here):
    """3.2: the bias in front of the normalisation is subtracted with the mean."""
    outputs = []
    for bias in (None, 5.0):
        result = calibrate(conv_bn(bias), X, method=method, batch_size=8, executor=here, check=False)
        outputs.append(session(result.proto()).run(["y"], {"x": X})[0])
    np.testing.assert_allclose(outputs[0], outputs[1], atol=1e-5)


def test_it_can_be_the_identity(here):
    """3: gamma = sqrt(var) and beta = mean recover the input."""
    mean, var = moments(X)
    model = bn_model(gamma=np.sqrt(var + 1e-5), beta=mean)
    result = calibrate(model, X, executor=here)
    (y,) = session(result.proto()).run(["y"], {"x": X})
    np.testing.assert_allclose(y, X, atol=1e-5)


def test_it_is_invariant_to_scale(here):
    """3.3: BN((aW)u) = BN(Wu), but for epsilon."""
    outputs = []
    for scale in (1, 16):
        model = conv_bn(None)
        weight = model.graph.initializer[-1]
        weight.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(weight) * scale, "weight"))
        result = calibrate(model, X, executor=here, check=False)
        outputs.append(session(result.proto()).run(["y"], {"x": X})[0])
    np.testing.assert_allclose(outputs[0], outputs[1], atol=1e-5)


def test_algorithm_2_end_to_end(here):
    """The written model holds m/(m-1) times the mean of biased variances, with m = N·H·W."""
    result = calibrate(bn_model(), X, method="paper", batch_size=6, executor=here)
    batches = np.split(X.astype(float), 4)
    m = 6 * 25
    expected = m / (m - 1) * np.mean([batch.var((0, 2, 3)) for batch in batches], axis=0)
    np.testing.assert_allclose(result.layers[0].var, expected, rtol=1e-6)
