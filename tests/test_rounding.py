"""Rounding to the type of a weight: always the nearest value, checked with exact arithmetic."""

import math
import struct
from fractions import Fraction

import ml_dtypes
import numpy as np
import pytest
from helpers import many
from hypothesis import given
from hypothesis import strategies as st

from bnfold.rounding import rounded

TYPES = {
    "float16": (np.dtype(np.float16), 11, -24, 65504),
    "bfloat16": (np.dtype(ml_dtypes.bfloat16), 8, -133, float(ml_dtypes.finfo(ml_dtypes.bfloat16).max)),
    "float8_e5m2": (np.dtype(ml_dtypes.float8_e5m2), 3, -16, 57344),
    "float32": (np.dtype(np.float32), 24, -149, float(np.finfo(np.float32).max)),
}
"""numpy's type, bits of the significand, exponent of the smallest number, largest number."""


def nearest(value: float, bits: int, least: int, largest: float) -> float:
    """The nearest number of that many bits, ties to even, with Python's integers."""
    exact = Fraction(value)
    exponent = max(math.frexp(value)[1] - bits, least)
    unit = Fraction(2) ** exponent
    result = abs(round(exact / unit) * unit)  # round() of a Fraction goes to even
    return math.copysign(float(result) if result <= largest else math.inf, value)


@pytest.mark.parametrize("name", TYPES)
@many
@given(value=st.floats(allow_nan=False, allow_infinity=False, width=64) | st.floats(-70000, 70000))
def test_it_is_the_nearest(name, value):
    """Every float64 goes to the nearest value of the type, ties to even, and beyond its range to infinity."""
    dtype, *limits = TYPES[name]
    assert float(rounded(np.array([value]), dtype)[0]) == nearest(value, *limits)


@pytest.mark.parametrize("name", TYPES)
@many
@given(
    near=st.floats(-1e4, 1e4, allow_nan=False).filter(lambda value: abs(value) > 1e-4),
    part=st.sampled_from([0, 1, -1, 2**10, -(2**10), 2**20, -(2**20), 2**28, -(2**28), 2**29, -(2**29)]),
)
def test_ties_and_their_neighbours(name, near, part):
    """Halfway between two values it goes to the even one, and a last bit more or less decides."""
    dtype, *limits = TYPES[name]
    low = np.array([near]).astype(dtype)
    high = np.nextafter(low, low.dtype.type(np.inf))
    middle = (float(low[0]) + float(high[0])) / 2
    (bits,) = struct.unpack("<q", struct.pack("<d", middle))
    (value,) = struct.unpack("<d", struct.pack("<q", bits + part))
    assert float(rounded(np.array([value]), dtype)[0]) == nearest(value, *limits)


def test_bfloat16_does_not_round_twice():
    """A value just above a tie of bfloat16 that float32 would round down to the tie."""
    value = 1 + 2.0**-8 + 2.0**-40
    assert float(np.float64(value).astype(np.float32).astype(ml_dtypes.bfloat16)) == 1.0
    assert float(rounded(np.array([value]), np.dtype(ml_dtypes.bfloat16))[0]) == 1 + 2.0**-7


@pytest.mark.parametrize("name", [*TYPES, "float64"])
def test_special_values_stay(name):
    """Infinity, NaN and the sign of zero pass unchanged."""
    dtype = TYPES[name][0] if name in TYPES else np.dtype(np.float64)
    result = rounded(np.array([np.inf, -np.inf, np.nan, 0.0, -0.0]), dtype).astype(np.float64)
    np.testing.assert_array_equal(result, [np.inf, -np.inf, np.nan, 0, 0])
    assert np.signbit(result[4])
    assert not np.signbit(result[3])
    assert rounded(np.zeros((2, 0, 3)), dtype).shape == (2, 0, 3)


def test_float64_stays_as_it_is():
    """Nothing is rounded, and the caller gets an array of its own type."""
    values = np.array([1 / 3, 1e-300])
    np.testing.assert_array_equal(rounded(values, np.dtype(np.float64)), values)
