"""The digits, and what networks make of them."""

from collections.abc import Callable

import numpy as np
import onnx
import pytest
from calibration.helpers import LABELS, TEST, Array, Here, session
from networks import MODELS
from onnx import numpy_helper


@pytest.fixture
def here() -> Here:
    return Here()


@pytest.fixture(scope="session")
def digits() -> tuple[Array, Array]:
    """The images and labels of the test set."""
    return np.load(TEST)["image"], np.load(LABELS)["test"]


@pytest.fixture(scope="session")
def correct(digits: tuple[Array, Array]) -> Callable[[onnx.ModelProto | str], int]:
    """How many of the 797 test images a model gets right."""

    def count(model: onnx.ModelProto | str) -> int:
        images, labels = digits
        (logits,) = session(model).run(["logits"], {"image": images})
        return int((logits.argmax(1) == labels).sum())

    return count


@pytest.fixture(scope="session")
def forgotten() -> Callable[[str], onnx.ModelProto]:
    """A network of models/ with mean 0 and variance 1 in every BatchNormalization."""

    def reset(name: str) -> onnx.ModelProto:
        model = onnx.load(MODELS / name)
        tensors = {tensor.name: tensor for tensor in model.graph.initializer}
        for node in model.graph.node:
            if node.op_type == "BatchNormalization":
                for index, value in ((3, 0.0), (4, 1.0)):
                    old = tensors[node.input[index]]
                    old.CopyFrom(numpy_helper.from_array(np.full(tuple(old.dims), value, np.float32), old.name))
        return model

    return reset
