"""A sample of zeros: what is left of an affine is its shift."""

import numpy as np
import pytest
from verification.helpers import Rewriting, assert_told_apart

RANDOM = np.random.default_rng(3)
W = RANDOM.standard_normal((4, 16, 3, 3)).astype(np.float16)
S = RANDOM.uniform(0.5, 2, 4).astype(np.float16)
B = RANDOM.standard_normal(4).astype(np.float16)
FOLDED = (S.astype(float) * B).astype(np.float16)
OFF = FOLDED.copy()
OFF[int(np.abs(FOLDED).argmax())] *= np.float16(1.01)
TENSORS = {"w": W, "b": B, "s": S.reshape(4, 1, 1), "shift": FOLDED, "off": OFF}
TENSORS |= {"scaled": (W * S.astype(float).reshape(4, 1, 1, 1)).astype(np.float16)}


@pytest.mark.parametrize("beside", ["", ", float16[7] z"], ids=["alone", "what has no samples beside it"])
@pytest.mark.parametrize("rows", ["N", "1", "2"])
def test_a_small_fault_of_a_bias_in_half_precision(rows, beside):
    """Beside the rounding of 144 weights, a hundredth of a bias does not show; beside its own it does."""
    case = Rewriting(
        "bias",
        f"n (float16[{rows}, 16, 9, 9] x{beside}) => (float16[{rows}, 4, 7, 7] y) {{@}}",
        *("c = Conv (x, w, b) y = Mul (c, s)", "y = Conv (x, scaled, off)", "y = Conv (x, scaled, shift)"),
        tensors=TENSORS,
    )
    assert_told_apart(case)
