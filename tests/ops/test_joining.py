"""Concat and Split: what belongs to a part, and what to the whole."""

import numpy as np
import pytest
from ops.helpers import an_affine, assert_lifts, assert_meets, assert_sinks, lift, meet, one_op, sink, uniform

from bnfold.affine import Affine
from bnfold.reasons import Reason, Refused

PARTS = {"x": ["N", 2, 3, 4], "y": ["N", 3, 3, 4], "z": ["N", 1, 3, 4]}  # 6 channels


def concat(axis: int = 1, opset: int = 21, **inputs: object):
    inputs = inputs or PARTS
    at = f"<axis = {axis}>" if opset >= 4 or axis != 1 else ""
    return one_op(f"out = Concat {at} ({', '.join(inputs)})", inputs, opset)


SPLIT_INTO = [2, 3, 1]


def split(axis: int = 1, shape: tuple = ("N", 6, 3, 4)):
    return one_op(f"a, b, c = Split <axis = {axis}> (x, sizes)", {"x": shape}, sizes=np.array(SPLIT_INTO))


# --- Concat --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("axis", [1, -3])
@pytest.mark.parametrize(
    "affine",
    [
        pytest.param(an_affine(1, 6, 1, 1), id="channels"),
        pytest.param(an_affine(1, 6, 1, 4), id="channels-and-columns"),
        pytest.param(Affine(np.full((1, 1, 1, 1), 2.0), an_affine(1, 6, 1, 1).shift), id="one-scale-many-shifts"),
        pytest.param(an_affine(1, 1, 1, 4), id="columns"),
        pytest.param(uniform(4, 2, 3), id="uniform"),
    ],
)
def test_concat_lifts(axis, affine):
    """Every input gets its stretch; one that does not vary along the axis goes to every input whole."""
    assert_lifts(concat(axis), affine)


def test_concat_before_opset_4_joins_channels():
    """The axis was optional then."""
    affine = an_affine(1, 6, 1, 1)
    (step,) = lift(concat(opset=1), affine)
    assert [part.shape[1] for part in step.to.values()] == [2, 3, 1]


def test_concat_lifts_nothing_to_an_input_whose_stretch_is_the_identity():
    """The walk has nothing to do there."""
    affine = an_affine(1, 6, 1, 1)
    affine.scale[:, 2:5], affine.shift[:, 2:5] = 1, 0
    (step,) = lift(concat(), affine)
    assert [part.is_identity for part in step.to.values()] == [False, True, False]


def test_concat_lifts_over_unknown_sizes_what_does_not_vary():
    """Sizes are asked for only where they matter."""
    parts = {"x": ["N", "C", 4], "y": ["N", "D", 4]}
    assert_lifts(concat(1, **parts), an_affine(1, 1, 4), C=2, D=3)


@pytest.mark.parametrize(
    ("parts", "reason"),
    [
        pytest.param({"x": ["N", 2, 3, 4], "y": ["N", "C", 3, 4]}, Reason.SHAPE_UNKNOWN, id="size-unknown"),
        pytest.param({"x": ["N", 2, 3, 4], "y": None}, Reason.SHAPE_UNKNOWN, id="rank-unknown"),
        pytest.param({"x": ["N", 2, 3, 4], "y": ["N", 3, 3, 4]}, Reason.WRONG_SIZE, id="other-size"),
    ],
)
def test_concat_lifts_refused(parts, reason):
    """Each case breaks one precondition of `test_concat_lifts`."""
    with pytest.raises(Refused) as refused:
        lift(concat(**parts), an_affine(1, 6, 1, 1))
    assert refused.value.reason is reason


@pytest.mark.parametrize("index", [0, 1, 2])
@pytest.mark.parametrize("axis", [1, -3])
@pytest.mark.parametrize("varies", [True, False])
def test_concat_sinks(index, axis, varies):
    """The other inputs get the identity."""
    size = list(PARTS.values())[index][1]
    affine = an_affine(1, size, 1, 1) if varies else uniform(4, 2, 3)
    assert_sinks(concat(axis), affine, index)


