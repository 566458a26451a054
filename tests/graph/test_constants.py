"""Constants: what a value holds in every run, behind the operators that exporters put in between."""

import ml_dtypes
import numpy as np
import onnx
import pytest
from helpers import model_of, run

from bnfold.graph import Graph
from bnfold.model_io import load

HEADER = '<ir_version: 8, opset_import: ["": {opset}]>\n'


def model(body: str, opset: int = 17, inputs: str = "float[2, 3, 4] x") -> onnx.ModelProto:
    """A model that computes `y` from constants."""
    parsed = model_of(f"{HEADER.format(opset=opset)} g ({inputs}) => (float y) {{ {body} }}")
    del parsed.graph.output[:]
    parsed.graph.output.append(onnx.ValueInfoProto(name="y"))
    return parsed


def constant(parsed: onnx.ModelProto, **options):
    graph = Graph(load(parsed), **options)
    return graph.constant(graph.main.values["y"])


FEEDS = {"x": np.zeros((2, 3, 4), np.float32)}

CHAINS = {
    "initializer": ("y = Identity ({a: 3})", 17),
    "constant-tensor": ("y = Constant <value = float[2, 2] {1, 2, 3, 4}> ()", 17),
    "constant-float": ("y = Constant <value_float = 2.5> ()", 17),
    "constant-floats": ("y = Constant <value_floats = [1.5, -2.0]> ()", 17),
    "constant-int": ("y = Constant <value_int = 7> ()", 17),
    "constant-ints": ("y = Constant <value_ints = [7, 8]> ()", 17),
    "cast-down": ("y = Cast <to = 10> ({a: 5})", 17),
    "cast-integer": ("y = Cast <to = 7> ({a: 5})", 17),
    "cast-from-integer": ("a = Constant <value_ints = [7, -8]> () y = Cast <to = 1> (a)", 17),
    "cast-bool": ("a = Constant <value_ints = [7, 0]> () y = Cast <to = 9> (a)", 17),
    "castlike": ("y = CastLike ({a: 3}, x)", 17),
    "castlike-constant": ("y = CastLike ({a: 3 double}, {b: 1})", 17),
    "castlike-half": ("y = CastLike ({a: 3}, {b: 1 float16})", 17),
    "reshape": ("y = Reshape ({a: 2, 6}, s)", 17),
    "reshape-opset-1": ("y = Reshape <shape = [3, -1]> ({a: 2, 6})", 1),
    "transpose": ("y = Transpose <perm = [2, 0, 1]> ({a: 2, 3, 4})", 17),
    "transpose-reversed": ("y = Transpose ({a: 2, 3, 4})", 17),
    "unsqueeze": ("y = Unsqueeze ({a: 2, 3}, n)", 17),
    "unsqueeze-attribute": ("y = Unsqueeze <axes = [0, 3]> ({a: 2, 3})", 11),
    "squeeze": ("y = Squeeze ({a: 1, 3, 1}, zero)", 17),
    "squeeze-all": ("y = Squeeze ({a: 1, 3, 1})", 17),
    "squeeze-attribute": ("y = Squeeze <axes = [-1]> ({a: 1, 3, 1})", 11),
    "flatten": ("y = Flatten <axis = -1> ({a: 2, 3, 4})", 17),
    "flatten-all": ("y = Flatten <axis = 0> ({a: 2, 3})", 17),
    "expand": ("y = Expand ({a: 3, 1}, s)", 17),
    "expand-down": ("y = Expand ({a: 3, 1, 4}, one)", 17),
    "constant-of-shape": ("y = ConstantOfShape <value = float[1] {2.5}> (s)", 17),
    "constant-of-shape-default": ("y = ConstantOfShape (s)", 17),
    "concat": ("y = Concat <axis = -1> ({a: 2, 3}, {b: 2, 1})", 17),
    "gather": ("y = Gather <axis = 1> ({a: 2, 3}, i)", 17),
    "slice": ("y = Slice ({a: 5, 6}, from, to)", 17),
    "slice-axes-steps": ("y = Slice ({a: 5, 6}, zero, last, one, two)", 17),
    "slice-backwards": ("y = Slice ({a: 5, 6}, minus, least, zero, minus)", 17),
    "slice-backwards-by-two": ("y = Slice ({a: 5, 6}, last, zero, one, minus2)", 17),
    "slice-attributes": ("y = Slice <starts = [1], ends = [3], axes = [1]> ({a: 5, 6})", 9),
    "arithmetic": ("p = Add ({a: 3}, {b: 2, 1}) q = Mul (p, a) r = Sub (q, b) y = Div (r, {c: 1 positive})", 17),
    "arithmetic-integers": ("p = Add (s, s) q = Mul (p, n2) y = Div (q, two)", 17),
    "arithmetic-negative-integers": ("p = Sub (zero, s) y = Div (p, two)", 17),
    "mod": ("p = Sub (zero, s) y = Mod (p, two)", 17),
    "mod-of-c": ("p = Sub (zero, s) y = Mod <fmod = 1> (p, two)", 17),
    "mod-by-zero": ("y = Mod (s, zero)", 17),
    "mod-of-floats": ("y = Mod <fmod = 1> ({a: 3 positive}, {b: 3})", 17),
    "arithmetic-opset-6": ("y = Add <broadcast = 1, axis = 0> ({a: 2, 3, 4}, {b: 2})", 6),
    "sqrt-reciprocal-neg": ("p = Sqrt ({a: 3 positive}) q = Reciprocal (p) y = Neg (q)", 17),
    "pow": ("y = Pow ({a: 3 positive}, {b: 3})", 17),
    "shape": ("y = Shape ({a: 2, 5})", 17),
    "shape-of-input": ("y = Shape (x)", 17),
    "shape-part": ("y = Shape <start = 1, end = -1> (x)", 17),
    "shape-from-end": ("y = Shape <start = -2> (x)", 17),
    "shape-beyond": ("y = Shape <start = -9, end = 9> (x)", 17),
    "torch-bias": (
        "c = Constant <value_float = 0.5> () d = CastLike (c, x) e = Shape ({w: 4, 3, 1, 1}) "
        "f = Slice (e, zero, one) y = Expand (d, f)",
        17,
    ),
}
INTEGERS = {"s": [3, 4], "n": [0, -1], "n2": [2, 2], "zero": [0], "one": [1], "two": [2], "i": [[2, -1], [0, 0]],
            "from": [1, -3], "to": [-1, 100], "last": [6],
            "minus": [-1], "minus2": [-2], "least": [1 - 2**63]}  # fmt: skip


