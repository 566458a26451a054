"""Real networks on real images: what calibration is for."""

import numpy as np
import onnx
import pytest
from calibration.helpers import TRAIN
from networks import MODELS
from onnx import numpy_helper

from bnfold.calibration import calibrate

NETWORKS = ["digits_resnet", "digits_mlp"]


@pytest.fixture(scope="module")
def trained(correct):
    """How many images each network gets right as it was trained."""
    return {name: correct(onnx.load(MODELS / f"{name}.onnx")) for name in NETWORKS}


@pytest.mark.parametrize(
    ("method", "size"),
    [("sequential", size) for size in (1, 2, 8, 32, 256)] + [(m, s) for m in ("paper", "pooled") for s in (8, 32, 256)],
)
@pytest.mark.parametrize("name", NETWORKS)
def test_forgotten_statistics_come_back(name, method, size, forgotten, correct, trained, here):
    """Mean 0 and variance 1 everywhere cost almost all accuracy; 1000 images give it back, but for one at most."""
    model = forgotten(f"{name}.onnx")
    assert correct(model) < 250
    result = calibrate(model, TRAIN, method=method, batch_size=size, executor=here, check=False)
    assert correct(result.proto()) >= trained[name] - 1


@pytest.mark.parametrize("size", [8, 32])
def test_a_moving_average_does_not(size, forgotten, here):
    """With Keras' momentum of 0.99 it has not forgotten where it started, and says so."""
    model = forgotten("digits_resnet.onnx")
    result = calibrate(model, TRAIN, method="ema", momentum=0.99, batch_size=size, executor=here)
    assert any("has not forgotten its start before 500 batches" in warning for warning in result.warnings)


def test_a_prior(forgotten, here):
    """N pseudo-samples of what is stored: (N old + n new) / (N + n)."""
    model = forgotten("digits_resnet.onnx")
    data = {"image": np.load(TRAIN)["image"][:48]}
    alone = calibrate(model, data, executor=here, check=False).layers[0]
    blended = calibrate(model, data, prior=16, executor=here).layers[0]
    np.testing.assert_allclose(blended.mean, 0.75 * alone.mean, atol=1e-6)
    np.testing.assert_allclose(blended.var, 0.75 * alone.var + 0.25, rtol=1e-6)
    assert blended.residual < 1e-6


def test_reset(here):
    """A moving average that starts from nothing starts from mean 0 and variance 1."""
    kept, reset = (
        calibrate(
            MODELS / "digits_resnet.onnx", TRAIN, method="ema", momentum=0.5, batch_size=500, reset=reset, executor=here
        )
        for reset in (False, True)
    )
    old = kept.layers[0].old_mean
    np.testing.assert_allclose(kept.layers[0].mean - reset.layers[0].mean, 0.25 * old, atol=1e-6)


def test_few_samples_are_warned_of(here):
    """With the number that would be enough; and not where there are enough."""
    images = np.load(TRAIN)["image"]
    few = calibrate(MODELS / "digits_resnet.onnx", {"image": images[:32]}, executor=here)
    (warning,) = (warning for warning in few.warnings if "standard deviations only" in warning)
    assert few.error > 0.05
    assert 200 < int(warning.split("about ")[1].split()[0]) < 2000
    assert not calibrate(MODELS / "digits_resnet.onnx", {"image": images}, executor=here).warnings


@pytest.mark.parametrize(("size", "told"), [(32, "not known"), (8, "rough")])
def test_errors_of_few_batches(size, told, here):
    """The spread between a few batches is an estimate still, which is said to be rough, and shown."""
    images = np.load(TRAIN)["image"][:32]
    result = calibrate(MODELS / "digits_resnet.onnx", images, method="pooled", batch_size=size, executor=here)
    assert f"the standard errors are {told}: 8 batches or more tell them, not {32 // size}" in result.warnings
    assert ("standard errors: means within" in str(result)) is (told == "rough")


def test_long_lists_are_cut(here):
    """Of many layers with dead channels three are named; the table, and JSON, have all."""
    model = onnx.load(MODELS / "digits_resnet.onnx")
    for weights in (tensor for tensor in model.graph.initializer if len(tensor.dims) > 1):
        weights.CopyFrom(numpy_helper.from_array(0 * numpy_helper.to_array(weights), weights.name))
    result = calibrate(model, TRAIN, executor=here)
    (warning,) = (warning for warning in result.warnings if "hardly vary" in warning)
    assert len([layer for layer in result.layers if layer.dead]) == 8
    assert warning.endswith(" and 5 more")
    assert warning.count("BatchNormalization (") == 3


def test_dead_channels_are_reported(here):
    """A channel that never varies."""
    from calibration.helpers import bn_model  # noqa: PLC0415

    x = np.random.default_rng(0).normal(size=(40, 3, 4, 4)).astype(np.float32)
    x[:, 1] = 0.5
    result = calibrate(bn_model(), x, executor=here)
    assert result.layers[0].dead == (1,)
    assert any("hardly vary" in warning and "bn (1)" in warning for warning in result.warnings)
