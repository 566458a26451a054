"""Instance-, Group-, Layer- and RMSNormalization: what their parameters take in, and what their mean takes away."""

import numpy as np
import pytest
from helpers import assert_close
from onnx import numpy_helper
from ops.helpers import (
    absorb_input,
    absorb_output,
    an_affine,
    assert_absorbs_input,
    assert_absorbs_output,
    assert_lifts,
    assert_sinks,
    carried_out,
    lift,
    one_op,
    only_op,
    run,
    sink,
    uniform,
)

from bnfold.affine import Affine
from bnfold.ops import RULES
from bnfold.reasons import Reason, Refused

IMAGE = {"x": ["N", 4, 3, 5]}
CHANNELS = an_affine(1, 4, 1, 1)


def norm(op_type, attributes="", bias=True, opset=21, inputs=None, parameter=(4,), **given):
    random = np.random.default_rng(3)
    constants = {"g": random.normal(size=parameter)} | ({"b": random.normal(size=parameter)} if bias else {})
    names = ", ".join(["x", *({"g": 0, "b": 0} if bias else {"g": 0})])
    return one_op(f"out = {op_type} <{attributes}> ({names})", inputs or IMAGE, opset, **constants | given)


INSTANCE = norm("InstanceNormalization", "epsilon = 0.25", opset=6)
GROUP = norm("GroupNormalization", "num_groups = 2, epsilon = 0.25, stash_type = 11")
GROUP_18 = norm("GroupNormalization", "num_groups = 2, epsilon = 0.25", opset=18, parameter=(2,))
LAST = {"x": ["N", 3, 5, 4]}
LAYER = norm("LayerNormalization", "epsilon = 0.25", inputs=LAST)
LAYER_2 = norm("LayerNormalization", "axis = 2, epsilon = 0.25", inputs=LAST, parameter=(5, 4))
RMS = norm("RMSNormalization", "epsilon = 0.25", bias=False, opset=23, inputs=LAST)

GROUPED = Affine(np.array([2.0, 2, -3, -3]).reshape(1, 4, 1, 1), np.array([1.0, 1, 0, 0]).reshape(1, 4, 1, 1))


@pytest.mark.parametrize(
    ("model", "affine"),
    [
        pytest.param(INSTANCE, CHANNELS, id="instance"),
        pytest.param(INSTANCE, uniform(4, 2, 1), id="instance-uniform"),
        pytest.param(GROUP, CHANNELS, id="group"),
        pytest.param(GROUP_18, GROUPED, id="group-18"),
        pytest.param(GROUP_18, uniform(4, 2, 1), id="group-18-uniform"),
        pytest.param(LAYER, an_affine(1, 1, 1, 4), id="layer"),
        pytest.param(LAYER, uniform(4, 2, 1), id="layer-uniform"),
        pytest.param(norm("LayerNormalization", bias=False, inputs=LAST), an_affine(1, 1, 1, 4), id="no-bias"),
        pytest.param(LAYER_2, an_affine(1, 1, 1, 4), id="layer-2-last"),
        pytest.param(LAYER_2, an_affine(1, 1, 5, 1), id="layer-2-first"),
        pytest.param(LAYER_2, an_affine(1, 1, 5, 4), id="layer-2-both"),
        pytest.param(norm("LayerNormalization", "axis = 1", inputs=LAST, parameter=(3, 5, 4), b=np.array(2.0)),
            an_affine(1, 3, 1, 1), id="small-bias"),
        pytest.param(RMS, an_affine(1, 1, 1, 4, shift=False), id="rms"),
    ],
)  # fmt: skip
def test_norms_absorb_output(model, affine):
    """(s scale, s bias + t)"""
    assert_absorbs_output(model, affine)


@pytest.mark.parametrize("scale", [1, 4, 0.0625])
@pytest.mark.parametrize(
    ("model", "shift"),
    [
        pytest.param(INSTANCE, an_affine(1, 4, 1, 1), id="instance"),
        pytest.param(INSTANCE, an_affine(2, 4, 1, 1), id="instance-and-batch"),
        pytest.param(GROUP, GROUPED, id="group"),
        pytest.param(GROUP_18, GROUPED, id="group-18"),
        pytest.param(LAYER, an_affine(1, 3, 1, 1), id="layer"),
        pytest.param(LAYER, an_affine(1, 3, 5, 1), id="layer-all-the-others"),
        pytest.param(LAYER_2, uniform(4, 1, 2), id="layer-uniform"),
        pytest.param(RMS, uniform(4, 1, 0), id="rms"),
    ],
)
def test_norms_absorb_input(model, shift, scale):
    """The mean takes the shift away, and epsilon the one scale."""
    affine = Affine(np.full((1,) * 4, scale), shift.shift)
    assert_absorbs_input(model, affine, relative=1e-8)  # epsilon is a float32
    edits = absorb_input(model, affine)
    assert [edit.name for edit in edits] == ([] if scale == 1 else ["epsilon"])


