"""Models with which the random graphs once found a fault: folded and looked at as every random graph is."""

from pathlib import Path

import numpy as np
import onnx
import pytest

from random_graphs.generate import Case
from random_graphs.properties import check, usable

FOUND = sorted((Path(__file__).parents[1] / "cases" / "random_graphs").glob("*.onnx"))


def case(path: Path) -> Case:
    """The model with two sets of inputs; open sizes are 2."""
    model = onnx.load(path)
    random = np.random.default_rng(0)
    given = {tensor.name for tensor in model.graph.initializer}
    feeds = []
    for _ in range(2):
        feed = {}
        for entry in model.graph.input:
            if entry.name not in given:
                kind = entry.type.tensor_type
                shape = [dim.dim_value or 2 for dim in kind.shape.dim]
                dtype = onnx.helper.tensor_dtype_to_np_dtype(kind.elem_type)
                feed[entry.name] = random.standard_normal(shape).astype(dtype)
        feeds.append(feed)
    return Case(int(path.stem), model, feeds, has_wrong_notes=bool(model.graph.value_info))


@pytest.mark.parametrize("path", FOUND, ids=lambda path: path.stem)
def test_what_was_found_is_mended(path):
    """Valid, equal, idempotent, and the same interface."""
    found = case(path)
    assert not check(found, usable(found)).faults
