"""Einsum: a scale may stand at any operand that has its label."""

import numpy as np
import pytest
from ops.helpers import (
    absorb_input,
    absorb_output,
    an_affine,
    assert_absorbs_input,
    assert_absorbs_output,
    assert_lifts,
    assert_sinks,
    lift,
    one_op,
    sink,
    uniform,
)

from bnfold.affine import Affine
from bnfold.ops import AddBehind
from bnfold.reasons import Reason, Refused

SIZES = {"b": "N", "c": 3, "d": 4, "e": 5, "h": 2}


def einsum(equation, *constant, sizes=SIZES, **replaced):
    """An Einsum of x, y, …; those that are named in `constant` are."""
    terms = equation.replace(" ", "").split("->")[0].split(",")
    names = "xyz"[: len(terms)]
    shapes = {name: [sizes.get(label) for label in term] for name, term in zip(names, terms, strict=True)} | replaced
    random = np.random.default_rng(0)
    fixed = {name: random.normal(size=shapes.pop(name)) for name in constant}
    return one_op(f'out = Einsum <equation = "{equation}"> ({", ".join(names)})', shapes, **fixed)


@pytest.mark.parametrize("shift", [True, False])
@pytest.mark.parametrize(
    ("model", "shape"),
    [
        pytest.param(einsum("bhc,cd->bhd", "y"), (1, 1, 4), id="right"),
        pytest.param(einsum("dc,bhc->bhd", "x"), (1, 1, 4), id="left"),
        pytest.param(einsum("bhc,hcd->bhd", "y"), (1, 2, 4), id="two-labels"),
        pytest.param(einsum("bhc,hcd->bdh", "y"), (1, 4, 2), id="in-another-order"),
        pytest.param(einsum("bhc,hcd->bhd", "y"), (1, 2, 1), id="label-of-both"),
        pytest.param(einsum(" bc , cd -> bd ", "y"), (1, 4), id="spaces"),
        pytest.param(einsum("bc,cd", "y"), (1, 4), id="no-arrow"),
        pytest.param(einsum("bd,cb", "y", sizes=SIZES | {"b": 6}), (3, 1), id="no-arrow-sorted"),
        pytest.param(einsum("bc,cd,de->be", "z"), (1, 5), id="three"),
        pytest.param(einsum("bc,cd->bd", "y"), (1, 1), id="uniform"),
    ],
)
def test_einsum_absorbs_output(model, shape, shift):
    """A constant operand is scaled along the label; the shift goes behind."""
    edits = absorb_output(model, an_affine(*shape, shift=shift))
    assert any(isinstance(edit, AddBehind) for edit in edits) == shift
    assert_absorbs_output(model, an_affine(*shape, shift=shift))


@pytest.mark.parametrize("shift", [True, False])
@pytest.mark.parametrize(
    ("model", "index", "shape"),
    [
        pytest.param(einsum("bhc,cd->bhd", "y"), 0, (1, 1, 3), id="summed"),
        pytest.param(einsum("dc,bhc->bhd", "x"), 1, (1, 1, 3), id="constant-on-the-left"),
        pytest.param(einsum("bhc,hcd->bhd", "y"), 0, (1, 2, 1), id="not-summed"),
        pytest.param(einsum("bhc,hcd->bhd", "y"), 0, (1, 2, 3), id="both"),
        pytest.param(einsum("bhc,cd->bd", "y"), 0, (1, 1, 3), id="another-label-summed"),
        pytest.param(einsum("bc,de->be", "y"), 0, (1, 1), id="nothing-shared"),
        pytest.param(einsum("bhc,cd->dhb", "y"), 0, (1, 1, 1), id="uniform"),
    ],
)
def test_einsum_absorbs_input(model, index, shape, shift):
    """The other operand is scaled along the label; what the shift sums to goes behind."""
    assert_absorbs_input(model, an_affine(*shape, shift=shift), index)


@pytest.mark.parametrize(
    ("model", "shape", "inputs"),
    [
        pytest.param(einsum("bhc,bhd->bcd"), (1, 3, 1), {0}, id="one-operand-has-it"),
        pytest.param(einsum("bhc,bhd->bcd"), (2, 1, 1), {0, 1}, id="both-have-it"),
        pytest.param(einsum("bhc,bhd->bcd"), (1, 1, 1), {0, 1}, id="uniform"),
        pytest.param(einsum("bhc,cd->dhb", "y"), (1, 2, 1), {0}, id="only-the-data"),
    ],
)
def test_einsum_lifts(model, shape, inputs):
    """A scale may go to each computed operand that has the label."""
    affine = an_affine(*shape, shift=False)
    assert_lifts(model, affine)
    assert {index for step in lift(model, affine) for index in step.to} == inputs