@pytest.mark.parametrize(
    ("model", "affine", "reason"),
    [
        pytest.param(INSTANCE, an_affine(1, 1, 3, 1), Reason.WRONG_AXIS, id="instance-rows"),
        pytest.param(INSTANCE, an_affine(1, 3, 1, 1), Reason.WRONG_SIZE, id="instance-other-size"),
        pytest.param(
            one_op("out = InstanceNormalization (x, g, b)", IMAGE | {"g": [4]}, b=np.ones(4)),
            CHANNELS,
            Reason.NOT_CONSTANT,
            id="scale-computed",
        ),
        pytest.param(
            one_op("out = InstanceNormalization (x, g, b)", IMAGE | {"b": [4]}, g=np.ones(4)),
            CHANNELS,
            Reason.NOT_CONSTANT,
            id="bias-computed",
        ),
        pytest.param(GROUP, an_affine(1, 1, 3, 1), Reason.WRONG_AXIS, id="group-rows"),
        pytest.param(GROUP_18, CHANNELS, Reason.NOT_UNIFORM, id="differs-in-a-group"),
        pytest.param(LAYER, an_affine(1, 1, 5, 1), Reason.WRONG_AXIS, id="layer-rows"),
        pytest.param(LAYER, an_affine(1, 1, 1, 3), Reason.WRONG_AXIS, id="layer-other-size"),
        pytest.param(
            norm("LayerNormalization", inputs=LAST, parameter=(1,)),
            an_affine(1, 1, 1, 4),
            Reason.WRONG_AXIS,
            id="one-number",
        ),
        pytest.param(RMS, an_affine(1, 1, 1, 4), Reason.SHIFT_NOT_ZERO, id="rms-shift"),
    ],
)
def test_norms_absorb_output_refused(model, affine, reason):
    """Each case breaks one precondition of `test_norms_absorb_output`."""
    with pytest.raises(Refused) as refused:
        absorb_output(model, affine)
    assert refused.value.reason is reason


WITH_STATISTICS = one_op("out, mean = LayerNormalization (x, g)", LAST, g=np.ones(4))


@pytest.mark.parametrize(
    ("model", "affine", "index", "reason"),
    [
        pytest.param(INSTANCE, an_affine(1, 4, 1, 1, positive=True), 0, Reason.NOT_UNIFORM, id="scales-differ"),
        pytest.param(INSTANCE, uniform(4, -1), 0, Reason.SCALE_NOT_POSITIVE, id="negative"),
        pytest.param(INSTANCE, uniform(4, 0), 0, Reason.SCALE_NOT_POSITIVE, id="zero"),
        pytest.param(INSTANCE, uniform(4, 1e20), 0, Reason.UNSUPPORTED, id="epsilon-underflows"),
        pytest.param(INSTANCE, an_affine(1, 1, 3, 1), 0, Reason.WRONG_AXIS, id="instance-rows"),
        pytest.param(INSTANCE, an_affine(4), 1, Reason.NO_RULE, id="on-a-parameter"),
        pytest.param(GROUP, CHANNELS.only_shift(), 0, Reason.NOT_UNIFORM, id="differs-in-a-group"),
        pytest.param(GROUP_18, CHANNELS.only_shift(), 0, Reason.NOT_UNIFORM, id="differs-in-a-group-18"),
        pytest.param(LAYER, an_affine(1, 1, 1, 4).only_shift(), 0, Reason.WRONG_AXIS, id="along-the-mean"),
        pytest.param(LAYER_2, an_affine(1, 1, 5, 1).only_shift(), 0, Reason.WRONG_AXIS, id="along-the-mean-2"),
        pytest.param(RMS, uniform(4, 2, 1), 0, Reason.SHIFT_NOT_ZERO, id="no-mean"),
        pytest.param(WITH_STATISTICS, uniform(4, 2, 1), 0, Reason.UNSUPPORTED, id="statistics-are-read"),
    ],
)
def test_norms_absorb_input_refused(model, affine, index, reason):
    """Each case breaks one precondition of `test_norms_absorb_input`."""
    with pytest.raises(Refused) as refused:
        absorb_input(model, affine, index)
    assert refused.value.reason is reason


# --- norms of a window, which only a scale passes ------------------------------------------------------------

POSITIVE = an_affine(1, 4, 1, 1, positive=True, shift=False)

NORMS = [
    pytest.param(one_op("out = GlobalLpPool <p = 3> (x)", IMAGE, 2), id="GlobalLpPool"),
    pytest.param(one_op("out = LpPool <kernel_shape = [2, 2], pads = [1, 0, 0, 1]> (x)", IMAGE, 18), id="LpPool"),
    pytest.param(one_op("out = ReduceL1 <axes = [2, 3]> (x)", IMAGE, 13), id="ReduceL1"),
    pytest.param(one_op("out = ReduceL2 (x, a)", IMAGE, 18, a=np.array([-1])), id="ReduceL2"),
]


