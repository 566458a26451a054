"""Shapes that ONNX's inference does not tell: those that a model computes."""

import numpy as np
import onnx
import pytest
from helpers import model_of

from bnfold.graph import Graph, shapes
from bnfold.graph.ports import mistyped
from bnfold.model_io import load

HEADER = '<ir_version: 8, opset_import: ["": 13]>\n'
BATCH = (
    "s = Shape (x)\nzero = Constant <value_int = 0> ()\nb = Gather (s, zero)\none = Constant <value_ints = [0]> ()\n"
)


def shape_of(text: str, name: str = "r"):
    graph = Graph(load(model_of(HEADER + text)))
    return graph.shape(graph.main.values[name])


@pytest.mark.parametrize(
    ("sizes", "shape"),
    [
        ("bs, {6}, {2}, {-1}", ("batch", 6, 2, 4)),
        ("bs, {-1}", ("batch", 48)),
        ("{0}, {-1}", ("batch", 48)),
        ("{-1}, {48}", ("batch", 48)),
        ("{-1}, bs", (48, "batch")),
        ("twice, {3}, {8}", (None, 3, 8)),
        ("twice, {-1}, {8}", (None, None, 8)),
        ("bs, {5}, {-1}", ("batch", 5, None)),
        ("bs, bs, {-1}", ("batch", "batch", None)),
    ],
)
def test_target_of_reshape(sizes, shape):
    """What a target is computed from is followed, and the number of elements gives the size that is left."""
    parts = [part.strip() for part in sizes.split(",")]
    constants = "".join(
        f"c{index} = Constant <value_ints = [{part[1:-1]}]> ()\n" for index, part in enumerate(parts) if part[0] == "{"
    )
    names = ", ".join(f"c{index}" if part[0] == "{" else part for index, part in enumerate(parts))
    computed = f"{BATCH}bs = Unsqueeze (b, one)\ntwice = Add (bs, bs)\n{constants}t = Concat <axis = 0> ({names})"
    known = shape_of(f"g (float[batch, 6, 8] x) => (int64[rank] y) {{ {computed}\nr = Reshape (x, t)\ny = Shape (r) }}")
    assert known is not None
    assert tuple(dim if isinstance(dim, int) or dim == "batch" else None for dim in known) == shape


def test_a_long_chain(monkeypatch):
    """Each block's sizes are computed from the shape of the one before, as in an export's attention: two rounds do."""
    monkeypatch.setattr(shapes, "_MAX_REFINEMENTS", 2)
    blocks = "".join(
        f"""
        s{n} = Shape (x{n})
        b{n} = Gather (s{n}, zero)
        u{n} = Unsqueeze (b{n}, one)
        f{n} = Flatten <axis = 2> (x{n})
        r{n} = Reshape (f{n}, s{n})
        t{n} = Concat <axis = 0> (u{n}, six, four, rest)
        h{n} = Reshape (r{n}, t{n})
        p{n} = Transpose <perm = [0, 2, 1, 3]> (h{n})
        v{n} = Shape (p{n})
        w{n} = Slice (v{n}, one, two, one)
        z{n} = Concat <axis = 0> (w{n}, rest)
        q{n} = Reshape (p{n}, z{n})
        i{n} = Concat <axis = 0> (u{n}, six, eight)
        x{n + 1} = Reshape (q{n}, i{n})"""
        for n in range(12)
    )
    numbers = {"six": 6, "four": 4, "two": 2, "eight": 8, "rest": -1}
    constants = "".join(f"{name} = Constant <value_ints = [{number}]> ()\n" for name, number in numbers.items())
    steps = f"{BATCH}{constants}x0 = Identity (x){blocks}\ny = Shape (x12)"
    text = f"g (float[batch, 6, 8] x) => (int64[rank] y) {{ {steps} }}"
    assert shape_of(text, "x12") == ("batch", 6, 8)
    assert shape_of(text, "h11") == ("batch", 6, 4, 2)


@pytest.mark.parametrize("count", [1, 200])
def test_kernels_computed_from_the_shapes_that_only_they_tell_are_not_followed_for_ever(count):
    """Each Conv reads a kernel whose size is that of the Conv's own input, of which nothing else is known."""
    lines = ["b0 = odd.Odd (x)"]
    for number in range(count):
        lines += [
            f"s{number} = Shape (b{number})",
            f"c{number} = Gather (s{number}, one)",
            f"k{number} = Concat <axis = 0> (c{number}, c{number}, ones)",
            f"w{number} = Expand (k, k{number})",
            f"b{number + 1} = Conv (b{number}, w{number})",
        ]
    body = "\n".join(lines)
    model = onnx.parser.parse_model(
        f"""<ir_version: 8, opset_import: ["": 17, "odd": 1]>
        g (float[1, 4, 4, 4] x) => (float[N, C, H, W] b{count})
        <int64[1] one = {{1}}, int64[2] ones = {{1, 1}}, float[1, 1, 1, 1] k = {{1}}> {{ {body} }}"""
    )
    graph = Graph(load(model))
    assert graph.shape(graph.main.values[f"b{count}"]) is None
    assert graph.shape(graph.main.values["b0"]) is None
    assert graph.constant(graph.main.values["w0"]) is None


@pytest.mark.parametrize(("op_type", "opset"), [("RMSNormalization", 23), ("SimplifiedLayerNormalization", 17)])
def test_a_norm_of_mixed_types(op_type, opset):
    """What it makes has the type of its scale, and the shape of its data."""
    body = f"g (float[N, 5, 8] x) => (float16[N, 5, 8] y) {{ r = {op_type} (x, {{g: 8 float16}}) y = Relu (r) }}"
    graph = Graph(load(model_of(f'<ir_version: 10, opset_import: ["": {opset}]> {body}')))
    value = graph.main.values["r"]
    assert graph.dtype(value) == np.float16
    assert graph.shape(value) == ("N", 5, 8)


def test_sizes_below_zero():
    """Exporters write -1 for any size; at a Slice of such a one, ONNX's inference ends the process."""
    model = model_of(
        HEADER + "g (float[7, 4] x) => (float[n, 4] y) <int64[1] a = {0}> { r = Relu (x) y = Slice (r, a, a) }"
    )
    model.graph.input[0].type.tensor_type.shape.dim[0].dim_value = -1
    graph = Graph(load(model))
    shape = graph.shape(graph.main.values["r"])
    assert shape is not None
    assert shape[1] == 4
    assert not mistyped(load(model))


def test_what_inference_passes_over_is_noted_once(monkeypatch):
    """Of an output it says anew what it finds; that a norm beside it has four channels is no news the second time."""
    rounds: list[onnx.ModelProto] = []
    infer = shapes._infer
    monkeypatch.setattr(shapes, "_infer", lambda model: rounds.append(model) or infer(model))
    model = model_of(
        HEADER
        + """g (float[2, 8] x, int64[1] k) => (float[N, C] y, float[A, B] a) <float[4] p = {1, 1, 1, 1}>
        { a, b = TopK <axis = 1> (x, k)  y = BatchNormalization (a, p, p, p, p) }"""
    )
    graph = Graph(load(model))
    assert graph.shape(graph.main.values["a"]) is not None
    assert len(rounds) == 2
