"""Resize, Upsample, GridSample and Pad: weights that sum to 1, and borders that are somebody's constant."""

import numpy as np
import pytest
from ops.helpers import an_affine, assert_lifts, assert_sinks, lift, one_op, sink, uniform

from bnfold.affine import Affine
from bnfold.reasons import Reason, Refused

CHANNELS = an_affine(1, 3, 1, 1)
SCALED = an_affine(1, 3, 1, 1, shift=False)
FLOAT32 = 1e-6  # the reference implementation computes cubic weights in it
IMAGE = {"x": ["N", 3, 4, 5]}


def resize(attributes="", shape=("N", 3, 4, 5), opset=19, **given):
    """A Resize by `scales`, or to `sizes`; a list is a constant, a name another input."""
    scales = given.get("scales", [1, 1, 2.0, 1.5] if "sizes" not in given else None)
    names = ["scales" if scales is not None else '""', "sizes" if "sizes" in given else '""']
    names = names[: 2 if "sizes" in given else 1]
    inputs: dict = {"x": shape} | {name: ["R"] for name, value in given.items() if value == "computed"}
    constants = {name: np.array(value) for name, value in given.items() if value != "computed"}
    if scales is not None and scales != "computed":
        constants["scales"] = np.array(scales, np.float32)
    front = "x" if opset < 11 else 'x, ""'
    return one_op(f"out = Resize <{attributes}> ({front}, {', '.join(names)})", inputs, opset, **constants)


# --- Resize, Upsample ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "model",
    [
        pytest.param(resize(), id="nearest"),
        pytest.param(resize('mode = "linear"'), id="linear"),
        pytest.param(resize('mode = "cubic", cubic_coeff_a = -0.5'), id="cubic"),
        pytest.param(resize('mode = "cubic", exclude_outside = 1'), id="cubic-inside"),
        pytest.param(resize('mode = "linear", antialias = 1', scales=[1, 1, 0.5, 0.6]), id="antialias"),
        pytest.param(resize('mode = "cubic", antialias = 1', scales=[1, 1, 0.5, 0.6]), id="antialias-cubic"),
        pytest.param(resize('mode = "linear", coordinate_transformation_mode = "align_corners"'), id="corners"),
        pytest.param(resize('mode = "linear", coordinate_transformation_mode = "asymmetric"'), id="asymmetric"),
        pytest.param(resize('mode = "linear"', sizes=[2, 3, 7, 5]), id="sizes"),
        pytest.param(resize('mode = "linear", axes = [2, 3]', scales=[2, 0.7]), id="axes"),
        pytest.param(
            resize('axes = [2, 3], keep_aspect_ratio_policy = "not_larger"', sizes=[7, 7]), id="axes-keep-ratio"
        ),
        pytest.param(resize(opset=10), id="opset-10"),
        pytest.param(resize(opset=11), id="opset-11"),
        pytest.param(one_op("out = Upsample <scales = [1.0, 1.0, 2.0, 2.0]> (x)", IMAGE, 7), id="upsample-7"),
        pytest.param(
            one_op('out = Upsample <mode = "linear"> (x, s)', IMAGE, 9, s=np.array([1, 1, 2, 2], np.float32)),
            id="upsample-9",
        ),
    ],
)
def test_interpolation(model):
    """The channels are not resized, and the weights sum to 1."""
    if model.opset_import[0].version <= 10:  # only the answer: the reference implementation has none
        assert sink(model, CHANNELS)[0].to == lift(model, CHANNELS)[0].to == {0: CHANNELS}
        return
    assert_lifts(model, CHANNELS, relative=FLOAT32)
    assert_sinks(model, CHANNELS, relative=FLOAT32)


@pytest.mark.parametrize(
    "model",
    [
        pytest.param(resize(scales="computed"), id="scales-computed"),
        pytest.param(resize(shape=("N", "C", "H", "W"), sizes="computed"), id="sizes-computed"),
        pytest.param(resize(scales=[2, 2, 2, 2]), id="channels-resized"),
    ],
)
def test_one_number_passes_any_resize(model):
    """There is no axis that it varies on, none that could be resized."""
    assert sink(model, uniform(4, 2, 1))
    assert lift(model, uniform(4, 2, 1))


