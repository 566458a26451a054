"""Weights are written once, whatever holds them, and programs refer to them."""

from pathlib import Path

import numpy as np
import onnx
import pytest
from calibration.helpers import X, bn_model
from onnx import helper, numpy_helper

from bnfold.calibration import calibrate


def heavy():
    """Two convolutions of 72 kB, a small bias, and a Constant that is no initializer."""
    rng = np.random.default_rng(0)
    model = bn_model(channels=3)
    first, second = (rng.normal(size=shape).astype(np.float32) / 10 for shape in ((2000, 3, 1, 3), (3, 2000, 1, 3)))
    bias = rng.normal(size=3).astype(np.float32)
    model.graph.initializer.extend(map(numpy_helper.from_array, (first, second, bias), ("first", "second", "bias")))
    model.graph.node[0].input[0] = "shifted"
    more = numpy_helper.from_array(rng.normal(size=(1, 3, 1, 1)).astype(np.float32))
    nodes = [
        helper.make_node("Conv", ["x", "first"], ["many"]),
        helper.make_node("Conv", ["many", "second", "bias"], ["few"]),
        helper.make_node("Constant", [], ["more"], value=more),
        helper.make_node("Add", ["few", "more"], ["shifted"]),
    ]
    for node in reversed(nodes):
        model.graph.node.insert(0, node)
    model.graph.input[0].type.tensor_type.shape.dim[3].dim_value = 8
    return model


@pytest.fixture
def measured(here):
    """Calibrates; gives the statistics, and the size of each program."""
    sizes = []

    class Watching(type(here)):
        def submit(self, fn, /, program, *args):
            sizes.append(Path(program.path).stat().st_size)
            return super().submit(fn, program, *args)

    def calibrated(model):
        x = np.concatenate([X, X], axis=3)
        return calibrate(model, x, executor=Watching()).layers[0].measured, sizes

    return calibrated


def test_programs_hold_no_weights(measured):
    """So a model over 2 GiB can be measured."""
    _, sizes = measured(heavy())
    assert len(sizes) > 3
    assert max(sizes) < 10_000


@pytest.mark.parametrize("least", [0, 1 << 14])
def test_data_files(least, measured, tmp_path):
    """Tensors in data files, large or small, give the same bits as those in the model."""
    expected, _ = measured(heavy())
    onnx.save(heavy(), tmp_path / "m.onnx", save_as_external_data=True, location="m.data", size_threshold=least)
    found, _ = measured(tmp_path / "m.onnx")
    assert found.mean.tobytes() == expected.mean.tobytes()
    assert found.var.tobytes() == expected.var.tobytes()
