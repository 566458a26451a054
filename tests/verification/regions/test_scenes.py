"""At which sizes two models are compared."""

import pytest
from helpers import folded, model_of
from verification.helpers import parsed

from bnfold.graph import Graph
from bnfold.model_io import load
from bnfold.verification import Verdict, verify
from bnfold.verification.regions.scenes import scenes, taken
from bnfold.verification.running.inputs import Generator

UPSAMPLED = """n (float[N, 3, 224, 224] x) => (float[N, 3, H, W] y) <float[4] f = {1, 1, 2, 2}> {
    roi = Constant <value = float[0] {}> () p = MaxPool <kernel_shape = [40, 2], strides = [2, 2]> (x)
    y = Resize (p, roi, f)
}"""


def test_an_empty_constant_forbids_no_size():
    """A Resize without a roi has an empty one at every size; an axis that a pool leaves nothing of is another."""
    model = load(parsed(UPSAMPLED))
    found = scenes(Graph(model), Generator(Graph(model), {}, {}, 0).candidates())
    assert [scene.inputs["x"][2:] for scene in found if scene.is_small] == [(75, 91), (96, 64), (128, 161)]


def test_sizes_that_an_operator_refuses_are_left_out():
    """Inference does not see that they do not fit; the walk over the operators does, for the runs as well."""
    model = load(
        parsed("""n (float[N, 3, H, W] x) => (float[N, 3, H, W] y)
        <int64[1] two = {2}, int64[1] three = {3}, int64[1] many = {60}, int64[1] one = {1}, float[1] c = {1}> {
            k = Shape (x) h = Slice (k, two, three) q = Div (h, many) r = Max (q, one) e = Expand (c, r) y = Mul (x, e)
        }""")
    )
    found = scenes(Graph(model), Generator(Graph(model), {}, {}, 0).candidates())
    assert [scene.inputs["x"][2:] for scene in found if scene.is_small] == [(33, 43), (32, 34)]
    assert taken(found) == {"x": (2, 3, 64, 64)}


def test_sizes_too_small_for_windows_before_a_slice():
    """Such sizes are tried and left out: ONNX's inference ends the process at a Slice of less than nothing."""
    convs = "c = Conv (x, {k: 4, 3, 9, 9}) d = Conv (c, {l: 4, 4, 9, 9}) e = Conv (d, {m: 4, 4, 9, 9})"
    before = model_of(f"""<ir_version: 8, opset_import: ["": 17]>
        g (float[N, 3, H, W] x) => (float[N, 4, h, W2] y) <int64[1] a = {{2}}, int64[1] b = {{9}}>
        {{ {convs} f = BatchNormalization (e, {{bn: 4}}) r = Relu (f) y = Slice (r, a, b, a) }}""")
    result = verify(before, folded(before)[1], run=False)
    assert (result.verdict, result.complete) == (Verdict.EQUIVALENT, True)


@pytest.mark.parametrize(
    ("window", "verdict"),
    [pytest.param(2000, Verdict.EQUIVALENT, id="fits"), pytest.param(20_000, Verdict.NOT_VERIFIED, id="fits-no-guess")],
)
def test_a_sound_of_open_length(window, verdict):
    """It may have to be long, as a window of it is; where no size does, that is said."""
    before = model_of(f"""<ir_version: 8, opset_import: ["": 17]> g (float[N, samples] x) => (float[N, 4, t] y)
        <int64[1] one = {{1}}> {{ u = Unsqueeze (x, one)
        c = Conv <strides = [160]> (u, {{w: 4, 1, {window}}}) y = BatchNormalization (c, {{bn: 4}}) }}""")
    result = verify(before, folded(before)[1])
    assert result.verdict is verdict
    assert ("--shape" in str(result)) is (verdict is Verdict.NOT_VERIFIED)


def test_images_are_not_as_long_as_sounds():
    """Though their two axes have one name, and so one size that is not known."""
    graph = Graph(load(parsed("n (float[N, 3, D, D] x) => (float[N, 3, D, D] y) { y = Relu (x) }")))
    assert max(shapes["x"][2] for shapes in Generator(graph, {}, {}, 0).candidates()) == 256
