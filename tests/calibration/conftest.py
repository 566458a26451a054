"""The digits, and what networks make of them."""

import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

sys.path.insert(0, str(Path(__file__).parent))
from small import LABELS, MODELS, TEST, Here, session


@pytest.fixture
def here():
    return Here()


@pytest.fixture(scope="session")
def digits():
    """The images and labels of the test set."""
    return np.load(TEST)["image"], np.load(LABELS)["test"]


@pytest.fixture(scope="session")
def correct(digits):
    """How many of the 797 test images a model gets right."""

    def count(model):
        images, labels = digits
        (logits,) = session(model).run(["logits"], {"image": images})
        return int((logits.argmax(1) == labels).sum())

    return count


@pytest.fixture(scope="session")
def forgotten():
    """A network of models/ with mean 0 and variance 1 in every BatchNormalization."""

    def reset(name):
        model = onnx.load(MODELS / name)
        tensors = {tensor.name: tensor for tensor in model.graph.initializer}
        for node in model.graph.node:
            if node.op_type == "BatchNormalization":
                for index, value in ((3, 0.0), (4, 1.0)):
                    old = tensors[node.input[index]]
                    old.CopyFrom(numpy_helper.from_array(np.full(tuple(old.dims), value, np.float32), old.name))
        return model

    return reset
