"""How many positions a region is evaluated at."""

import numpy as np
import pytest
from verification.helpers import parsed

from bnfold.graph import Graph
from bnfold.model_io import load
from bnfold.verification.regions.positions import fewer
from bnfold.verification.regions.regions import Region

TENSORS = {
    "a": np.arange(8, dtype=np.float32),
    "c": np.ones((8, 1, 1), np.float32),
    "one": np.ones(1, np.float32),
    "w": np.ones((2, 8, 3, 3), np.float32),
    "m": np.ones((8, 4), np.float32),
    "p": np.ones(100, np.float32),
    "s": np.array([-1]),
    "b": np.ones(300, np.float32),
    "t": np.ones((300, 8), np.float32),
    "k": np.ones((8, 2, 3, 3), np.float32),
    "j": np.ones((1, 2, 300), np.float32),
}


def shapes(line, given, other=None, opset=17):
    """The shapes of the inputs of a line that makes y of x and z, both sides alike but for ``other``."""
    regions = []
    for each in (line, other or line):
        text = ", ".join(f"float[{','.join(map(str, shape))}] {name}" for name, shape in given.items())
        graph = Graph(load(parsed(f"n ({text}) => (float y) {{ {each} }}", opset, TENSORS)))
        values = graph.main.values
        constants = tuple(value for value in values.values() if value.tensor is not None)
        border = {values[name]: number for number, name in enumerate(given)}
        regions.append(Region(values["y"], tuple(graph.main.live_ops()), border, constants))
    return list(fewer(*regions, dict(enumerate(given.values()))).values())


