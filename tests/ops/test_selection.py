"""Slice and Gather: picked from going down, put back going up."""

import numpy as np
import pytest
from ops.helpers import an_affine, assert_lifts, assert_sinks, lift, one_op, sink, uniform

from bnfold.reasons import Reason, Refused

SHAPE = ["N", 6, 5]
CHANNELS = an_affine(1, 6, 1)


def slicing(starts, ends, axes=None, steps=None, shape=SHAPE, opset=13):
    """A Slice; lists become attributes before opset 10."""
    given = {"starts": starts, "ends": ends, "axes": axes, "steps": steps}
    if opset < 10:
        attributes = ", ".join(f"{name} = {numbers}" for name, numbers in given.items() if numbers is not None)
        return one_op(f"out = Slice <{attributes}> (x)", {"x": shape}, opset)
    constants = {name: np.array(numbers) for name, numbers in given.items() if numbers is not None}
    names = [name if name in constants else '""' for name in given]
    while names[-1] == '""':
        names.pop()
    return one_op(f"out = Slice (x, {', '.join(names)})", {"x": shape}, opset, **constants)


# --- Slice ---------------------------------------------------------------------------------------------------

FAR = 2**63 - 1

SLICES = [
    pytest.param(slicing([1], [4], [1]), 3, id="plain"),
    pytest.param(slicing([1], [4], [1], opset=1), 3, id="attributes"),
    pytest.param(slicing([0, 1], [1, FAR], opset=1), 5, id="attributes-no-axes"),
    pytest.param(slicing([0, 1], [1, 3]), 2, id="no-axes"),
    pytest.param(slicing([-2], [FAR], [-2]), 2, id="from-the-end"),
    pytest.param(slicing([0], [FAR], [1], [2]), 3, id="every-other"),
    pytest.param(slicing([5], [-FAR], [1], [-1]), 6, id="reversed"),
    pytest.param(slicing([-1], [1], [1], [-2]), 2, id="reversed-every-other"),
    pytest.param(slicing([1, 2], [4, 100], [2, 1], [1, 3]), 2, id="other-axis-too"),
    pytest.param(slicing([2], [3], [1]), 1, id="one-channel"),
]


@pytest.mark.parametrize(("model", "size"), SLICES)
def test_slice(model, size):
    """A slice of the channels has a slice of the affine, and the rest of the channels has the identity."""
    assert_sinks(model, CHANNELS)
    assert_lifts(model, an_affine(1, size, 1))
    assert_sinks(model, uniform(3, 2, 1))
    assert_lifts(model, uniform(3, 2, 1))


def test_slice_of_another_axis():
    """It passes as it is, whatever the borders and sizes are."""
    computed = one_op("out = Slice (x, s, e, axes)", {"x": ["N", 6, "W"], "s": [1], "e": [1]}, axes=np.array([2]))
    for model in (slicing([1], [4], [2], shape=["N", 6, "W"]), computed):
        assert sink(model, CHANNELS)[0].to == lift(model, CHANNELS)[0].to == {0: CHANNELS}


def test_slice_by_unknown_axes():
    """One number for all passes anything."""
    model = one_op("out = Slice (x, s, s, a)", {"x": SHAPE, "s": ["K"], "a": ["K"]})
    assert sink(model, uniform(3))
    with pytest.raises(Refused) as refused:
        sink(model, CHANNELS)
    assert refused.value.reason is Reason.NOT_CONSTANT


@pytest.mark.parametrize(
    ("model", "reason"),
    [
        pytest.param(slicing([1], [4], [1], shape=["N", "C", 5]), Reason.SHAPE_UNKNOWN, id="size-unknown"),
        pytest.param(slicing([1], [5], [1]), Reason.WRONG_SIZE, id="other-size"),
        pytest.param(slicing([1], [4], [1], [0]), Reason.MALFORMED, id="step-0"),
        pytest.param(slicing([1, 1], [4, 4], [1, -2]), Reason.MALFORMED, id="axis-twice"),
        pytest.param(slicing([1], [], [1]), Reason.MALFORMED, id="border-missing"),
        pytest.param(
            one_op("out = Slice (x, s, e, a)", {"x": SHAPE, "s": [1]}, e=np.array([4]), a=np.array([1])),
            Reason.NOT_CONSTANT,
            id="border-computed",
        ),
    ],
)
def test_slice_refused(model, reason):
    """Each case breaks one precondition of `test_slice[plain]`."""
    with pytest.raises(Refused) as refused:
        lift(model, an_affine(1, 3, 1))
    assert refused.value.reason is reason


# --- Gather --------------------------------------------------------------------------------------------------


