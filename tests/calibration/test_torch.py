"""Batch statistics and moving averages are PyTorch's. Skipped where there is no torch; CI runs it with torch 2.13.0."""

import copy
import io
import warnings

import numpy as np
import onnx
import pytest

torch = pytest.importorskip("torch")

from bnfold.calibration import calibrate  # noqa: E402 -- after the skip

pytestmark = pytest.mark.filterwarnings("ignore")  # the exporter warns of itself
MOMENTUM = 0.1


class Net(torch.nn.Module):
    """Ranks 4 and 2, a depthwise convolution, a shortcut, and a Dropout, which has to stay out of it."""

    def __init__(self):
        super().__init__()
        self.first = torch.nn.Sequential(torch.nn.Conv2d(3, 8, 3), torch.nn.BatchNorm2d(8), torch.nn.ReLU())
        self.deep = torch.nn.Sequential(
            torch.nn.Conv2d(8, 8, 3, padding=1, groups=8), torch.nn.BatchNorm2d(8), torch.nn.ReLU(),
            torch.nn.Conv2d(8, 8, 1), torch.nn.BatchNorm2d(8),
        )  # fmt: skip
        self.last = torch.nn.Sequential(torch.nn.Linear(8, 6), torch.nn.BatchNorm1d(6))

    def forward(self, x):
        x = self.first(x)
        return self.last((x + self.deep(x)).relu().mean((2, 3)))


def bns(net):
    return [module for module in net.modules() if isinstance(module, torch.nn.BatchNorm1d | torch.nn.BatchNorm2d)]


def exported(net, **options):
    with warnings.catch_warnings(action="ignore"):
        file = io.BytesIO()
        torch.onnx.export(
            copy.deepcopy(net), (torch.randn(2, 3, 12, 12),), file, input_names=["x"],
            dynamic_axes={"x": {0: "batch"}}, dynamo=False, do_constant_folding=False, **options,
        )  # fmt: skip
    return onnx.load_from_string(file.getvalue())


@pytest.fixture
def net():
    torch.manual_seed(0)
    net = Net()
    for bn in bns(net):
        torch.nn.init.uniform_(bn.weight, 0.5, 2)
        torch.nn.init.normal_(bn.bias)
    return net


@pytest.fixture
def batches():
    # samples differ as wholes, so that means over their pixels have a spread: else the last layer is all rounding
    return [torch.randn(16, 3, 12, 12) + 3 * torch.randn(16, 3, 1, 1) + 1 for _ in range(5)]


def forms():
    mode = torch.onnx.TrainingMode
    return [
        pytest.param({"training": mode.TRAINING, "opset_version": 17}, id="training-17"),
        pytest.param({"training": mode.TRAINING, "opset_version": 9}, id="training-9"),
        pytest.param({"training": mode.EVAL, "opset_version": 17}, id="eval-17"),
    ]


@pytest.mark.parametrize("form", forms())
def test_batch_statistics(form, net, batches, here):
    """One batch through PyTorch's training mode, with momentum 1, leaves its statistics in the network."""
    model = exported(net, **form)
    for bn in bns(net):
        bn.momentum = 1.0
    seen = []
    for bn in bns(net):
        bn.register_forward_pre_hook(lambda module, args: seen.append(args[0].detach().numpy().astype(float)))
    net.train()(batches[0])
    layers = calibrate(model, batches[0].numpy(), batch_size=16, method="pooled", executor=here).layers
    for layer, bn, x in zip(layers, bns(net), seen, strict=True):
        m = x.size / x.shape[1]
        std = np.sqrt(layer.var)
        np.testing.assert_allclose(layer.mean / std, bn.running_mean.numpy() / std, atol=1e-6)
        np.testing.assert_allclose(layer.var * (m / (m - 1)), bn.running_var.numpy(), rtol=3e-6)


@pytest.mark.parametrize("form", forms())
def test_the_moving_average(form, net, batches, here):
    """`ema` with 1 - momentum and the unbiased variance is what training does to the buffers."""
    model = exported(net.eval(), **form)
    start = {name: value.clone() for name, value in net.state_dict().items()}
    layers = calibrate(
        model, [batch.numpy() for batch in batches], batch_size=16, method="ema", momentum=1 - MOMENTUM, unbiased=True,
        reset=True, executor=here,
    ).layers  # fmt: skip
    net.load_state_dict(start)
    for batch in batches:
        net.train()(batch)
    for layer, bn in zip(layers, bns(net), strict=True):
        np.testing.assert_allclose(layer.mean, bn.running_mean.numpy(), atol=2e-6)
        np.testing.assert_allclose(layer.var, bn.running_var.numpy(), rtol=3e-6)


def test_update_bn_is_the_unweighted_mean_of_batches(net, batches, here):
    """torch.optim.swa_utils.update_bn: `paper`, for batches of one size."""
    model = exported(net, training=torch.onnx.TrainingMode.TRAINING, opset_version=17)
    layers = calibrate(model, batches, batch_size=16, method="paper", executor=here).layers
    torch.optim.swa_utils.update_bn(batches, net)
    for layer, bn in zip(layers, bns(net), strict=True):
        np.testing.assert_allclose(layer.mean, bn.running_mean.numpy(), atol=2e-6)
        np.testing.assert_allclose(layer.var, bn.running_var.numpy(), rtol=3e-6)


def test_a_data_loader(net, batches, here):
    """With labels, which are not used."""
    data = torch.utils.data.TensorDataset(torch.cat(batches), torch.arange(80))
    loader = torch.utils.data.DataLoader(data, batch_size=13)
    model = exported(net, training=torch.onnx.TrainingMode.TRAINING, opset_version=17)
    found = calibrate(model, loader, executor=here).layers
    expected = calibrate(model, torch.cat(batches).numpy(), executor=here).layers
    np.testing.assert_allclose(found[-1].mean, expected[-1].mean, atol=1e-6)


def test_a_silent_dynamo_export(net, here):
    """train() and dynamo: inference nodes, which are recognised, and get right statistics."""
    pytest.importorskip("onnxscript")
    with warnings.catch_warnings(action="ignore"):
        program = torch.onnx.export(
            net.train(), (torch.randn(4, 3, 12, 12),), dynamo=True, optimize=False, verbose=False,
            dynamic_shapes=({0: torch.export.Dim("batch", min=2)},), training=torch.onnx.TrainingMode.TRAINING,
        )  # fmt: skip
    model = program.model_proto
    result = calibrate(model, np.random.default_rng(0).normal(size=(32, 3, 12, 12)).astype(np.float32), executor=here)
    assert len(result.layers) == 4
    assert any("inference nodes of 4 BatchNormalizations" in warning for warning in result.warnings)
    assert result.residual < 1e-5
