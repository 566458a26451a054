"""What hypothesis draws, for every test. Settings: no deadline, always the same examples."""

from __future__ import annotations

from collections.abc import Sequence

import hypothesis.strategies as st
import numpy as np
from hypothesis import Phase, settings

from bnfold.affine import Affine

# the answer of a rule is checked on a few examples of many operators, and small as they are
few = settings(deadline=None, derandomize=True, max_examples=5, database=None, phases=[Phase.explicit, Phase.generate])
many = settings(deadline=None, derandomize=True, max_examples=100, database=None)

SCALES = st.sampled_from([1.0, -1.0, 0.0]) | st.floats(-4, 4).filter(lambda value: value == 0 or abs(value) > 0.01)
POSITIVE = st.floats(0.01, 4)
SHIFTS = st.just(0.0) | st.floats(-4, 4)


@st.composite
def affines(draw: st.DrawFn, shape: Sequence[int], axes: Sequence[int] | None = None) -> Affine:
    """An affine of a value of this shape, which varies along one of `axes` (all by default), or none, seldom two."""
    possible = [axis for axis in (range(len(shape)) if axes is None else axes) if shape[axis] > 1]
    varying = set(draw(st.lists(st.sampled_from(possible), max_size=2, unique=True))) if possible else set()
    if len(varying) == 2 and draw(st.integers(0, 2)):
        varying.pop()
    own = tuple(size if axis in varying else 1 for axis, size in enumerate(shape))
    count = int(np.prod(own))
    scales = draw(st.sampled_from([SCALES, POSITIVE, st.just(1.0)]))
    shifts = draw(st.sampled_from([SHIFTS, st.just(0.0)]))
    scale = np.array(draw(st.lists(scales, min_size=count, max_size=count))).reshape(own)
    shift = np.array(draw(st.lists(shifts, min_size=count, max_size=count))).reshape(own)
    return Affine(scale, shift)


def vectors(size: int, low: float, high: float, dtype: type = np.float32) -> st.SearchStrategy[np.ndarray]:
    """Numbers that the type holds exactly."""
    numbers = st.floats(low, high, width=64).map(lambda value: np.asarray(value).astype(dtype))
    return st.lists(numbers, min_size=size, max_size=size).map(lambda values: np.array(values, dtype))