def gathering(indices, axis=1, shape=SHAPE):
    return one_op(f"out = Gather <axis = {axis}> (x, i)", {"x": shape}, i=np.array(indices))


@pytest.mark.parametrize("axis", [1, -2])
@pytest.mark.parametrize(
    ("indices", "shape"),
    [
        pytest.param([2, 0, 5], (1, 3, 1), id="some"),
        pytest.param([-1, 1], (1, 2, 1), id="negative"),
        pytest.param([[3, 1, 0], [2, 4, 5]], (1, 2, 3, 1), id="matrix"),
        pytest.param(4, (1, 1), id="scalar"),
        pytest.param([5, 4, 3, 2, 1, 0], (1, 6, 1), id="reversed"),
    ],
)
def test_gather(indices, shape, axis):
    """An affine that varies along the axis is gathered going down, and scattered into the identity going up."""
    model = gathering(indices, axis)
    assert_sinks(model, CHANNELS)
    assert_lifts(model, an_affine(*shape))
    assert_lifts(model, an_affine(*shape[:-1], 5))
    assert_sinks(model, uniform(3, 2, 1))
    assert_lifts(model, uniform(len(shape), 2, 1))


def test_gather_with_an_index_twice():
    """Down it is repeated; up it has to mean the same both times."""
    model = gathering([1, 3, 1])
    assert_sinks(model, CHANNELS)
    same = an_affine(1, 3, 1)
    same.scale[:, 2], same.shift[:, 2] = same.scale[:, 0], same.shift[:, 0]
    assert_lifts(model, same)
    with pytest.raises(Refused) as refused:
        lift(model, an_affine(1, 3, 1))
    assert refused.value.reason is Reason.UNSUPPORTED


@pytest.mark.parametrize("indices", [["K"], [], ["K", 2]])
def test_gather_by_computed_indices(indices):
    """Along other axes the affine keeps its place, whatever is gathered."""
    rank = 2 + len(indices)
    model = one_op("out = Gather <axis = 1> (x, i)", {"x": ["N", "C", 4], "i": indices})
    (step,) = lift(model, an_affine(*[1] * (rank - 1), 4))
    assert step.to[0].shape == (1, 1, 4)
    (step,) = sink(model, an_affine(1, 1, 4))
    assert step.to[0].shape == (*[1] * (rank - 1), 4)


def test_gather_lifts_into_a_table():
    """An embedding: the affine of what was looked up is one of every row."""
    model = one_op("out = Gather (table, i)", {"i": [3]}, table=np.random.default_rng(1).normal(size=(5, 4)))
    model.graph.input[0].type.tensor_type.elem_type = 7
    affine = an_affine(1, 4)
    (step,) = lift(model, affine)
    assert step.to[0].shape == (1, 4)


@pytest.mark.parametrize(
    ("model", "reason"),
    [
        pytest.param(gathering([2, 0, 5], shape=["N", "C", 5]), Reason.SHAPE_UNKNOWN, id="size-unknown"),
        pytest.param(gathering([2, 0, 6]), Reason.MALFORMED, id="index-outside"),
        pytest.param(gathering([2, 0]), Reason.WRONG_SIZE, id="other-size"),
        pytest.param(gathering([2, 0, 5], axis=3), Reason.MALFORMED, id="axis-outside"),
        pytest.param(gathering([[2, 0, 5]]), Reason.UNSUPPORTED, id="other-rank"),
        pytest.param(
            one_op("out = Gather <axis = 1> (x, i)", {"x": SHAPE, "i": [3]}), Reason.NOT_CONSTANT, id="indices-computed"
        ),
    ],
)
def test_gather_lifts_refused(model, reason):
    """Each case breaks one precondition of `test_gather[some]`."""
    with pytest.raises(Refused) as refused:
        lift(model, an_affine(1, 3, 1))
    assert refused.value.reason is reason


@pytest.mark.parametrize(
    ("model", "index", "reason"),
    [
        pytest.param(gathering([2, 0, 6]), 0, Reason.MALFORMED, id="index-outside"),
        pytest.param(gathering([2, 0, 5]), 1, Reason.NO_RULE, id="on-the-indices"),
        pytest.param(
            one_op("out = Gather <axis = 1> (x, i)", {"x": SHAPE, "i": [3]}), 0, Reason.NOT_CONSTANT, id="computed"
        ),
    ],
)
def test_gather_sinks_refused(model, index, reason):
    """Each case breaks one precondition of `test_gather[some]`."""
    with pytest.raises(Refused) as refused:
        sink(model, CHANNELS, index)
    assert refused.value.reason is reason
