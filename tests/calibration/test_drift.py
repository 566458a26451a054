"""Scores are small on familiar data, rank with the loss of accuracy, and are what the formulas say."""

import numpy as np
import pytest
from calibration.helpers import TEST, TRAIN, bn_model, moments
from networks import MODELS
from onnx import helper, numpy_helper

from bnfold.calibration import CalibrationError, Verdict, calibrate, drift
from bnfold.calibration.picture import drift_svg
from bnfold.calibration.shift import compare
from bnfold.calibration.statistics.moments import Statistics
from bnfold.page import render


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
    from calibration.helpers import session  # noqa: PLC0415

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
    from calibration.helpers import session  # noqa: PLC0415

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
    assert drift(model, images[:7] * 16, executor=here).verdict is Verdict.UNKNOWN
    result = drift(model, images * 16, executor=here)
    assert result.verdict is Verdict.RECALIBRATE
    assert result.first.mean_shift.max() > 1
    assert "the input: values spread 16 times as far as the network takes them: divide by that" in str(result)
    assert f"next: mend the input, or bnfold calibrate {model} --data DATA" in str(result)


@pytest.mark.parametrize("samples", [8, 16, 32, 64])
@pytest.mark.parametrize("name", ["digits_resnet", "digits_mlp", "digits_preact"])
def test_sampling_alone_is_no_drift(name, samples, here):
    """On draws of a network's own training data there is no alarm, and what cannot be told says how many would do."""
    images, draws = np.load(TRAIN)["image"], np.random.default_rng(0)
    model = MODELS / f"{name}.onnx"
    found = [drift(model, images[draws.choice(1000, samples, replace=False)], executor=here) for _ in range(10)]
    assert sum(each.verdict in (Verdict.LOOK, Verdict.RECALIBRATE) for each in found) == 0
    unknown = [each for each in found if each.verdict is Verdict.UNKNOWN]
    assert all(each.samples_needed > samples for each in unknown)
    assert all(f"so few samples cannot tell: take {each.samples_needed} or more" in str(each) for each in unknown)


def test_samples_needed_are_enough(here):
    """With as many as it asks for, the verdict is there."""
    images = np.load(TRAIN)["image"]
    few = drift(MODELS / "digits_mlp.onnx", images[:64], executor=here)
    assert few.verdict is Verdict.UNKNOWN
    assert drift(MODELS / "digits_mlp.onnx", images[: few.samples_needed], executor=here).verdict is Verdict.FINE


def test_drift_is_found_on_few_samples(digits, here):
    """Whatever sampling adds, another scale is more."""
    images, _ = digits
    for samples in (8, 32):
        result = drift(MODELS / "digits_resnet.onnx", images[:samples] * 16, executor=here)
        assert result.verdict is Verdict.RECALIBRATE
        assert 0 < result.excess < result.score


MEAN, STD = (np.array(values)[:, None, None] for values in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))


def pixels():
    """Smooth images from 0 to 1, with colours of their own."""
    rng = np.random.default_rng(0)
    coarse = rng.uniform(size=(256, 3, 3, 3)) * np.array([0.9, 0.5, 0.3])[:, None, None] + 0.1 * rng.uniform(
        size=(256, 1, 1, 1)
    )
    return np.repeat(np.repeat(coarse, 4, 2), 4, 3) * np.linspace(0.2, 1, 12)


def first_layer(x, here):
    """A Conv and a BatchNormalization that holds the statistics of some images."""
    model = bn_model(channels=3, before=[("Conv", {})])
    weight = np.random.default_rng(1).normal(size=(3, 3, 3, 3)).astype(np.float32)
    model.graph.initializer.append(numpy_helper.from_array(weight, "weight"))
    model.graph.node[0].input.append("weight")
    return calibrate(model, x.astype(np.float32), executor=here, check=False).proto()