@pytest.mark.parametrize(
    ("line", "given", "kept"),
    [
        pytest.param("y = Relu (x)", [(3, 5000)], [(3, 256)], id="each"),
        pytest.param("y = Mul (x, one)", [(1, 3000, 64)], [(1, 16, 16)], id="a-number"),
        pytest.param("y = Mul (x, a)", [(1, 3000, 8)], [(1, 256, 8)], id="along-last"),
        pytest.param("y = Mul (x, c)", [(2, 8, 90, 90)], [(2, 8, 16, 16)], id="along-channels"),
        pytest.param("y = Mul (x, z)", [(2, 8, 90, 90), (2, 8, 1, 1)], [(2, 7, 7, 7), (2, 7, 1, 1)], id="gate"),
        pytest.param("y = MatMul (x, m)", [(1, 3000, 8)], [(1, 256, 8)], id="matrix"),
        pytest.param("y = Softmax <axis = -1> (x)", [(1, 3000, 8)], [(1, 256, 8)], id="softmax"),
        pytest.param("y = Conv <pads = [1, 1, 1, 1]> (x, w)", [(2, 8, 90, 91)], [(2, 8, 16, 16)], id="conv"),
        pytest.param("y = com.microsoft.BiasGelu (x, a)", [(1, 3000, 8)], [(1, 256, 8)], id="fused"),
        pytest.param(
            'y = com.microsoft.FusedConv <activation = "Relu", pads = [1, 1, 1, 1]> (x, w)',
            [(2, 8, 90, 91)],
            [(2, 8, 16, 16)],
            id="fused-conv",
        ),
        pytest.param("y = Conv <strides = [2, 3]> (x, w)", [(2, 8, 90, 91)], [(2, 8, 18, 19)], id="what-is-left-over"),
        pytest.param(
            "v = Conv <strides = [4, 4]> (x, w) y = Conv <dilations = [3, 3]> (v, k)",
            [(2, 8, 200, 200)],
            [(2, 8, 64, 64)],
            id="wide-behind-a-stride",
        ),
        pytest.param("y = BatchNormalization (x, a, a, a, a)", [(2, 8, 90, 90)], [(2, 8, 16, 16)], id="channels"),
        pytest.param(
            "y, mean, var = BatchNormalization <training_mode = 1> (x, a, a, a, a)",
            [(2, 8, 90, 90)],
            [(2, 8, 90, 90)],
            id="statistics",
        ),
        pytest.param("y = Conv <dilations = [9, 9]> (x, w)", [(2, 8, 90, 91)], [(2, 8, 41, 41)], id="wide"),
        pytest.param("y = Conv <dilations = [44, 44]> (x, w)", [(2, 8, 90, 91)], [(2, 8, 90, 91)], id="all-of-it"),
        pytest.param(
            "v = Conv <pads = [1, 1, 1, 1], strides = [2, 2]> (x, w) y = Add (v, z)",
            [(2, 8, 90, 90), (2, 2, 45, 45)],
            [(2, 8, 90, 90), (2, 2, 45, 45)],
            id="two-sizes",
        ),
        pytest.param("y = Mul (x, p)", [(1, 8, 100)], [(1, 8, 100)], id="a-table-of-places"),
        pytest.param("y = Concat <axis = 2> (x, z)", [(1, 8, 300), (1, 8, 300)], [(1, 8, 300)] * 2, id="joined"),
        pytest.param("y = Concat <axis = 1> (x, j)", [(1, 8, 300)], [(1, 8, 300)], id="joined-with-a-table"),
        pytest.param("y = Reshape (x, s)", [(1, 8, 300)], [(1, 8, 300)], id="size"),
        pytest.param("y = ReduceMean (x)", [(1, 8, 300)], [(1, 8, 300)], id="sum"),
        pytest.param("y = MatMul (x, z)", [(2, 300, 8), (2, 8, 90)], [(2, 16, 8), (2, 8, 16)], id="two-matrices"),
        pytest.param(
            "v = Transpose <perm = [0, 2, 1]> (x) y = MatMul (v, m)", [(3, 8, 900)], [(3, 8, 256)], id="turned"
        ),
        pytest.param(
            "u = Unsqueeze (x, s) v = Transpose <perm = [0, 3, 2, 1]> (u) y = Mul (v, z)",
            [(3, 500, 300), (3, 1, 300, 500)],
            [(3, 16, 16), (3, 1, 16, 16)],
            id="turned-with-another",
        ),
        pytest.param(
            "q = Squeeze (x, s) y = Add (q, z)", [(3, 900, 1), (3, 900)], [(3, 256, 1), (3, 256)], id="squeezed"
        ),
        pytest.param("v = Transpose (x) y = Concat <axis = 0> (v, v)", [(3, 900)], [(3, 900)], id="joined-when-turned"),
        pytest.param(
            "u = Transpose <perm = [0, 2, 1]> (x) v = Softmax <axis = -1> (u) y = Add (v, z)",
            [(3, 900, 700), (3, 700, 900)],
            [(3, 900, 256), (3, 256, 900)],
            id="along-what-was-another",
        ),
        pytest.param(
            "v = Transpose <perm = [0, 2, 1]> (x) y = Add (v, x)", [(3, 900, 900)], [(3, 256, 256)], id="with-itself"
        ),
        pytest.param(
            'y = com.microsoft.FusedConv <activation = "Relu", pads = [1, 1, 1, 1]> (x, w, "", z)',
            [(2, 8, 90, 91), (2, 2, 90, 91)],
            [(2, 8, 16, 16), (2, 2, 16, 16)],
            id="what-a-fused-conv-adds",
        ),
        pytest.param("v = MatMul (x, a) y = Mul (v, b)", [(1, 300, 8)], [(1, 300, 8)], id="an-axis-that-goes"),
        pytest.param("y = LayerNormalization (x, t)", [(1, 300, 8)], [(1, 300, 8)], id="a-scale-for-each-place"),
        pytest.param(
            "y = ConvTranspose <output_shape = [92, 92]> (x, k)",
            [(2, 8, 90, 90)],
            [(2, 8, 90, 90)],
            id="a-size-that-is-stated",
        ),
    ],
)
def test_positions_are_fewer_where_all_are_alike(line, given, kept):
    """What asks for a place or a size, or sums along an axis, gets all of it."""
    assert shapes(line, dict(zip("xz", given, strict=False))) == kept


def test_both_sides_have_to_be_alike_everywhere():
    """One side that knows the places is enough."""
    assert shapes("y = Relu (x)", {"x": (1, 8, 100)}, other="y = Mul (x, p)") == [(1, 8, 100)]


def test_old_versions_say_which_axis_is_which():
    """A vector may be along the channels there, whatever it would be along today."""
    given = {"x": (2, 300, 90, 90)}
    assert shapes("y = Mul <broadcast = 1, axis = 1> (x, b)", given, opset=6) == [(2, 300, 90, 90)]


def test_an_old_softmax_is_along_all_but_the_first_axis():
    """Where it does not say."""
    assert shapes("y = Softmax (x)", {"x": (1, 300, 8)}, opset=11) == [(1, 300, 8)]


def test_windows_of_both_sides_have_room():
    """The wider one decides."""
    wide = "y = Conv <dilations = [9, 9]> (x, w)"
    assert shapes("y = Conv (x, w)", {"x": (2, 8, 90, 91)}, other=wide) == [(2, 8, 41, 41)]
