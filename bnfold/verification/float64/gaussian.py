"""The error function in float64, and the activations that are made of it: numpy has none."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np

from bnfold.affine import FloatArray
from bnfold.graph import Op
from bnfold.verification.float64.kernel import Array, Kernel, optional, present

_END, _STEPS = 6.0, 1 << 12  # erf(6) is 1 in float64
_TABLE = np.array([math.erf(_END * k / _STEPS) for k in range(_STEPS + 1)])


def erf(x: FloatArray) -> FloatArray:
    """Taylor's series to h^5 about the nearest of 4097 points, which leaves less than an ulp.

    erf'(a) = 2/sqrt(pi) exp(-a^2), and its derivatives are that times Hermite's polynomials.
    """
    size = np.minimum(np.abs(x), _END)
    nearest = np.rint(np.nan_to_num(size) * (_STEPS / _END)).astype(np.int64)
    a = nearest * (_END / _STEPS)
    h = size - a
    series = h * (
        1 + h * (-a + h * ((2 * a**2 - 1) / 3 + h * ((3 - 2 * a**2) * a / 6 + h * (4 * a**4 - 12 * a**2 + 3) / 30)))
    )
    return np.asarray(np.copysign(_TABLE[nearest] + 2 / math.sqrt(math.pi) * np.exp(-(a**2)) * series, x))


def gelu(x: FloatArray) -> FloatArray:
    """X * (1 + erf(x / sqrt(2))) / 2"""
    return np.asarray(x * (1 + erf(x / math.sqrt(2))) / 2)


def fast_gelu(x: FloatArray) -> FloatArray:
    """X * (1 + tanh(sqrt(2/pi) * (x + 0.044715 x^3))) / 2"""
    return np.asarray(x * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3))) / 2)


def _biased(function: Callable[[FloatArray], FloatArray]) -> Kernel:
    """ONNX Runtime's form, with a bias that is added first."""

    def kernel(op: Op, inputs: Sequence[Array | None]) -> list[Array]:
        del op
        x, bias = present(inputs[0]), optional(inputs, 1)
        return [function(x if bias is None else x + bias)]

    return kernel


def _either_gelu(op: Op, inputs: Sequence[Array | None]) -> list[Array]:
    is_fast = op.attribute("approximate", b"none") == b"tanh"
    return [(fast_gelu if is_fast else gelu)(present(inputs[0]))]


def _quick_gelu(op: Op, inputs: Sequence[Array | None]) -> list[Array]:
    """X * sigmoid(alpha * x)"""
    x = present(inputs[0])
    return [x / (1 + np.exp(-op.attribute("alpha", 1.702) * x))]


GAUSSIAN: dict[str, Kernel] = {
    "Erf": lambda op, inputs: [erf(present(inputs[0]))],
    "Gelu": _either_gelu,
    "com.microsoft::Gelu": _biased(gelu),
    "com.microsoft::BiasGelu": _biased(gelu),
    "com.microsoft::FastGelu": _biased(fast_gelu),
    "com.microsoft::QuickGelu": _quick_gelu,
}
