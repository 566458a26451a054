"""Affine: two arrays, and what can be done with them."""

import numpy as np
import pytest
from helpers import affines, many
from hypothesis import given
from hypothesis import strategies as st

from bnfold.affine import Affine

SHAPE = (2, 4, 3)
values = st.integers(0, 2**32 - 1).map(lambda seed: np.random.default_rng(seed).normal(size=SHAPE))


@many
@given(affine=affines(SHAPE), x=values)
def test_it_is_scale_times_x_plus_shift(affine, x):
    """Calling an affine broadcasts both arrays against the value."""
    np.testing.assert_array_equal(affine(x), affine.scale * x + affine.shift)


@many
@given(inner=affines(SHAPE), outer=affines(SHAPE), x=values)
def test_then_is_composition(inner, outer, x):
    """`inner.then(outer)` computes `outer(inner(x))`."""
    np.testing.assert_allclose(inner.then(outer)(x), outer(inner(x)), rtol=1e-12, atol=1e-12)


@many
@given(affine=affines(SHAPE).filter(lambda affine: affine.scale.all()), x=values)
def test_inverse_undoes_it(affine, x):
    """The inverse after the affine, and the affine after the inverse, give the value back."""
    np.testing.assert_allclose(affine.inverse()(affine(x)), x, rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(affine(affine.inverse()(x)), x, rtol=1e-9, atol=1e-9)


@many
@given(affine=affines(SHAPE), x=values)
def test_a_split_is_scale_then_shift(affine, x):
    """The scale alone, then the shift alone, is the affine."""
    np.testing.assert_array_equal(affine.only_scale().then(affine.only_shift())(x), affine(x))


@many
@given(affine=affines(SHAPE), x=values, perm=st.permutations(range(3)))
def test_carried_follows_the_value(affine, x, perm):
    """Moving the axes of value and affine in the same way changes nothing."""
    moved = affine.carried(lambda array: array.transpose(perm))
    np.testing.assert_array_equal(moved(x.transpose(perm)), affine(x).transpose(perm))


def test_along_one_axis():
    """Two vectors become arrays of the value's rank."""
    affine = Affine.along(1, 4, np.array([1.0, 2.0, 3.0]), np.array([0.0, 0.0, 1.0]))
    assert affine.scale.shape == affine.shift.shape == affine.shape == (1, 3, 1, 1)
    assert affine.axes == {1}
    assert affine.rank == 4


def test_axes_are_those_on_which_either_array_varies():
    """Scale and shift may vary on different axes."""
    affine = Affine(np.array([[1.0], [2.0]]), np.array([[3.0, 4.0, 5.0]]))
    assert affine.shape == (2, 3)
    assert affine.axes == {0, 1}
    assert affine.only_scale().axes == {0}
    assert affine.only_shift().axes == {1}


def test_one_channel_varies_on_no_axis():
    """An axis of size one is none to vary on."""
    assert Affine.along(1, 3, np.array([2.0]), np.array([1.0])).axes == frozenset()


@pytest.mark.parametrize(
    ("scale", "shift", "has_scale", "has_shift"),
    [(1.0, 0.0, False, False), (2.0, 0.0, True, False), (1.0, 3.0, False, True), (0.0, -1.0, True, True)],
)
def test_what_it_has(scale, shift, has_scale, has_shift):
    """A scale of one and a shift of zero are none; with neither it is the identity."""
    affine = Affine(np.array([1.0, scale]), np.array([0.0, shift]))
    assert affine.has_scale is has_scale
    assert affine.has_shift is has_shift
    assert affine.is_identity is not (has_scale or has_shift)


def test_nan_is_something():
    """A NaN is neither one nor zero, so it is never taken for the identity."""
    assert Affine(np.array([np.nan]), np.array([0.0])).has_scale
    assert Affine(np.array([1.0]), np.array([np.nan])).has_shift


def test_agreement_is_that_of_the_maps():
    """One number for all agrees with the same number for each; another scale or shift does not."""
    each = Affine(np.full((1, 3, 1), 2.0), np.full((1, 3, 1), 5.0))
    assert each.agrees_with(Affine(np.full((1, 1, 1), 2.0), np.full((1, 1, 1), 5.0)))
    assert not each.agrees_with(Affine(each.scale, each.shift * [[[1], [1], [2]]]))
    assert not each.agrees_with(Affine(-each.scale, each.shift))


def test_ranks_must_agree():
    """Scale and shift of one value have its rank."""
    with pytest.raises(ValueError, match="rank"):
        Affine(np.ones((1, 2)), np.zeros(2))