@pytest.mark.parametrize("model", NORMS)
def test_a_norm_is_homogeneous(model):
    """‖s x‖ = s ‖x‖"""
    if model.graph.node[0].op_type == "GlobalLpPool":  # the reference implementation has none
        assert sink(model, POSITIVE)[0].to == lift(model, POSITIVE)[0].to == {0: POSITIVE}
        return
    assert_lifts(model, POSITIVE)
    assert_sinks(model, POSITIVE)


@pytest.mark.parametrize("model", NORMS)
@pytest.mark.parametrize(
    ("affine", "reason"),
    [
        (an_affine(1, 4, 1, 1, positive=True), Reason.SHIFT_NOT_ZERO),
        (uniform(4, -1), Reason.SCALE_NOT_POSITIVE),
        (an_affine(1, 1, 1, 5, positive=True, shift=False), Reason.WRONG_AXIS),
    ],
)
def test_a_norm_refuses(model, affine, reason):
    """Each case breaks one precondition of `test_a_norm_is_homogeneous`."""
    with pytest.raises(Refused) as refused:
        sink(model, affine)
    assert refused.value.reason is reason


@pytest.mark.parametrize(
    ("model", "bias"),
    [
        pytest.param(INSTANCE, "zero", id="instance"),
        pytest.param(GROUP, "zero", id="group"),
        pytest.param(GROUP_18, "zero", id="group-18"),
        pytest.param(LAYER, "gone", id="layer"),
        pytest.param(LAYER_2, "gone", id="layer-2"),
        pytest.param(norm("LayerNormalization", bias=False, inputs=LAST), "none", id="no-bias"),
        pytest.param(norm("LayerNormalization", "axis = 1", inputs=LAST, parameter=(3, 5, 4), b=np.array(2.0)), "gone",
            id="small-bias"),
        pytest.param(RMS, "none", id="rms"),
    ],
)  # fmt: skip
def test_norms_shed(model, bias):
    """What is left, and then the affine, is what it was; the scale is 1, and there is no bias that is not 0."""
    op = only_op(model)
    affine, edits = RULES[op.type].sheds(op)
    feeds = {"x": np.random.default_rng(0).normal(size=(2, *op.shape()[1:]))}
    after = carried_out(model, edits)
    assert_close(np.asarray(affine(run(after, feeds)["out"]), float), run(model, feeds)["out"], 1e-9)
    values = {tensor.name: numpy_helper.to_array(tensor) for tensor in after.graph.initializer}
    assert (values[after.graph.node[0].input[1]] == 1).all()
    left = [values[name] for name in after.graph.node[0].input[2:]]
    assert {"zero": len(left) == 1 and not left[0].any(), "gone": not left, "none": not left}[bias]


@pytest.mark.parametrize(
    ("model", "reason"),
    [
        pytest.param(one_op("out = LayerNormalization (x, g)", LAST | {"g": [4]}), Reason.NOT_CONSTANT, id="computed"),
        pytest.param(
            one_op("out = LayerNormalization (x, g, b)", LAST | {"b": [4]}, g=np.ones(4)),
            Reason.NOT_CONSTANT,
            id="bias-computed",
        ),
        pytest.param(
            one_op("out = LayerNormalization (x, g)", {"x": None}, g=np.ones(4)), Reason.SHAPE_UNKNOWN, id="no-rank"
        ),
        pytest.param(
            norm("GroupNormalization", "num_groups = 2", opset=18, parameter=(2,), inputs={"x": ["N", "C", 3]}),
            Reason.SHAPE_UNKNOWN,
            id="no-channels",
        ),
        pytest.param(norm("InstanceNormalization", g=np.full(4, np.nan)), Reason.NOT_FINITE, id="scale-nan"),
        pytest.param(norm("LayerNormalization", inputs=LAST, b=np.full(4, np.inf)), Reason.NOT_FINITE, id="bias-inf"),
    ],
)
def test_norms_shed_refused(model, reason):
    """Each breaks one precondition."""
    op = only_op(model)
    with pytest.raises(Refused) as refused:
        RULES[op.type].sheds(op)
    assert refused.value.reason is reason


@pytest.mark.parametrize("parameter", ["g", "b"])
def test_what_has_nothing_sheds_the_identity(parameter):
    """One that differs is enough for there to be something."""
    ones = {"g": np.ones(4), "b": np.zeros(4)}
    op = only_op(norm("LayerNormalization", inputs=LAST, **ones))
    assert RULES[op.type].sheds(op)[0].is_identity
    op = only_op(norm("LayerNormalization", inputs=LAST, **ones | {parameter: np.array([1, 0, 1, 0.5])}))
    assert not RULES[op.type].sheds(op)[0].is_identity
