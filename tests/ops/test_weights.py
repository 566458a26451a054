"""Large weights: written a few rows at a time, they are what they are at once."""

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from bnfold.graph import Graph, Stored
from bnfold.model_io import load
from bnfold.ops.weights import Scaled

SHAPES = [(7,), (1, 5), (700, 1000), (3, 500_000), (400, 900, 1), (0, 4), ()]


def stored(tmp_path, values, external):
    """The constant of a model in a file."""
    tensor = numpy_helper.from_array(values, "w")
    output = helper.make_tensor_value_info("w", tensor.data_type, values.shape)
    path = tmp_path / "model.onnx"
    model = helper.make_model(helper.make_graph([], "g", [], [output], [tensor]))
    onnx.save(model, path, save_as_external_data=external, size_threshold=0, location="data")
    graph = Graph(load(path))
    constant = graph.constant(graph.main.values["w"])
    assert isinstance(constant, Stored)
    return constant


@pytest.mark.parametrize("external", [False, True])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("dtype", [np.float32, np.float16, np.float64])
def test_blocks_are_the_whole(tmp_path, shape, dtype, external):
    """In order, and of the same bits; with a factor for each row, each column, or all."""
    random = np.random.default_rng(0)
    constant = stored(tmp_path, np.asarray(random.normal(size=shape)).astype(dtype), external)
    for axis in range(len(shape)):
        factor = random.uniform(0.5, 2, [size if k == axis else 1 for k, size in enumerate(shape)])
        for given in (factor, factor.reshape(factor.shape[axis:])) if axis else (factor,):
            scaled = Scaled(constant, given)
            blocks = list(scaled.blocks())
            np.testing.assert_array_equal(np.concatenate(blocks), scaled.array())
            assert all(block.dtype == dtype for block in blocks)
    scaled = Scaled(constant, np.full((1,) * len(shape), 3.0))
    assert b"".join(block.tobytes() for block in scaled.blocks()) == scaled.array().tobytes()


def test_a_block_is_small(tmp_path):
    """Of a large weight, no more than a part is in memory."""
    scaled = Scaled(stored(tmp_path, np.ones((700, 1000), np.float32), external=False), np.full((700, 1), 2.0))
    assert len(list(scaled.blocks())) == 3
