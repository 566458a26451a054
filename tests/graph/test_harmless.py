"""What inference may have in bnfold's own process; what it may not have breaks one precondition of something it may."""

import onnx
import pytest

from bnfold.graph.harmless import is_harmless

HARMLESS = {
    "block": "y = Conv (x, w) z = Relu (y) r = Add (z, x)",
    "reshaped": "y = Reshape (x, two) r = Mul (y, y)",
    "pooled": "y = ReduceMean <keepdims = 0, axes = [2, 3]> (x) r = Sub (y, y)",
    "computed-sizes": "s = Shape (x) h = Gather (s, at) k = Concat <axis = 0> (h, h) y = Reshape (x, k) r = Mul (y, y)",
    "filled-like-a-list": "l = Shape (two) c = ConstantOfShape (l) r = Mul (c, two)",
    "split": "y, r = Split <axis = 1> (x)",
    "permuted": "y = Transpose <perm = [0, 2, 3, 1]> (x) r = Mul (y, y)",
    "input": "r = Mul (short, short)",
    "expanded": "s = Shape (x) y = Expand (one, s) r = Mul (y, y)",
    "attention": "m = MatMul (x, x) r = Add (m, x)",
}
HARMFUL = {
    "unknown": "y = Conv (x, w) z = EyeLike (y) r = Add (z, x)",
    "flattened": "y = Reshape (x, one) r = Mul (y, y)",
    "reduced": "y = ReduceMean <keepdims = 0, axes = [1, 2, 3]> (x) r = Sub (y, y)",
    "short-list": "s = Shape (x) h = Gather (s, at) y = Reshape (x, h) r = Mul (y, y)",
    "filled": "c = ConstantOfShape (one) r = Mul (c, two)",
    "fewer-axes": "y = Transpose <perm = [1]> (x) r = Mul (y, y)",
    "rank-of-a-bound": "y = Clip (long, w) r = Mul (y, y)",
    "fewer-outputs": "y, r = Split <num_outputs = 1> (x)",
    "axis": "y, r = Split <axis = -4611686018427387904> (x)",
    "long-input": "r = Mul (long, long)",
    "axes-without-end": "r = Expand (one, long)",
    "axes-without-end-and-more": "r = Expand (one, long, one)",
    "squared": "h = Unsqueeze (some, one) m = Mul (some, h) y = Reshape (m, one) r = Mul (y, y)",
    "vectors": "y = Flatten (x) m = MatMul (y, vector) r = Add (m, m)",
    "doubled": "".join(f"v{k + 1} = Concat <axis = 0> (v{k}, v{k}) " for k in range(30)).replace("v0", "two")
    + "r = Mul (v30, v30)",
}


def harmless(body: str) -> bool:
    return is_harmless(
        onnx.parser.parse_model(f"""<ir_version: 8, opset_import: ["": 17]>
            g (float[1,3,8,8] x, float[16] short, float[1099511627776] long, float[n] vector) => (r)
            <float[3,3,1,1] w, int64[2] two = {{1, -1}}, int64[1] one = {{-1}}, int64[1] at = {{0}},
             int64[3] some = {{0, 1, 2}}> {{ {body} }}""")
    )


@pytest.mark.parametrize("body", HARMLESS.values(), ids=HARMLESS.keys())
def test_harmless(body):
    """All operators are known, and what inference may list has few elements or another rank."""
    assert harmless(body)


@pytest.mark.parametrize("body", HARMFUL.values(), ids=HARMFUL.keys())
def test_harmful(body):
    """An operator that fails, or a value of rank 1 with any number of elements."""
    assert not harmless(body)