def test_concat_sinks_a_number_along_another_axis():
    """One number for a whole input varies along the joined axis behind the Concat."""
    assert_sinks(concat(2, x=["N", 4, 2], y=["N", 4, 3]), uniform(3, 2, 1))


@pytest.mark.parametrize("affine", [an_affine(1, 4, 1), uniform(3, 2, 1)])
def test_concat_sinks_beside_constants(affine):
    """They become A⁻¹ of what they are: a class token in front of other tokens."""
    token = np.random.default_rng(1).normal(size=(1, 4, 2))
    model = one_op("out = Concat <axis = 2> (token, x)", {"x": [1, 4, "L"]}, token=token)
    assert_sinks(model, affine, 1)
    (step,) = sink(model, affine, 1)
    assert step.to[0] is affine


@pytest.mark.parametrize(
    ("parts", "affine", "reason"),
    [
        pytest.param({"x": ["N", 2, 4], "y": ["N", 2, 5]}, an_affine(1, 2, 1), Reason.WRONG_AXIS, id="across"),
        pytest.param({"x": ["N", 2, 4], "y": ["N", 2, "W"]}, an_affine(1, 1, 4), Reason.SHAPE_UNKNOWN, id="unknown"),
        pytest.param({"x": ["N", 2, 4], "y": ["N", 2, 5]}, an_affine(1, 1, 3), Reason.WRONG_SIZE, id="other-size"),
    ],
)
def test_concat_sinks_refused(parts, affine, reason):
    """Each case breaks one precondition of `test_concat_sinks`."""
    with pytest.raises(Refused) as refused:
        sink(concat(2, **parts), affine)
    assert refused.value.reason is reason


def test_a_scale_of_zero_has_no_inverse():
    """So a constant beside it cannot adapt, and an affine across the Concat is refused."""
    affine = an_affine(1, 4, 1)
    affine.scale[0, 2] = 0
    model = one_op("out = Concat <axis = 2> (token, x)", {"x": [1, 4, 3]}, token=np.ones((1, 4, 2)))
    with pytest.raises(Refused) as refused:
        sink(model, affine, 1)
    assert refused.value.reason is Reason.WRONG_AXIS


def test_concat_meets():
    """Each input has its own affine, the third none: together they are one of all channels."""
    assert_meets(concat(), {0: an_affine(1, 2, 1, 1), 1: an_affine(1, 3, 1, 1)})
    assert_meets(concat(), {0: uniform(4, 2, 3), 2: uniform(4, 2, 3)})


@pytest.mark.parametrize("affine", [an_affine(1, 4, 1), uniform(3, 2, 1)])
def test_concat_meets_the_same_affine(affine):
    """Where every input has it, so has the whole, and no size along the axis needs to be known."""
    model = concat(2, x=["N", 4, "L"], y=["N", 4, "M"])
    assert_meets(model, {0: affine, 1: affine}, L=2, M=3)
    beside_a_token = one_op(
        "out = Concat <axis = 2> (x, t, y)", {"x": ["N", 4, 2], "y": ["N", 4, 3]}, t=np.ones((2, 4, 1))
    )
    assert_meets(beside_a_token, {0: affine, 2: affine})


@pytest.mark.parametrize(
    ("parts", "affines"),
    [
        pytest.param({}, {0: an_affine(1, 4, 1), 1: uniform(3, 3)}, id="another-scale"),
        pytest.param({}, {0: an_affine(1, 4, 1), 1: an_affine(1, 4, 1, shift=False)}, id="another-shift"),
        pytest.param({"z": ["N", 4, 1]}, {0: an_affine(1, 4, 1), 1: an_affine(1, 4, 1)}, id="not-on-all"),
    ],
)
def test_concat_meets_refused(parts, affines):
    """Each case breaks one precondition of `test_concat_meets_the_same_affine`."""
    with pytest.raises(Refused) as refused:
        meet(concat(2, x=["N", 4, 2], y=["N", 4, 3], **parts), affines)
    assert refused.value.reason is Reason.WRONG_AXIS


# --- Split ---------------------------------------------------------------------------------------------------