def with_integers(parsed: onnx.ModelProto) -> onnx.ModelProto:
    read = {name for node in parsed.graph.node for name in node.input}
    for name, values in INTEGERS.items():
        if name in read:
            parsed.graph.initializer.append(onnx.numpy_helper.from_array(np.array(values, np.int64), name))
    return parsed


NOT_EVALUATED = {"slice-attributes", "arithmetic-negative-integers", "cast-integer", "mod-by-zero", "mod-of-floats"}


@pytest.mark.parametrize("name", CHAINS)
def test_a_chain_on_constants_holds_what_the_runtime_computes(name):
    """Values, type and shape are those of ONNX's reference implementation."""
    body, opset = CHAINS[name]
    parsed = with_integers(model(body, opset))
    found = constant(parsed)
    if found is None:
        assert name in NOT_EVALUATED
        return
    is_old = name == "reshape-opset-1"  # the reference implementation does not know it
    expected = parsed_array(parsed, "a").reshape(3, 4) if is_old else np.asarray(run(parsed, FEEDS)["y"])
    assert found.shape == expected.shape
    assert found.dtype == expected.dtype
    array = found.array()
    assert array.dtype == expected.dtype
    assert array.flags.writeable
    np.testing.assert_allclose(array.astype(np.float64), expected.astype(np.float64), rtol=1e-6)
    if expected.dtype.kind == "f":
        np.testing.assert_allclose(found.float64(), expected.astype(np.float64), rtol=1e-6)


