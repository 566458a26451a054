"""What converters and other tools write, though they should not."""

import numpy as np
import onnx
import pytest
from verification.helpers import parsed

from bnfold.verification import InterfaceError, Verdict, verify

RANDOM = np.random.default_rng(0)
W, S = RANDOM.standard_normal((4, 3)).astype(np.float32), RANDOM.uniform(0.5, 2, 3).astype(np.float32)
SCALAR = parsed("n (float[N, 4] x) => (float[N, 3] y) {c = MatMul (x, w) y = Mul (c, s)}", tensors={"w": W, "s": S})
del SCALAR.graph.output[0].type.tensor_type.shape.dim[:]


@pytest.mark.parametrize("factor", [1.0, 1.01])
def test_a_scalar_that_is_none_is_compared(factor):
    """An output that is declared to have no dimensions has those that its operators give it."""
    after = parsed(
        "n (float[N, 4] x) => (float[N, 3] y) {y = MatMul (x, w)}", tensors={"w": W * S * np.float32(factor)}
    )
    expected = Verdict.EQUIVALENT if factor == 1 else Verdict.DIFFERENT
    assert verify(SCALAR, after).verdict is expected
    assert verify(after, SCALAR).verdict is expected


def test_a_scalar_that_is_none_is_not_every_shape():
    """It still has a shape."""
    other = parsed("n (float[N, 4] x) => (float[N, 4] y) {y = Relu (x)}")
    with pytest.raises(InterfaceError, match=r"\[N,3\] of BEFORE is 'y' float\[N,4\]"):
        verify(SCALAR, other)


LOOP = """n (float[2, 4] x) => (float[2, 4] y) <int64 n = {2}, float[1] k = {2}, bool go = {1}> {
    r = ACT (x)
    y = Loop (n, go, r) <body = b (int64 i, bool c, float[2, 4] s) => (bool d, float[2, 4] z)
        {d = Identity (c) z = Mul (s, k)}>
}"""


def loop(act: str, inner: float | None) -> onnx.ModelProto:
    """A Loop whose body may have an initializer with the name of an outer one."""
    model = parsed(LOOP.replace("ACT", act))
    if inner is not None:
        tensor = onnx.numpy_helper.from_array(np.array([inner], np.float32), "k")
        model.graph.node[-1].attribute[0].g.initializer.append(tensor)
    return model


@pytest.mark.parametrize(
    ("inner", "other", "is_equal"),
    [
        pytest.param(2.0, 2.0, True, id="both"),
        pytest.param(None, 2.0, True, id="a copy of the outer one"),
        pytest.param(3.0, 3.0, True, id="whichever is meant, in both the same"),
        pytest.param(None, 3.0, False, id="another"),
        pytest.param(2.0, 3.0, False, id="two"),
    ],
)
def test_an_initializer_of_a_body_with_an_outer_name(inner, other, is_equal):
    """Runtimes disagree on which of the two a name means, so only the same, or copies, are known to be equal."""
    result = verify(loop("Relu", inner), loop("Relu", other), run=False)
    assert result.complete is is_equal
    assert result.passed is is_equal


PLACES, FAR = np.arange(64, dtype=np.float32)[:, None] / np.float32(7), np.float32(1000)
WAVES = "n (float[B, 64, 8] x) => (float[B, 64, 8] y) {@}"


@pytest.mark.parametrize(("factor", "verdict"), [(1.0, Verdict.EQUIVALENT), (1.01, Verdict.DIFFERENT)])
def test_constants_that_were_computed_in_float32(factor, verdict):
    """Who folds an expression of constants in its own type rounds at each step, by more than a rounding of its end."""
    tensors = {"places": PLACES, "far": FAR, "waves": np.sin((PLACES + FAR - FAR) * np.float32(factor))}
    before, after = (
        parsed(WAVES.replace("@", part), tensors=tensors)
        for part in ("a = Add (places, far) b = Sub (a, far) s = Sin (b) y = Add (x, s)", "y = Add (x, waves)")
    )
    assert verify(before, after, run=False).verdict is verdict
