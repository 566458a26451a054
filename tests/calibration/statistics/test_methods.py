"""Formulas of the paper, and of the frameworks."""

import numpy as np
import pytest

from bnfold.calibration.error import CalibrationError
from bnfold.calibration.statistics.methods import Ema, Paper, Pooled
from bnfold.calibration.statistics.moments import Moments


def estimated(estimator, batches):
    """Mean and variance by an estimator after batches of `[rows, C]`."""
    together = Moments(4)
    for batch in batches:
        together.add(len(batch), batch.mean(0)[None], batch.var(0)[None])
        estimator.add(len(batch), batch.mean(0), batch.var(0))
    return estimator.mean_and_var(together.statistics())


@pytest.fixture
def batches():
    rng = np.random.default_rng(0)
    return [rng.normal(3, 2, (8, 4)) for _ in range(6)]


def test_algorithm_2(batches):
    """E[x] = E_B[mu_B], Var[x] = m/(m-1) E_B[var_B]."""
    mean, var = estimated(Paper(4), batches)
    np.testing.assert_allclose(mean, np.mean([b.mean(0) for b in batches], axis=0))
    np.testing.assert_allclose(var, 8 / 7 * np.mean([b.var(0) for b in batches], axis=0))


def test_pooled_is_the_population(batches):
    """E_B[var_B] + Var_B[mu_B] is the variance of all values."""
    mean, var = estimated(Pooled(4), batches)
    np.testing.assert_allclose(mean, np.concatenate(batches).mean(0))
    np.testing.assert_allclose(var, np.concatenate(batches).var(0))


@pytest.mark.parametrize("estimator", [Paper, Pooled])
def test_a_short_last_batch_counts_by_its_size(estimator, batches):
    """The mean is the mean of all rows, not of batches."""
    batches = [*batches, batches[0][:3] + 10]
    mean, _ = estimated(estimator(4), batches)
    np.testing.assert_allclose(mean, np.concatenate(batches).mean(0))


def test_a_last_batch_of_one_row_does_no_harm(batches):
    """It has no variance, and takes no part in that of Algorithm 2."""
    _, var = estimated(Paper(4), [*batches, batches[0][:1]])
    _, without = estimated(Paper(4), batches)
    np.testing.assert_allclose(var, without * (6 * 7) / (6 * 7))
    assert np.isfinite(var).all()


def test_one_value_per_channel_is_refused(batches):
    """m/(m-1) is not defined for m = 1, nor is the variance of a batch in a moving average; and a batch of one value
    is beta behind its BatchNormalization.
    """
    for estimator in (Paper(4), Pooled(4)):
        with pytest.raises(CalibrationError, match="batch size of 2 or more"):
            estimated(estimator, [b[:1] for b in batches])
    with pytest.raises(CalibrationError, match="batch size of 2 or more"):
        estimated(Ema(0.9, np.zeros(4), np.ones(4)), [batches[0][:1]])


def test_onnx_and_keras_momentum(batches):
    """Running = running * momentum + batch * (1 - momentum), with the biased variance."""
    mean, var = estimated(Ema(0.99, np.zeros(4), np.ones(4)), batches)
    expected_mean, expected_var = np.zeros(4), np.ones(4)
    for batch in batches:
        expected_mean = expected_mean * 0.99 + batch.mean(0) * 0.01
        expected_var = expected_var * 0.99 + batch.var(0) * 0.01
    np.testing.assert_allclose(mean, expected_mean)
    np.testing.assert_allclose(var, expected_var)


def test_pytorch_momentum(batches):
    """PyTorch's momentum 0.1 is 0.9 here, and its variance is unbiased."""
    _, var = estimated(Ema(0.9, np.zeros(4), np.ones(4), unbiased=True), batches[:1])
    np.testing.assert_allclose(var, 0.9 + 0.1 * batches[0].var(0, ddof=1))