def test_axes_count_from_the_end():
    """The reference implementation does not know how."""
    model = resize("axes = [2, -1]", scales=[2, 2])
    assert lift(model, CHANNELS)[0].to == {0: CHANNELS}
    with pytest.raises(Refused) as refused:
        lift(model, an_affine(1, 1, 1, 10))
    assert refused.value.reason is Reason.WRONG_AXIS


def test_resize_before_the_channels():
    """What varies along the last axis passes a Resize of the others."""
    assert_sinks(resize('mode = "linear"', scales=[1, 2, 2, 1]), an_affine(1, 1, 1, 5))


@pytest.mark.parametrize(
    ("model", "reason"),
    [
        pytest.param(resize(scales=[1, 2, 2, 2]), Reason.WRONG_AXIS, id="channels-resized"),
        pytest.param(resize(scales=[1, 1.01, 2, 2]), Reason.WRONG_AXIS, id="scale-nearly-1"),
        pytest.param(resize(sizes=[2, 4, 4, 5]), Reason.WRONG_AXIS, id="channels-sized"),
        pytest.param(resize("axes = [1]", scales=[1.5]), Reason.WRONG_AXIS, id="axes"),
        pytest.param(resize(sizes="computed"), Reason.SHAPE_UNKNOWN, id="sizes-computed"),
        pytest.param(resize(scales="computed"), Reason.NOT_CONSTANT, id="scales-computed"),
        pytest.param(
            resize('keep_aspect_ratio_policy = "not_larger"', sizes=[2, 3, 3, 5]), Reason.WRONG_AXIS, id="keep-ratio"
        ),
        pytest.param(
            resize('coordinate_transformation_mode = "tf_crop_and_resize"'), Reason.UNSUPPORTED, id="crop-and-resize"
        ),
        pytest.param(
            resize('coordinate_transformation_mode = "tf_half_pixel_for_nn", nearest_mode = "ceil"', opset=11),
            Reason.WRONG_AXIS,
            id="shifted-by-half-a-pixel",
        ),
        pytest.param(
            one_op("out = Upsample <scales = [1.0, 2.0, 2.0, 2.0]> (x)", IMAGE, 7), Reason.WRONG_AXIS, id="upsample"
        ),
    ],
)
def test_interpolation_refused(model, reason):
    """Each case breaks one precondition of `test_interpolation`."""
    for ask in (lift, sink):
        with pytest.raises(Refused) as refused:
            ask(model, CHANNELS)
        assert refused.value.reason is reason


def test_half_pixel_for_nearest_rounds_down():
    """TensorFlow's exporter writes it; position i is read from i + 0.5."""
    mode = 'coordinate_transformation_mode = "tf_half_pixel_for_nn", nearest_mode = "floor"'
    assert sink(resize(mode, opset=11), CHANNELS)


@pytest.mark.parametrize("axis", [1, 2])
def test_upsample_1_resizes_the_plane(axis):
    """It had one scale for the height and one for the width."""
    model = one_op("out = Upsample <height_scale = 2.0, width_scale = 2.0> (x)", IMAGE, 1)
    affine = CHANNELS if axis == 1 else an_affine(1, 1, 4, 1)
    if axis == 1:
        assert sink(model, affine)
        return
    with pytest.raises(Refused) as refused:
        sink(model, affine)
    assert refused.value.reason is Reason.WRONG_AXIS


# --- GridSample ----------------------------------------------------------------------------------------------


def sampling(padding, mode="linear", opset=20):
    attributes = f'padding_mode = "{padding}", mode = "{mode}"'
    return one_op(f"out = GridSample <{attributes}> (x, grid)", IMAGE | {"grid": ["N", 3, 3, 2]}, opset)


@pytest.mark.parametrize("mode", ["linear", "nearest", "cubic"])
@pytest.mark.parametrize(
    ("padding", "affine"), [("zeros", SCALED), ("border", CHANNELS), ("reflection", CHANNELS), ("zeros", uniform(4, 2))]
)
def test_sampling(mode, padding, affine):
    """The weights sum to 1, except over zeros outside the input."""
    assert_lifts(sampling(padding, mode), affine, relative=FLOAT32)
    assert_sinks(sampling(padding, mode), affine, relative=FLOAT32)


