"""Scores are small on familiar data, rank with the loss of accuracy, and are what the formulas say."""

import numpy as np
import pytest
from onnx import helper, numpy_helper
from small import MODELS, TEST, TRAIN, bn_model, moments

from bnfold.calibrate import CalibrationError, Verdict, calibrate, drift
from bnfold.calibrate.moments import Statistics
from bnfold.calibrate.shift import compare
from bnfold.report.calibration import render
from bnfold.report.plot import drift_svg


def blurred(images, sigma):
    """A Gaussian blur, with the edges repeated."""
    steps = np.arange(-3, 4)
    kernel = np.exp(-(steps**2) / (2 * sigma**2))
    kernel /= kernel.sum()
    for axis in (2, 3):
        pad = [(3, 3) if a == axis else (0, 0) for a in range(4)]
        padded = np.pad(images, pad, mode="edge")
        images = sum(w * np.take(padded, range(k, k + 8), axis) for k, w in enumerate(kernel))
    return images


def conditions(images):
    rng = np.random.default_rng(0)
    yield "clean", images
    for level in (0.1, 0.2, 0.3, 0.5):
        yield f"noise {level}", images + rng.normal(0, level, images.shape)
    for sigma in (0.5, 0.8, 1.2):
        yield f"blur {sigma}", blurred(images, sigma)
    for factor in (0.6, 0.3, 0.15):
        yield f"contrast {factor}", images * factor + 0.5 * (1 - factor)
    for more in (0.1, 0.2, 0.4):
        yield f"brightness {more}", images + more
    yield "scale 16", images * 16


def rank(values):
    return np.argsort(np.argsort(values))


@pytest.mark.parametrize("name", ["digits_resnet", "digits_preact"])
def test_scores_rank_with_the_loss(name, digits, correct, here):
    """Over 15 corruptions of the test images: Spearman's correlation with the loss of accuracy is over 0.85."""
    import onnx  # noqa: PLC0415
    from small import session  # noqa: PLC0415

    images, labels = digits
    model = onnx.load(MODELS / f"{name}.onnx")
    running = session(model)
    scores, losses = [], []
    for _, corrupted in conditions(images):
        data = corrupted.astype(np.float32)
        scores.append(drift(model, data, executor=here, batch_size=256).score)
        losses.append(-(running.run(["logits"], {"image": data})[0].argmax(1) == labels).mean())
    assert np.corrcoef(rank(scores), rank(losses))[0, 1] > 0.85


@pytest.mark.parametrize(
    ("corrupt", "before", "after"),
    [
        pytest.param(lambda images: images * 0.3 + 0.35, 0.35, 0.95, id="contrast"),
        pytest.param(lambda images: blurred(images, 0.8), 0.87, 0.93, id="blur"),
    ],
)
def test_recalibration_helps(corrupt, before, after, digits, here):
    """Statistics of corrupted images, without labels, give back most of the accuracy."""
    from small import session  # noqa: PLC0415

    images, labels = digits
    data = corrupt(images).astype(np.float32)

    def accuracy(model):
        return (session(model).run(["logits"], {"image": data})[0].argmax(1) == labels).mean()

    assert accuracy(str(MODELS / "digits_resnet.onnx")) < before
    assert accuracy(calibrate(MODELS / "digits_resnet.onnx", data, executor=here).proto()) > after


def test_verdicts(digits, here):
    """Fine on the data it was made for, no verdict on a few samples, recalibrate at another scale."""
    images, _ = digits
    model = MODELS / "digits_resnet.onnx"
    assert drift(model, TEST, executor=here).verdict is Verdict.FINE
    assert drift(model, images[:31], executor=here).verdict is Verdict.UNKNOWN
    result = drift(model, images * 16, executor=here)
    assert result.verdict is Verdict.RECALIBRATE
    assert result.first.mean_shift.max() > 1
    assert "is the input scaled and normalised as in training?" in str(result)


def test_nothing_is_farther_than_the_floor(here):
    """Data that the statistics were made from has no drift, and half of it no more than sampling explains."""
    result = calibrate(MODELS / "digits_resnet.onnx", TRAIN, executor=here, check=False)
    assert drift(result.proto(), TRAIN, executor=here).score < 1e-9
    half = drift(result.proto(), TRAIN, max_samples=100, seed=0, executor=here)
    assert 0.2 < half.score / half.floor < 3


def test_formulas():
    """Of two Gaussians with known distances."""
    zero = np.zeros(1)
    met = Statistics(100, np.array([3.0]), np.array([4.0]), zero, zero)
    layer = compare("bn", np.array([1.0]), np.array([1.0]), met, 0.0)
    assert layer.mean_shift == 2
    assert layer.log_variance == pytest.approx(np.log(4))
    assert layer.divergence == pytest.approx((1 + 4) / 8 + (4 + 4) / 2 - 1)
    assert layer.distance == pytest.approx(np.sqrt(4 + 1))


def test_it_measures_what_numpy_does(here):
    """One layer, in units of what it holds; the worst channel first."""
    x = np.random.default_rng(0).normal(0, 1, size=(64, 3, 4, 4)).astype(np.float32)
    x[:, 2] += 3
    layer = drift(bn_model(), x, executor=here).layers[0]
    np.testing.assert_allclose(layer.mean_shift, np.abs(moments(x)[0]) / np.sqrt(1 + 1e-5), rtol=1e-5, atol=1e-6)
    assert layer.ranked()[0] == 2


def test_nothing_to_compare(here):
    """A layer that nothing reaches has no drift, and where there is no other, there is no score."""
    x = np.random.default_rng(0).normal(size=(40, 3)).astype(np.float32)
    model = bn_model(rank=2)
    model.graph.node[0].input[0] = "some"
    for node in (
        helper.make_node("Compress", ["x", "chosen"], ["some"], axis=0),
        helper.make_node("Greater", ["largest", "limit"], ["chosen"]),
        helper.make_node("ReduceMax", ["x"], ["largest"], axes=[1], keepdims=0),
    ):
        model.graph.node.insert(0, node)
    model.graph.initializer.append(numpy_helper.from_array(np.float32(2), "limit"))
    assert len(drift(model, x, executor=here).layers) == 1
    with pytest.raises(CalibrationError, match="nothing reached a BatchNormalization"):
        drift(model, np.minimum(x, 0), executor=here)


def test_reports(here):
    """Text names the worst layers, JSON every channel, Markdown is a table, the picture has a bar for each layer."""
    import json  # noqa: PLC0415

    result = drift(MODELS / "digits_resnet.onnx", TEST, executor=here)
    document = json.loads(render(result, "json"))
    assert document["verdict"] == "fine"
    assert [len(layer["ranked_channels"]) for layer in document["layers"]] == [16, 16, 16, 24, 24, 24, 48, 32]
    assert render(result, "markdown").count("\n| ") == 10
    assert result.worst.name in str(result)
    assert drift_svg(result).count("<rect") == 9
    assert "<td>" in result._repr_html_()
