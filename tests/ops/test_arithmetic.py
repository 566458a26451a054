"""Sums, products and quotients of computed values: what one operand carries, the others have to agree to."""

import numpy as np
import onnx
import pytest
from ops.helpers import an_affine, assert_meets, assert_sinks, meet, one_op, sink, uniform

from bnfold.affine import Affine
from bnfold.reasons import Reason, Refused

X = {"x": ["N", 3, 4], "y": ["N", 3, 4]}
SCALE = an_affine(1, 3, 1, shift=False)


def of_two(op_type: str, **shapes: object):
    return one_op(f"out = {op_type} (x, y)", X | shapes)


def shifted(affine: Affine, by: float) -> Affine:
    return Affine(affine.scale, affine.shift + by)


@pytest.mark.parametrize("op_type", ["Add", "Sub"])
@pytest.mark.parametrize("index", [0, 1])
def test_a_sum_sinks_what_the_other_operand_is_divided_by(op_type, index):
    """The scale of one operand becomes that of the sum if the other one takes the inverse."""
    assert_sinks(of_two(op_type), an_affine(1, 3, 1), index)
    assert_sinks(of_two(op_type), uniform(3, 2, 1), index)


def test_half_precision_leaves_less_room():
    """An operand that is multiplied by 200 may leave the range of float16, where it was in before."""
    model = of_two("Add")
    scale = Affine(np.full((1, 3, 1), 1 / 200), np.zeros((1, 3, 1)))
    assert_sinks(model, scale, 0)
    for entry in model.graph.input:
        entry.type.tensor_type.elem_type = onnx.TensorProto.FLOAT16
    with pytest.raises(Refused) as refused:
        sink(model, scale, 0)
    assert refused.value.reason is Reason.SCALE_MEETS_SUM


def test_a_sum_of_three_divides_both_others():
    """None may be left out."""
    model = one_op("out = Sum (x, y, z)", {**X, "z": ["N", 3, 1]})
    assert_sinks(model, an_affine(1, 3, 1), 1)
    assert_meets(model, {0: an_affine(1, 3, 1), 2: shifted(an_affine(1, 3, 1), 2)})


def test_a_sum_asks_nothing_of_others_for_a_shift():
    """Only a scale has to be the same everywhere."""
    (step,) = sink(of_two("Add"), Affine(np.ones((1, 1, 1)), an_affine(1, 3, 1).shift))
    assert not step.beside


@pytest.mark.parametrize("op_type", ["Add", "Sub"])
def test_a_sum_meets_one_scale(op_type):
    """Shifts are added, or subtracted."""
    assert_meets(of_two(op_type), {0: an_affine(1, 3, 1), 1: shifted(an_affine(1, 3, 1), 2)})
    assert_meets(of_two(op_type, y=[3, 1]), {0: an_affine(1, 3, 1), 1: Affine(SCALE.scale[0], SCALE.shift[0])})
    assert_meets(of_two(op_type, y=[4]), {0: uniform(3, 2, 1), 1: uniform(1, 2, -4)})


@pytest.mark.parametrize("op_type", ["Mul", "Div"])
def test_a_product_meets_any_two_scales(op_type):
    """They are multiplied, or divided."""
    assert_meets(of_two(op_type), {0: SCALE, 1: an_affine(1, 1, 4, shift=False)})
    assert_meets(of_two(op_type, y=[4]), {0: SCALE, 1: uniform(1, 3)})


@pytest.mark.parametrize(
    ("shapes", "affine", "reason"),
    [
        pytest.param({}, Affine(SCALE.scale * [[[1], [0], [1]]], SCALE.shift), Reason.SCALE_MEETS_SUM, id="zero"),
        pytest.param({}, Affine(SCALE.scale / 5000, SCALE.shift), Reason.SCALE_MEETS_SUM, id="tiny"),
        pytest.param({}, Affine(SCALE.scale * 5000, SCALE.shift), Reason.SCALE_MEETS_SUM, id="huge"),
        pytest.param({"y": ["N", 1, 4]}, SCALE, Reason.EXPANDS, id="broadcast"),
        pytest.param({"y": ["N", "C", 4]}, SCALE, Reason.EXPANDS, id="perhaps-broadcast"),
        pytest.param({"y": None}, SCALE, Reason.SHAPE_UNKNOWN, id="rank-unknown"),
    ],
)
def test_a_sum_sinks_refused(shapes, affine, reason):
    """Each case breaks one precondition of `test_a_sum_sinks_what_the_other_operand_is_divided_by`."""
    with pytest.raises(Refused) as refused:
        sink(of_two("Add", **shapes), affine)
    assert refused.value.reason is reason


@pytest.mark.parametrize(
    ("op_type", "other", "reason"),
    [
        pytest.param("Add", uniform(3, 3), Reason.SCALE_MEETS_SUM, id="another-scale"),
        pytest.param("Mul", an_affine(1, 3, 1), Reason.SHIFT_NOT_ZERO, id="shift"),
        pytest.param("Div", Affine(SCALE.scale * 0, SCALE.shift), Reason.UNSUPPORTED, id="zero-divisor"),
    ],
)
def test_meets_refused(op_type, other, reason):
    """Each case breaks one precondition of `test_a_sum_meets_one_scale` or `test_a_product_meets_any_two_scales`."""
    with pytest.raises(Refused) as refused:
        meet(of_two(op_type), {0: SCALE, 1: other})
    assert refused.value.reason is reason


def test_a_constant_operand_meets_nothing():
    """The one computed operand cannot be met by another."""
    with pytest.raises(Refused) as refused:
        meet(one_op("out = Add (x, y)", {"x": X["x"]}, y=np.ones(4)), {0: SCALE, 1: SCALE})
    assert refused.value.reason is Reason.PATHS_MEET