@pytest.mark.parametrize(
    ("model", "affine", "index", "reason"),
    [
        pytest.param(sampling("zeros"), CHANNELS, 0, Reason.SHIFT_NOT_ZERO, id="zeros"),
        pytest.param(
            one_op("out = GridSample (x, g)", IMAGE | {"g": None}), CHANNELS, 0, Reason.SHIFT_NOT_ZERO, id="default"
        ),
        pytest.param(sampling("border"), an_affine(1, 1, 4, 1), 0, Reason.WRONG_AXIS, id="rows"),
        pytest.param(sampling("border"), an_affine(1, 3, 1, 1), 1, Reason.NO_RULE, id="on-the-grid"),
    ],
)
def test_sampling_refused(model, affine, index, reason):
    """Each case breaks one precondition of `test_sampling`."""
    with pytest.raises(Refused) as refused:
        sink(model, affine, index)
    assert refused.value.reason is reason


# --- Pad -----------------------------------------------------------------------------------------------------

PLANE = [0, 0, 1, 2, 0, 0, 2, 1]  # pads of the two last axes


def pad(pads=PLANE, value=None, mode="constant", opset=21, axes=None, shape=("N", 3, 4, 5)):
    """A Pad; pads and value are attributes before opset 11."""
    if opset < 11:
        name = "pads" if opset > 1 else "paddings"
        at = "" if value is None else f", value = {float(value)}"
        return one_op(f'out = Pad <mode = "{mode}", {name} = {pads}{at}> (x)', {"x": shape}, opset)
    constants = {"p": np.array(pads)}
    names = ["p", '""', '""']
    if value is not None:
        names[1], constants["v"] = "v", np.array(value, np.float64)
    if axes is not None:
        names[2], constants["a"] = "a", np.array(axes)
    while names[-1] == '""':
        names.pop()
    return one_op(f'out = Pad <mode = "{mode}"> (x, {", ".join(names)})', {"x": shape}, opset, **constants)


@pytest.mark.parametrize("mode", ["edge", "reflect", "wrap"])
@pytest.mark.parametrize(("pads", "axes"), [(PLANE, None), ([1, 1], [3]), ([1, -1, 0, 1], [-2, -1])])
def test_padding_with_its_own_values(mode, pads, axes):
    """What is copied has had its affine."""
    model = pad(pads, mode=mode, axes=axes)
    assert_lifts(model, CHANNELS)
    assert_sinks(model, CHANNELS)


@pytest.mark.parametrize("value", [None, 0.0])
@pytest.mark.parametrize(("pads", "axes"), [(PLANE, None), ([2, 2], [-1])])
def test_padding_with_zeros(value, pads, axes):
    """A scale leaves zero alone, and nothing is edited."""
    model = pad(pads, value, axes=axes)
    assert_lifts(model, SCALED)
    assert_sinks(model, SCALED)
    assert not lift(model, SCALED)[0].edits


@pytest.mark.parametrize("value", [None, 0.0, 3.0])
@pytest.mark.parametrize("pads", [PLANE, [1, 1, 0, 0, 0, 0, 0, 0], [0, 0, 0, -1, 0, 2, 0, 0]])
def test_padding_takes_one_number(value, pads):
    """Up: v becomes s v + t. Down: it becomes (v - t) / s."""
    model = pad(pads, value)
    assert_lifts(model, uniform(4, 2, 1))
    assert_sinks(model, uniform(4, 2, 1))


def test_padding_that_comes_out_equal():
    """Channels may differ as long as they agree about the padding."""
    scale = an_affine(1, 3, 1, 1).scale
    up = Affine(scale, 5 - 3 * scale)  # A(3) = 5
    assert_lifts(pad(value=3.0), up)
    down = Affine(scale, 3 - 2 * scale)  # A(2) = 3
    scale[:] = np.round(scale * 8) / 8  # so that all of it is exact
    down = Affine(scale, 3 - 2 * scale)
    assert_sinks(pad(value=3.0), down)


@pytest.mark.parametrize(("pads", "value"), [([0, 2, 0, 0, 0, 1, 0, 0], 3.0), ([0, 1, 0, 0, 0, 0, 0, 0], None)])
def test_padding_of_channels(pads, value):
    """Down, the new channels get the identity. Up, they have to agree about their value."""
    model = pad(pads, value)
    assert_sinks(model, CHANNELS)
    channels = 3 + pads[1] + pads[5]
    padded = [*range(pads[1]), *range(channels - pads[5], channels)]
    affine = an_affine(1, channels, 1, 1)
    affine.scale[:, padded], affine.shift[:, padded] = -2, 7
    assert_lifts(model, affine)