@pytest.mark.parametrize(("shape", "index"), [((1, 1, 3), 0), ((2, 1, 1), 0), ((1, 1, 1), 1), ((1, 1, 4), 1)])
def test_einsum_sinks(shape, index):
    """A scale along a label that is not summed is one of the result."""
    assert_sinks(einsum("bhc,bhd->bcd"), an_affine(*shape, shift=False), index)


SCALE = an_affine(1, 4, shift=False)


@pytest.mark.parametrize(
    ("model", "affine", "reason"),
    [
        pytest.param(einsum("bc,cd->bd"), SCALE, Reason.NOT_CONSTANT, id="nothing-constant"),
        pytest.param(einsum("bc,cd->bd", "y"), an_affine(2, 4), Reason.WRONG_AXIS, id="label-of-the-data"),
        pytest.param(einsum("bc,cd->bd", "y"), an_affine(1, 5), Reason.WRONG_SIZE, id="other-size"),
        pytest.param(einsum("bc,cd->bd", "y"), an_affine(4), Reason.UNSUPPORTED, id="other-rank"),
        pytest.param(
            one_op('out = Einsum <equation = "...c,cd->...d"> (x, w)', {"x": ["N", 3]}, w=np.ones((3, 4))),
            SCALE,
            Reason.UNSUPPORTED,
            id="ellipsis",
        ),
        pytest.param(
            one_op('out = Einsum <equation = "bc,cdd->bd"> (x, w)', {"x": ["N", 3]}, w=np.ones((3, 4, 4))),
            SCALE,
            Reason.UNSUPPORTED,
            id="diagonal",
        ),
        pytest.param(
            one_op('out = Einsum <equation = "bc,cd->bf"> (x, w)', {"x": ["N", 3]}, w=np.ones((3, 4))),
            SCALE,
            Reason.MALFORMED,
            id="label-from-nowhere",
        ),
        pytest.param(
            one_op('out = Einsum <equation = "bc,cd,de->be"> (x, w)', {"x": ["N", 3]}, w=np.ones((3, 4))),
            SCALE,
            Reason.MALFORMED,
            id="operand-missing",
        ),
    ],
)
def test_einsum_absorbs_output_refused(model, affine, reason):
    """Each case breaks one precondition of `test_einsum_absorbs_output`."""
    with pytest.raises(Refused) as refused:
        absorb_output(model, affine)
    assert refused.value.reason is reason


@pytest.mark.parametrize(
    ("model", "affine", "index", "reason"),
    [
        pytest.param(einsum("bc,cd->bd"), an_affine(1, 3), 0, Reason.NOT_CONSTANT, id="nothing-constant"),
        pytest.param(einsum("bc,cd->bd", "y"), an_affine(2, 1), 0, Reason.WRONG_AXIS, id="label-of-the-data"),
        pytest.param(einsum("bc,cd->bd", "y"), an_affine(1, 5), 0, Reason.WRONG_SIZE, id="other-size"),
        pytest.param(einsum("bc,cd,de->be", "y", "z"), an_affine(1, 3), 0, Reason.UNSUPPORTED, id="three-and-a-shift"),
        pytest.param(
            einsum("bhc,cd->bd", "y", sizes=SIZES | {"h": "H"}, y=[3, 4]),
            an_affine(1, 1, 3),
            0,
            Reason.SHAPE_UNKNOWN,
            id="count-unknown",
        ),
        pytest.param(
            einsum("bc,cd->bd", "y", y=[1, 4]), uniform(2, 2, 1), 0, Reason.WRONG_SIZE, id="the-constant-broadcasts"
        ),
    ],
)
def test_einsum_absorbs_input_refused(model, affine, index, reason):
    """Each case breaks one precondition of `test_einsum_absorbs_input`."""
    with pytest.raises(Refused) as refused:
        absorb_input(model, affine, index)
    assert refused.value.reason is reason


@pytest.mark.parametrize(
    ("ask", "affine", "reason"),
    [
        pytest.param(sink, an_affine(1, 2, 1, shift=False), Reason.WRONG_AXIS, id="summed"),
        pytest.param(sink, uniform(3, 2, 1), Reason.SHIFT_NOT_ZERO, id="shift-down"),
        pytest.param(lift, uniform(3, 2, 1), Reason.SHIFT_NOT_ZERO, id="shift-up"),
        pytest.param(lift, an_affine(1, 3, 4, shift=False), Reason.WRONG_AXIS, id="no-operand-has-both"),
        pytest.param(lift, Affine(np.ones((1, 3)), np.zeros((1, 1))), Reason.UNSUPPORTED, id="other-rank"),
    ],
)
def test_einsum_passes_refused(ask, affine, reason):
    """Each case breaks one precondition of `test_einsum_lifts` or `test_einsum_sinks`."""
    with pytest.raises(Refused) as refused:
        ask(einsum("bhc,bhd->bcd"), affine)
    assert refused.value.reason is reason