X = {"x": ["N", 6, 4]}

SPLITS = [
    pytest.param(one_op("a, b, c = Split <axis = 1> (x, s)", X, 13, s=np.array(SPLIT_INTO)), SPLIT_INTO, id="input"),
    pytest.param(
        one_op("a, b, c = Split <axis = -2> (x, s)", X, 18, s=np.array(SPLIT_INTO)), SPLIT_INTO, id="from-end"
    ),
    pytest.param(one_op("a, b, c = Split <axis = 1> (x)", X, 13), [2, 2, 2], id="equal"),
    pytest.param(one_op("a, b, c = Split <axis = 1, num_outputs = 3> (x)", X, 18), [2, 2, 2], id="number"),
    pytest.param(one_op("a, b, c = Split <axis = 1, split = [2, 3, 1]> (x)", X, 11), SPLIT_INTO, id="attribute"),
    pytest.param(one_op("a, b, c = Split <axis = 1, split = [2, 3, 1]> (x)", X, 2), SPLIT_INTO, id="opset-2"),
    pytest.param(
        one_op("a, b, c, d = Split <axis = 1, num_outputs = 4> (x)", {"x": ["N", 7, 4]}), [2, 2, 2, 1], id="uneven"
    ),
]


@pytest.mark.parametrize(("model", "sizes"), SPLITS)
def test_split_lifts(model, sizes):
    """From one output: the others keep what they mean."""
    for output, size in enumerate(sizes):
        assert_lifts(model, an_affine(1, size, 1), output)
        assert_lifts(model, uniform(3, 2, 1), output)


@pytest.mark.parametrize(("model", "sizes"), SPLITS)
def test_split_sinks(model, sizes):
    """Every output gets its stretch."""
    assert_sinks(model, an_affine(1, sum(sizes), 1))
    assert_sinks(model, an_affine(1, sum(sizes), 4))


def test_split_sinks_what_does_not_vary():
    """Every output gets all of it, and no size needs to be known."""
    model = one_op("a, b = Split <axis = 1> (x)", {"x": ["N", "C", 4]}, 13)
    assert_sinks(model, an_affine(1, 1, 4), C=6)


def test_split_sinks_past_outputs_that_nobody_reads():
    """There is nothing to absorb there."""
    model = split()
    del model.graph.output[1:]
    (step,) = sink(model, an_affine(1, 6, 1, 1))
    assert list(step.to) == [0]


@pytest.mark.parametrize(
    ("model", "affine", "reason"),
    [
        pytest.param(split(2, ("N", 4, 6)), an_affine(1, 4, 1), Reason.WRONG_AXIS, id="across"),
        pytest.param(split(), an_affine(1, 3, 1, 1), Reason.WRONG_SIZE, id="other-size"),
        pytest.param(
            one_op("a, b = Split <axis = 1> (x)", {"x": ["N", "C"]}, 13),
            an_affine(1, 2),
            Reason.SHAPE_UNKNOWN,
            id="size",
        ),
        pytest.param(
            one_op("a, b = Split <axis = 1, num_outputs = 2> (x)", {"x": None}),
            an_affine(1, 2),
            Reason.SHAPE_UNKNOWN,
            id="rank",
        ),
        pytest.param(
            one_op("a, b = Split <axis = 1> (x, x)", {"x": ["N", 4]}),
            an_affine(1, 2),
            Reason.NOT_CONSTANT,
            id="computed",
        ),
        pytest.param(
            one_op("a, b = Split <axis = 1> (x, s)", {"x": ["N", 4]}, s=np.array([4])),
            an_affine(1, 4),
            Reason.MALFORMED,
            id="too-few",
        ),
    ],
)
def test_split_lifts_refused(model, affine, reason):
    """Each case breaks one precondition of `test_split_lifts`."""
    with pytest.raises(Refused) as refused:
        lift(model, affine)
    assert refused.value.reason is reason


def test_split_sinks_refused():
    """The sizes are data as little as the axis is."""
    with pytest.raises(Refused) as refused:
        sink(split(), an_affine(3), 1)
    assert refused.value.reason is Reason.NO_RULE