def test_cutting_channels_off():
    """A negative pad is a slice."""
    model = pad([0, -1, 0, 0, 0, -1, 0, 0], shape=("N", 5, 4, 5))
    assert_sinks(model, an_affine(1, 5, 1, 1))
    assert_lifts(model, CHANNELS)


@pytest.mark.parametrize("opset", [1, 2])
def test_pads_as_attributes(opset):
    """Before opset 11; no reference implementation takes them."""
    model = pad(PLANE, 4, opset=opset)
    (edit,) = lift(model, uniform(4, 2, 0.5))[0].edits
    assert (edit.name, edit.value) == ("value", 8.5)
    (edit,) = sink(model, uniform(4, 2, 2))[0].edits
    assert (edit.name, edit.value) == ("value", 1)
    assert not lift(pad(PLANE, opset=opset), SCALED)[0].edits
    assert lift(pad(PLANE, mode="edge", opset=opset), CHANNELS)[0].to == {0: CHANNELS}
    with pytest.raises(Refused) as refused:
        lift(model, uniform(4, 1, 0.1))  # no float32
    assert refused.value.reason is Reason.UNSUPPORTED


def test_pads_that_are_computed():
    """Axes that the affine does not vary on may be padded by any number."""
    model = one_op('out = Pad (x, p, "", a)', {"x": ["N", 3, 4, 5], "p": [4]}, a=np.array([2, 3]))
    assert not lift(model, SCALED)[0].edits
    assert lift(model, uniform(4, 2, 1))[0].edits
    with pytest.raises(Refused) as refused:
        lift(model, an_affine(1, 1, 4, 1))
    assert refused.value.reason is Reason.NOT_CONSTANT


def test_padding_with_infinity():
    """It stays infinity under a positive scale, and has no meaning under others."""
    model = pad(value=-np.inf)
    for ask in (lift, sink):
        assert not ask(model, an_affine(1, 3, 1, 1, positive=True))[0].edits
        with pytest.raises(Refused) as refused:
            ask(model, CHANNELS)
        assert refused.value.reason is Reason.NOT_UNIFORM


ZERO = Affine(np.array([1.0, 0, 2]).reshape(1, 3, 1, 1), np.zeros((1, 1, 1, 1)))


@pytest.mark.parametrize(
    ("ask", "model", "affine", "reason"),
    [
        pytest.param(lift, pad(), CHANNELS, Reason.NOT_UNIFORM, id="up-shift"),
        pytest.param(sink, pad(), CHANNELS, Reason.NOT_UNIFORM, id="down-shift"),
        pytest.param(lift, pad(value=1.0), SCALED, Reason.NOT_UNIFORM, id="up-value"),
        pytest.param(sink, pad(value=1.0), SCALED, Reason.NOT_UNIFORM, id="down-value"),
        pytest.param(sink, pad(value=1.0), ZERO, Reason.NOT_UNIFORM, id="down-zero-scale"),
        pytest.param(sink, pad(value=1.0), uniform(4, 0, 2), Reason.NOT_FINITE, id="down-all-zero-scale"),
        pytest.param(lift, pad(mode="edge"), an_affine(1, 1, 7, 1), Reason.WRONG_AXIS, id="edge-along-rows"),
        pytest.param(lift, pad([0, 1, 0, 0] * 2), an_affine(1, 5, 1, 1), Reason.NOT_UNIFORM, id="up-new-channels"),
        pytest.param(sink, pad([0, 1, 0, 1] * 2, 1.0), CHANNELS, Reason.NOT_UNIFORM, id="down-both"),
        pytest.param(sink, pad([0, 0, 1, 1]), SCALED, Reason.MALFORMED, id="too-few-pads"),
        pytest.param(
            sink, one_op("out = Pad (x, p)", {"x": ["N", 3], "p": [4]}), an_affine(1, 3), Reason.NOT_CONSTANT, id="pads"
        ),
        pytest.param(
            sink,
            one_op("out = Pad (x, p, v)", {"x": ["N", 3, 2], "v": []}, p=np.array([0, 0, 1] * 2)),
            an_affine(1, 3, 1, shift=False),
            Reason.NOT_CONSTANT,
            id="value-computed",
        ),
    ],
)
def test_padding_refused(ask, model, affine, reason):
    """Each case breaks one precondition of those above."""
    with pytest.raises(Refused) as refused:
        ask(model, affine)
    assert refused.value.reason is reason
