"""The error function in float64."""

import math

import numpy as np

from bnfold.verification.float64.gaussian import erf

DENSE = np.concatenate([np.linspace(-7, 7, 140_001), np.geomspace(1e-300, 1, 3001), -np.geomspace(1e-20, 1e3, 3001)])
SPECIAL = np.array([0.0, -0.0, np.inf, -np.inf, np.nan, 1e300])


def test_erf_is_that_of_math():
    """To less than two ulp of 1, everywhere."""
    assert np.abs(erf(DENSE) - np.array([math.erf(x) for x in DENSE])).max() <= 4e-16


def test_erf_keeps_what_is_tiny():
    """Near zero, erf(x) is 2 x / sqrt(pi) to an ulp of itself."""
    x = np.geomspace(1e-300, 1e-9, 1001)
    np.testing.assert_allclose(erf(x), [math.erf(entry) for entry in x], rtol=4e-16)


def test_erf_at_the_ends():
    """Infinities, zeros with their signs, and NaN."""
    np.testing.assert_array_equal(erf(SPECIAL), [math.erf(x) for x in SPECIAL])
    assert np.signbit(erf(SPECIAL[1:2])).all()