def parsed_array(parsed: onnx.ModelProto, name: str) -> np.ndarray:
    (tensor,) = (tensor for tensor in parsed.graph.initializer if tensor.name == name)
    return onnx.numpy_helper.to_array(tensor)


@pytest.mark.parametrize(
    "body",
    [
        pytest.param("y = Identity (x)", id="input"),
        pytest.param("y = Add (x, {a: 4})", id="arithmetic-with-input"),
        pytest.param("y = Expand (x, s)", id="input-expanded"),
        pytest.param("y = Relu ({a: 4})", id="operator-that-is-not-evaluated"),
        pytest.param("y = RandomNormal <shape = [3]> ()", id="random"),
        pytest.param("y = my.Op ({a: 4})", id="custom"),
        pytest.param("q, y = Split ({a: 4})", id="second-output"),
    ],
)
def test_what_is_not_constant(body):
    """A value that depends on an input's values, or on what is not known, is no constant."""
    parsed = with_integers(model(body))
    parsed.opset_import.append(onnx.helper.make_opsetid("my", 1))
    assert constant(parsed) is None


def test_shape_of_a_dynamic_input():
    """Only the part of a shape that is known is constant."""
    assert constant(model("y = Shape (x)", inputs="float[N, 3, 4] x")) is None
    known = constant(model("y = Shape <start = 1> (x)", inputs="float[N, 3, 4] x"))
    assert known.array().tolist() == [3, 4]


def test_a_size_of_a_dynamic_input():
    """What is taken out of a shape is constant if it is known, whatever the rest; torch cuts a value into chunks so."""
    body, inputs = "i = Constant <value_ints = {}> () s = Shape (x) y = Gather (s, i)", "float[N, 3, 4] x"
    assert constant(model(body.format("[-1, 1]"), inputs=inputs)).array().tolist() == [4, 3]
    assert constant(model(body.format("[1, 0]"), inputs=inputs)) is None
    assert constant(model(body.format("[3]"), inputs=inputs)) is None
    one = "i = Constant <value_int = 2> () s = Shape (x) y = Gather (s, i)"
    assert constant(model(one, inputs=inputs)).array().tolist() == 4


@pytest.mark.parametrize(("ir", "assume", "is_constant"), [(3, False, True), (4, False, False), (8, True, True)])
def test_an_initializer_that_is_an_input(ir, assume, is_constant):
    """From IR version 4 on a caller may override it, unless told otherwise; before, none could."""
    parsed = model("y = Identity (a)", inputs="float[2] x, float[3] a")
    parsed.graph.initializer.append(onnx.numpy_helper.from_array(np.ones(3, np.float32), "a"))
    parsed.ir_version = ir
    assert (constant(parsed, assume_constant=assume) is not None) == is_constant


@pytest.mark.parametrize(
    "body",
    [
        pytest.param("y = ConstantOfShape (s)", id="constant-of-shape"),
        pytest.param("y = Expand ({a: 1}, s)", id="expand"),
        pytest.param("c = ConstantOfShape (s) y = Add (c, {a: 1})", id="arithmetic-on-it"),
        pytest.param("c = Expand ({a: 2, 1}, t) d = Expand ({b: 1, 2}, u) y = Mul (c, d)", id="outer-product"),
        pytest.param("c = ConstantOfShape (t) y = Concat <axis = 0> (" + ", ".join(["c"] * 64) + ")", id="concat"),
        pytest.param("c = ConstantOfShape <value = int64[1] {0}> (t) y = Gather ({a: 4, 4}, c)", id="gather"),
    ],
)
def test_a_memory_bomb_is_no_constant(body):
    """A model of a few bytes that asks for a constant of 2**40 elements does not get it."""
    parsed = model(body)
    big = {"s": [2**40], "t": [2**20, 1] if "Expand" in body else [2**33], "u": [1, 2**20]}
    if "Concat" in body or "Gather" in body:
        big["t"] = [2**38]
    if "Expand ({a: 2" in body:
        parsed = model(body.replace("{a: 2, 1}", "{a: 1, 1}").replace("{b: 1, 2}", "{b: 1, 1}"))
    read = {name for node in parsed.graph.node for name in node.input}
    for name, values in big.items():
        if name in read:
            parsed.graph.initializer.append(onnx.numpy_helper.from_array(np.array(values, np.int64), name))
    assert constant(parsed) is None


