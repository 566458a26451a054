"""What sampling explains is what it does: on data of known distribution, and where samples or channels are not many."""

import math

import numpy as np
import pytest

from bnfold.calibration.drifted import excess
from bnfold.calibration.shift import compare
from bnfold.calibration.statistics.moments import Moments
from bnfold.calibration.statistics.sampling import explained, kernel, quantile, unseen


@pytest.mark.parametrize(
    ("above", "below", "value"), [(1, 15, 10.80), (3, 31, 5.20), (10, 63, 2.88), (40, 31, 2.49), (5, 11, 6.42)]
)
def test_quantiles(above, below, value):
    """Those of tables of the F distribution at 0.995, to two per cent."""
    assert quantile(above, below) == pytest.approx(value, rel=0.02)


@pytest.mark.parametrize("below", [0, 1])
def test_so_few_groups_explain_anything(below):
    """A group or two cannot tell."""
    assert quantile(3, below) == math.inf


def met(data):
    moments = Moments(data.shape[1])
    moments.add(data.shape[2], data.mean(2), data.var(2), samples=len(data))
    return moments.statistics()


def apart(found):
    """How far what was found of standard normal values is from 0 and 1, as scores are."""
    return float(np.mean(found.mean**2 / found.var + (found.var - 1) ** 2 / (2 * found.var**2)))


@pytest.mark.parametrize("samples", [8, 20, 100])
@pytest.mark.parametrize("correlated", [False, True])
def test_sampling_stays_under_it(samples, correlated):
    """In about one of 200 cases it is exceeded, with channels that are independent, and with ones that go together."""
    rng, cases, over, floors = np.random.default_rng(samples), 400, 0, []
    for _ in range(cases):
        data = rng.normal(size=(samples, 1 if correlated else 12, 5))
        found = met(np.repeat(data, 12, 1) if correlated else data)
        floors.append(np.trace(kernel(found, found.var)) / apart(found))
        over += apart(found) > explained([kernel(found, found.var)])
    assert over <= 12
    assert 0.7 < np.median(floors) < 3


def test_the_trace_is_the_floor():
    """The mean square of the standard errors."""
    found = met(np.random.default_rng(0).normal(size=(50, 3, 4)))
    floor = found.mean_error**2 / found.var + found.var_error**2 / (2 * found.var**2)
    assert np.trace(kernel(found, found.var)) == pytest.approx(floor.mean())


def test_channels_that_go_together_explain_more():
    """The same floor, but no mean over channels that makes it sharper."""
    data = np.random.default_rng(0).normal(size=(50, 12, 4))
    alone, together = (met(values) for values in (data, np.repeat(data[:, :1], 12, 1)))
    ratios = [explained([k]) / np.trace(k) for k in (kernel(found, found.var) for found in (alone, together))]
    assert ratios[0] < 0.6 * ratios[1]


def test_layers_of_other_samples():
    """Where groups are not the same, nothing is taken for independent."""
    rng = np.random.default_rng(0)
    found = [met(rng.normal(size=(samples, 3, 4))) for samples in (20, 30)]
    kernels = [kernel(each, each.var) for each in found]
    floor = np.mean([np.trace(k) for k in kernels])
    assert explained(kernels) == pytest.approx(floor * quantile(1, 19))


def test_one_direction():
    """Where all channels of all layers go together, there is one, and what is known of it comes from the groups."""
    direction = np.arange(1.0, 12)
    assert explained([np.outer(direction, direction)] * 3) == pytest.approx(direction @ direction * quantile(1, 10))


def test_a_single_sample():
    """Nothing is known of errors, so that anything may be explained."""
    assert explained([kernel(met(np.zeros((1, 2, 3)) + np.arange(3.0)), np.ones(2))]) == math.inf


def test_values_that_never_vary():
    """No error, nothing to explain."""
    still = met(np.ones((20, 2, 3)))
    assert explained([kernel(still, np.ones(2))]) < 1e-30
    assert explained([np.zeros((20, 20))]) == 0


def rare(samples, seed, *, factor=1.0):
    """Sixteen channels, of which one is excited by one sample of thirty; what it should hold, and what it meets."""
    rng = np.random.default_rng(seed)
    data = rng.normal(size=(samples, 16, 5)) * 0.1
    data[:, 1:] *= 10
    data[:, 0] += 5.0 * (rng.uniform(size=(samples, 1)) < 1 / 30)
    mean, var = np.zeros(16), np.ones(16)
    mean[0], var[0] = 5 / 30, 0.01 + 25 * (1 / 30) * (29 / 30)
    return compare("bn", mean, var, met(data * factor), 0.0)


def test_what_was_not_drawn():
    """A channel that few samples excite is no drift where none of them is there; that it is off alike stays one."""
    seen = [rare(12, seed) for seed in range(200)]
    assert sum(layer.score > 10 * np.trace(layer.kernel) for layer in seen) > 100
    assert sum(excess([layer]) > 0.01 for layer in seen) <= 4
    assert all(excess([rare(200, seed, factor=0.3)]) > 1 for seed in range(10))


def test_of_many_samples_some_are_drawn():
    """What a channel still lacks then is drift."""
    still = np.where(np.arange(16) == 0, 0.001, 1.0)
    assert unseen(1 / still, np.zeros(16), still, 100) > 0
    assert unseen(1 / still, np.zeros(16), still, 1000) == 0
    assert unseen(1 / still[:3], np.zeros(3), still[:3], 100) == 0  # one of three is not few


@pytest.mark.parametrize(("samples", "is_missed"), [(50, True), (51, False)])
def test_how_rare_they_are(samples, is_missed):
    """Of a tenth of all samples none is among 50 in one case of 194, and among 51 in one of 215."""
    share, step, still = 0.1, 2.0, 0.25  # the others have this variance, and so has the tenth around its mean
    var = still + share * (1 - share) * step**2
    shift = np.full(4, share * step / np.sqrt(var))
    divergence = np.array([1.0, 0.5, 0.5, 0.5])
    assert unseen(divergence, shift, np.full(4, still / var), samples) == (0.25 if is_missed else 0)
