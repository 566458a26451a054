"""At which sizes two models are compared."""

from verification.helpers import parsed

from bnfold.graph import Graph
from bnfold.model_io import load
from bnfold.verification.regions.scenes import scenes
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