def test_a_chain_of_arithmetic_is_not_rounded_on_its_way():
    """Square root and quotient of float32 constants are known to float64's precision; float32 comes of it once."""
    parsed = model("p = Sqrt ({a: 4 positive}) y = Div ({b: 4}, p)")
    found = constant(parsed)
    exact = parsed_array(parsed, "b").astype(np.float64) / np.sqrt(parsed_array(parsed, "a").astype(np.float64))
    np.testing.assert_allclose(found.float64(), exact, rtol=1e-15)
    np.testing.assert_array_equal(found.array(), exact.astype(np.float32))


@pytest.mark.parametrize(
    "cast",
    [
        "Cast <to = 10> ({a: 40})",
        "CastLike ({a: 40}, {like: 1 float16})",
    ],
)
def test_a_cast_rounds(cast):
    """What a Cast to float16 leaves is a float16 value, whoever asks."""
    parsed = model(f"h = {cast} y = Cast <to = 1> (h)")
    expected = parsed_array(parsed, "a").astype(np.float16).astype(np.float64)
    np.testing.assert_array_equal(constant(parsed).float64(), expected)


def test_bfloat16():
    """bfloat16 initializers come as such, and in float64 exactly."""
    found = constant(model("y = Identity ({a: 5 bfloat16})"))
    assert found.dtype == ml_dtypes.bfloat16
    np.testing.assert_array_equal(found.float64(), found.array().astype(np.float64))


def test_each_reader_gets_an_array_of_its_own():
    """A caller may write into what it was given in the constant's own type, and not into what others get as well."""
    found = constant(model("y = Identity ({a: 5})"))
    found.array()[:] = 0
    with pytest.raises(ValueError, match="read-only"):
        found.float64()[:] = 0
    assert found.array().all()


def test_a_number_without_axes():
    """Such as numpy makes a scalar of, which is no array."""
    found = constant(model("s = Constant <value_float = 2.0> () y = Neg (s)"))
    assert (found.array().tolist(), found.float64().tolist()) == (-2.0, -2.0)


def test_questions_in_a_row_are_answered_by_one_evaluation():
    """What is large is kept until others are asked for, and not beyond the graph."""
    graph = Graph(load(model("s = Add ({a: 5, 10, 400}, {b: 5, 10, 400}) n = Neg (s) y = Add (s, n)")))
    first, other = (graph.constant(graph.main.values[name]) for name in ("s", "n"))
    values = first.values()
    assert first.values() is values
    assert other.values() is other.values()
    graph.commit()
    assert first.values() is not values
    np.testing.assert_array_equal(first.values(), values)


def test_a_number_for_each_channel_is_its_own_mean():
    """A BatchNormalization in training mode of what is the same everywhere leaves its bias."""
    body = "e = Expand ({c: 4, 1}, s) y = BatchNormalization <training_mode = 1> (e, {g: 4}, {b: 4}, {m: 4}, {v: 4})"
    parsed = model(f"s = Constant <value_ints = [9, 4, 7]> () {body}")
    bias = onnx.numpy_helper.to_array(next(t for t in parsed.graph.initializer if t.name == "b"))
    np.testing.assert_array_equal(constant(parsed).array(), np.broadcast_to(bias.reshape(4, 1), (9, 4, 7)))
