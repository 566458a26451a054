"""Parts merge to what the whole has, and the standard errors are those of samples."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bnfold.calibration.statistics.moments import GROUPS, Moments


def merged(x, parts, shift=0.0):
    """Moments of `[samples, C, pixels]`, added in so many parts."""
    moments = Moments(x.shape[1])
    for part in np.array_split(x + shift, parts):
        moments.add(x.shape[2], part.mean(2), part.var(2))
    return moments.statistics()


@given(samples=st.integers(2, 300), parts=st.integers(1, 40), shift=st.sampled_from([0.0, 1e3, -1e6]))
@settings(deadline=None, derandomize=True, max_examples=40)
def test_merging_is_exact(samples, parts, shift):
    """However the samples are split, mean and variance are those of all values, even where the mean is large."""
    x = np.random.default_rng(samples).normal(size=(samples, 3, 5))
    found = merged(x, parts, shift)
    assert found.count == samples * 5
    np.testing.assert_allclose(found.mean, x.mean((0, 2)) + shift, rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(found.var, x.var((0, 2)), rtol=1e-9 * max(1, abs(shift)) ** 0.5)


@pytest.mark.parametrize("parts", [1, 7, 50])
def test_the_error_is_the_spread_between_samples(parts):
    """With a group for each sample: s / sqrt(n), of means and of squared distances, whatever the pixels do."""
    x = np.random.default_rng(0).normal(size=(50, 4, 1)) + np.random.default_rng(1).normal(size=(50, 4, 9)) / 10
    found = merged(x, parts)
    means = x.mean(2)
    squares = ((x - x.mean((0, 2), keepdims=True)) ** 2).mean(2)
    np.testing.assert_allclose(found.mean_error, means.std(0, ddof=1) / np.sqrt(50))
    np.testing.assert_allclose(found.var_error, squares.std(0, ddof=1) / np.sqrt(50))


def test_the_error_covers_the_truth():
    """In 95 of 100 draws the true mean lies within two standard errors."""
    rng = np.random.default_rng(0)
    inside = []
    for _ in range(200):
        x = rng.normal(size=(256, 8, 1)) + rng.normal(size=(256, 8, 16))
        found = merged(x, 4)
        inside.append(np.abs(found.mean) < 2 * found.mean_error)
    assert 0.92 < np.mean(inside) < 0.98


def test_tokens_of_a_sample_are_one_sample():
    """Rows that come from the same sample are joined before their spread counts."""
    x = np.random.default_rng(0).normal(size=(20, 8, 3)) + np.random.default_rng(1).normal(size=(20, 1, 3))
    rows = Moments(3)
    rows.add(1, x.reshape(-1, 3), np.zeros((160, 3)), samples=20)
    whole = Moments(3)
    whole.add(8, x.mean(1), x.var(1))
    for name in ("mean", "var", "mean_error", "var_error"):
        np.testing.assert_allclose(getattr(rows.statistics(), name), getattr(whole.statistics(), name))


def test_nothing_is_nothing():
    """Parts without values change nothing, and statistics of nothing are NaN."""
    moments = Moments(2)
    moments.add(0, np.full((3, 2), np.nan), np.full((3, 2), np.nan))
    assert moments.statistics().count == 0
    assert np.isnan(moments.statistics().mean).all()
    moments.add(4, np.ones((1, 2)), np.ones((1, 2)))
    assert moments.statistics().count == 4
    assert np.isnan(moments.statistics().mean_error).all()


def test_groups_are_dealt_in_turn():
    """More samples than groups: the spread is between groups, and means the same."""
    x = np.random.default_rng(0).normal(size=(GROUPS * 20, 1, 1))
    np.testing.assert_allclose(merged(x, 3).mean_error, 1 / np.sqrt(GROUPS * 20), rtol=0.3)
