"""Every folded weight is the nearest value of its type to the exact one, however many affines went into it."""

import math
from fractions import Fraction

import numpy as np
import pytest
from helpers import folded, model_of
from onnx import numpy_helper

SIGNIFICANT = {"float16": 11, "bfloat16": 8, "float": 24, "double": 53}
LEAST = {"float16": -24, "bfloat16": -133, "float": -149, "double": -1074}
LIMIT = {"float16": 0.5, "bfloat16": 0.5, "float": 0.5, "double": 2.0}
SLACK = 1e-6


def numbers(array):
    """The values as fractions, in an array of objects."""
    flat = [Fraction(float(value)) for value in np.asarray(array).astype(np.float64).reshape(-1)]
    return np.array(flat, object).reshape(np.shape(array))


def root(value: Fraction) -> Fraction:
    """The square root, to sixty digits."""
    scale = 10**120
    return Fraction(math.isqrt(value.numerator * scale // value.denominator), 10**60)


def ulps(actual, exact, dtype: str) -> float:
    """The largest distance from the exact value, in units in the last place of that value."""
    worst = Fraction(0)
    for found, wanted in zip(numbers(actual).reshape(-1), exact.reshape(-1), strict=True):
        if wanted == 0:
            assert found == 0
            continue
        unit = Fraction(2) ** max(math.frexp(float(wanted))[1] - SIGNIFICANT[dtype], LEAST[dtype])
        worst = max(worst, abs(found - wanted) / unit)
    return float(worst)


class Exact:
    """The initializers of a model as fractions, and its BatchNormalizations as exact affines."""

    def __init__(self, model) -> None:
        self.arrays = {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}

    def __getitem__(self, name):
        return numbers(self.arrays[name])

    def affine(self, bn: str, epsilon: float = 1e-5):
        roots = [root(variance + Fraction(float(np.float32(epsilon)))) for variance in self[f"{bn}_var"]]
        scale = np.array([gamma / each for gamma, each in zip(self[f"{bn}_scale"], roots, strict=True)], object)
        return scale, self[f"{bn}_bias"] - self[f"{bn}_mean"] * scale


def parameters_of(model, op_type: str):
    """What the only node of that type reads as weight and bias."""
    arrays = {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    (node,) = (node for node in model.graph.node if node.op_type == op_type)
    found = [arrays[name] for name in node.input[1:]]
    assert len({array.dtype for array in found}) == 1
    return found


def check(actual, exact, dtype: str) -> None:
    """Weight and bias."""
    for found, wanted in zip(actual, exact, strict=True):
        assert ulps(found, wanted, dtype) <= LIMIT[dtype] + SLACK


def model(graph: str, dtype: str):
    return model_of(f'<ir_version: 10, opset_import: ["": 22]> g {graph}', dtype)


EVERY_TYPE = pytest.mark.parametrize("dtype", list(SIGNIFICANT))


@EVERY_TYPE
@pytest.mark.parametrize("words", ["", " float"])
def test_one_batchnorm_above(dtype, words):
    """Conv and BatchNormalization, parameters in the type of the data or in float32."""
    before = model(
        f"""(T[1, 8, 6, 6] x) => (T[1, 16, 4, 4] y) {{
            c = Conv (x, {{w: 16, 8, 3, 3}}, {{b: 16}})
            y = BatchNormalization (c, {{bn: 16{words}}}) }}""",
        dtype,
    )
    exact = Exact(before)
    scale, shift = exact.affine("bn")
    check(
        parameters_of(folded(before)[1], "Conv"),
        [exact["w"] * scale.reshape(-1, 1, 1, 1), exact["b"] * scale + shift],
        dtype,
    )


@EVERY_TYPE
def test_three_affines_round_once(dtype):
    """A BatchNormalization in front and two behind the same Conv make one rounding."""
    before = model(
        """(T[1, 8, 6, 6] x) => (T[1, 16, 4, 4] y) {
            a = BatchNormalization (x, {bn: 8})
            c = Conv (a, {w: 16, 8, 3, 3}, {b: 16})
            d = BatchNormalization (c, {bn2: 16})
            y = BatchNormalization (d, {bn3: 16}) }""",
        dtype,
    )
    exact = Exact(before)
    (s1, t1), (s2, t2), (s3, t3) = (exact.affine(name) for name in ("bn", "bn2", "bn3"))
    outer = s2 * s3
    weight = exact["w"] * s1.reshape(1, -1, 1, 1) * outer.reshape(-1, 1, 1, 1)
    inner = (exact["w"] * t1.reshape(1, -1, 1, 1)).reshape(16, -1).sum(axis=1)
    check(parameters_of(folded(before)[1], "Conv"), [weight, (exact["b"] + inner) * outer + t2 * s3 + t3], dtype)


@EVERY_TYPE
def test_decomposed_rounds_once(dtype):
    """Sub, Div, Mul and Add by constants around a Gemm with alpha and beta make one rounding."""
    before = model(
        """(T[3, 5] x) => (T[3, 4] y) {
            a = Sub (x, {mean: 5})
            b = Div (a, {std: 5})
            c = Gemm <alpha = 0.7, beta = 1.3, transB = 1> (b, {w: 4, 5}, {c0: 4})
            d = Mul (c, {s: 4})
            y = Add (d, {t: 4}) }""",
        dtype,
    )
    exact = Exact(before)
    alpha, beta = (Fraction(float(np.float32(value))) for value in (0.7, 1.3))
    weight = exact["w"] / exact["std"].reshape(1, -1) * exact["s"].reshape(-1, 1)
    moved = alpha * (exact["w"] * (-exact["mean"] / exact["std"]).reshape(1, -1)).sum(axis=1)
    check(
        parameters_of(folded(before)[1], "Gemm"),
        [weight, (beta * exact["c0"] + moved) * exact["s"] + exact["t"]],
        dtype,
    )


@EVERY_TYPE
def test_batchnorms_compose_exactly(dtype):
    """Two BatchNormalizations become one whose gamma and beta are rounded once."""
    before = model(
        """(T[2, 6, 4] x) => (T[2, 6, 4] y) {
            r = Relu (x)
            a = BatchNormalization (r, {bn: 6})
            b = BatchNormalization (a, {bn2: 6})
            y = Sigmoid (b) }""",
        dtype,
    )
    exact = Exact(before)
    after = folded(before)[1]
    (s1, t1), (s2, t2) = exact.affine("bn"), exact.affine("bn2")
    kept = next((node for node in after.graph.node if node.op_type == "BatchNormalization"), None)
    if kept is None:  # reduced to a Mul and an Add
        pytest.skip("not composed in one node")
    arrays = {tensor.name: numbers(numpy_helper.to_array(tensor)) for tensor in after.graph.initializer}
    gamma, beta, mean, variance = (arrays[name] for name in kept.input[1:])
    deviation = np.array([root(each + Fraction(float(np.float32(1e-5)))) for each in variance], object)
    wanted = s1 * s2 * deviation, t1 * s2 + t2 + mean * s1 * s2
    check((gamma.astype(float), beta.astype(float)), wanted, dtype)


@EVERY_TYPE
def test_transposed_weights(dtype):
    """A grouped ConvTranspose and a MatMul whose weight stands behind a Transpose."""
    before = model(
        """(T[1, 4, 3] x) => (T[1, 6, 4] y) {
            c = ConvTranspose <group = 2> (x, {w: 4, 3, 2})
            y = BatchNormalization (c, {bn: 6}) }""",
        dtype,
    )
    exact = Exact(before)
    scale, shift = exact.affine("bn")
    factor = np.repeat(scale.reshape(2, 3), 2, axis=0).reshape(4, 3, 1)
    check(parameters_of(folded(before)[1], "ConvTranspose"), [exact["w"] * factor, shift], dtype)

    before = model(
        """(T[2, 5] x) => (T[2, 4] y) {
            v = Transpose (w)
            c = MatMul (x, v)
            y = BatchNormalization (c, {bn: 4}) }""".replace("(w)", "({w: 4, 5})"),
        dtype,
    )
    exact = Exact(before)
    scale, shift = exact.affine("bn")
    weight, bias = parameters_of(folded(before)[1], "Gemm")
    check([weight, bias.reshape(-1)], [exact["w"].T * scale.reshape(1, -1), shift], dtype)


def test_bias_in_float64():
    """A bias of a float64 model is within 2 ULP, too."""
    before = model(
        """(T[1, 2, 4] x) => (T[1, 64, 4] y) {
            c = Conv (x, {w: 64, 2, 1}, {b: 64})
            y = BatchNormalization (c, {bn: 64}) }""",
        "double",
    )
    exact = Exact(before)
    scale, shift = exact.affine("bn")
    assert ulps(parameters_of(folded(before)[1], "Conv")[1], exact["b"] * scale + shift, "double") <= LIMIT["double"]


def test_cancelling_bias_and_mean():
    """Where a large bias and the mean it was trained with cancel, the new bias is still the nearest number."""
    before = model(
        """(T[1, 1, 2] x) => (T[1, 4, 2] y) {
            c = Conv (x, {w: 4, 1, 1}, {b: 4})
            y = BatchNormalization (c, {bn: 4}) }""",
        "float",
    )
    for tensor in before.graph.initializer:
        if tensor.name in ("b", "bn_mean"):
            values = np.array([3e4, -7e5, 1e6, 2e3], np.float32) + (0.25 if tensor.name == "b" else 0)
            tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))
    exact = Exact(before)
    scale, shift = exact.affine("bn")
    _, bias = parameters_of(folded(before)[1], "Conv")
    check([bias], [exact["b"] * scale + shift], "float")
