"""What edits leave without a reader."""

import numpy as np
from helpers import model_of

from bnfold.folding.unread import unread_after
from bnfold.graph import Graph
from bnfold.model_io import load
from bnfold.ops import Assign
from bnfold.ops.weights import Given

TEXT = """
    <ir_version: 8, opset_import: ["" : 17]>
    g (float[2, 4, 6, 6] x) => (float[2, 4, 4, 4] y) <int64[1] start = {0}, int64[1] end = {1}> {
        shape = Shape (w)
        filters = Slice (shape, start, end)
        zeros = ConstantOfShape (filters)
        [c] y = Conv (x, {w: 4, 4, 3, 3}, zeros)
    }
"""


def gone_with(*indices):
    """The values and operators that nothing needs once the Conv has other constants at these inputs."""
    graph = Graph(load(model_of(TEXT)))
    conv = next(op for op in graph.ops() if op.type == "Conv")
    gone = unread_after([Assign(conv, index, Given(np.zeros(4))) for index in indices])
    return {value.name for value in gone.values()}, {op.type for op in gone.ops}


def test_a_weight_goes_with_what_only_looks_at_it():
    """The weight's other reader leads to the bias, which goes as well."""
    values, ops = gone_with(1, 2)
    assert values == {"w", "shape", "start", "end", "filters", "zeros"}
    assert ops == {"Shape", "Slice", "ConstantOfShape"}


def test_a_weight_stays_while_its_shape_is_needed():
    """With the bias in its place, the Shape still reads the weight."""
    assert gone_with(1) == (set(), set())