@pytest.mark.parametrize(
    ("taken", "given", "fault"),
    [
        pytest.param(lambda p: p, lambda p: p * 255, "divide by 255", id="255"),
        pytest.param(lambda p: p * 255, lambda p: p, "multiply by 255", id="1/255"),
        pytest.param(lambda p: p, lambda p: p[:, ::-1], "RGB for BGR", id="bgr"),
        pytest.param(lambda p: p, lambda p: p.transpose(0, 2, 3, 1).reshape(p.shape), "reshaped to NCHW", id="nhwc"),
        pytest.param(lambda p: p, lambda p: p.transpose(0, 1, 3, 2), "height and width", id="sides"),
        pytest.param(lambda p: 2 * p - 1, lambda p: p, "where the network takes -1 to 1", id="half"),
        pytest.param(lambda p: p, lambda p: 2 * p - 1, "where the network takes 0 to 1", id="unhalf"),
        pytest.param(lambda p: 2 * p - 1, lambda p: 255 * p, "0 to 255 where the network takes -1", id="half-255"),
        pytest.param(lambda p: (p - MEAN) / STD, lambda p: p, "of ImageNet are not applied", id="imagenet"),
        pytest.param(lambda p: p, lambda p: (p - MEAN) / STD, "are applied, and should not be", id="unimagenet"),
        pytest.param(lambda p: (p - MEAN) / STD, lambda p: 255 * p, "without mean and standard", id="imagenet-255"),
        pytest.param(lambda p: (p - MEAN) / STD, lambda p: p - MEAN, "standard deviation of ImageNet is not", id="std"),
    ],
)
def test_faults_are_named(taken, given, fault, here):
    """What undoes a mistake is told, since it was tried; the score that it would give is beside it."""
    model = first_layer(taken(pixels()), here)
    result = drift(model, given(pixels()).astype(np.float32), executor=here)
    assert fault in result.fault
    assert f"the input: {result.fault}" in str(result)
    assert "next: mend the input, or bnfold calibrate MODEL --data DATA" in str(result)
    assert drift(model, taken(pixels()).astype(np.float32), executor=here).fault == ""


@pytest.mark.parametrize(
    ("given", "fault"),
    [
        pytest.param(
            lambda p: 3 * p, "values spread 3 times as far as the network takes them: divide by that", id="std"
        ),
        pytest.param(lambda p: p + 0.3, "the mean is not that of training: subtract 0.3, 0.3, 0.3 ", id="mean"),
        pytest.param(
            lambda p: 2 * p - np.array([1, 2, 3]).reshape(3, 1, 1),
            "mean and standard deviation are not those of training: subtract -1, -2, -3, divide by 2 ",
            id="both",
        ),
    ],
)
def test_an_unknown_scale_or_shift_is_fitted(given, fault, here):
    """Where no known mistake was made, a scale and a shift that undo what was are told, the simplest that do."""
    centred = pixels() - pixels().mean((0, 2, 3), keepdims=True)
    result = drift(first_layer(centred, here), given(centred).astype(np.float32), executor=here)
    assert result.fault.startswith(fault)


def test_what_nothing_mends_is_asked_about(here):
    """What is no scale and no shift has no name, and none is made up."""
    result = drift(first_layer(pixels(), here), (pixels() ** 8 * 50).astype(np.float32), executor=here)
    assert result.fault == ""
    assert "the input: is it scaled and normalised as in training?" in str(result)


@pytest.mark.parametrize("data", [np.ones((64, 3, 4, 4)), np.zeros((64, 3, 4, 4)), np.full((64, 3, 4, 4), 1e-30)])
@pytest.mark.parametrize("held", [1.0, 1e38])
def test_what_never_varies(data, held, here):
    """Nothing can be fitted to it; it is far, and no error."""
    result = drift(bn_model(var=np.full(3, held)), data.astype(np.float32), executor=here)
    assert result.verdict is Verdict.RECALIBRATE
    assert result.fault == ""


def test_what_never_varies_without_an_epsilon(here):
    """Then it is farther than can be said, and not unknown."""
    model = bn_model()
    model.graph.node[0].attribute[0].f = 0.0
    data = np.random.default_rng(0).normal(size=(64, 3, 4, 4))
    data[:, 1] = 0
    result = drift(model, data.astype(np.float32), executor=here)
    assert result.verdict is Verdict.RECALIBRATE
    assert np.isfinite(result.score)


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
    document = json.loads(render(result, "calibration", "json"))
    assert document["verdict"] == "fine"
    assert [len(layer["ranked_channels"]) for layer in document["layers"]] == [16, 16, 16, 24, 24, 24, 48, 32]
    assert render(result, "calibration", "markdown").count("\n| ") == 10
    assert result.worst.name in str(result)
    assert document["floor"] == pytest.approx(np.mean([layer["floor"] for layer in document["layers"]]))
    assert document["excess"] == result.excess
    assert drift_svg(result).count("<rect") == 9
    assert drift_svg(result).count('stroke="black"') == 8
    assert "<td>" in result._repr_html_()
