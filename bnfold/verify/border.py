"""Values made up for the border of a region."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from bnfold.affine import FloatArray
from bnfold.graph import Graph, Value
from bnfold.verify.evaluate import CannotEvaluate
from bnfold.verify.inputs import index_range
from bnfold.verify.kernel import as_real
from bnfold.verify.numbering import Number
from bnfold.verify.scenes import Scene

Array = npt.NDArray[Any]
_LARGE = 100.0
_DECADES = 1.5  # by which the sizes of channels go up and down
_TRUTHS = 4  # trials where a condition is to be made up


def made_up(graph: Graph, scene: Scene, border: Mapping[Number, Value], seed: int) -> Iterator[dict[Number, Array]]:
    """Values for a border, one set for each trial.

    The first sample is normal. The second is large, and its channels are of very different size, so that no weight
    hides behind a larger one, nor behind the rounding of the bias. Where there is only one sample, they are two trials.

    Args:
        graph: The model that the values belong to.
        scene: Their shapes.
        border: The values by number.
        seed: Same seed, same values.

    Raises:
        CannotEvaluate: A value is of a kind that cannot be made up.
    """
    shapes = {number: _shape(scene, value) for number, value in border.items()}
    rows = min((shape[0] for shape in shapes.values() if shape), default=1)
    kinds = ("mixed",) if rows > 1 else ("normal", "large")
    has_truths = any(scene.dtype(value) == np.bool_ for value in border.values())
    for trial in range(_TRUTHS if has_truths else 1):
        for kind in kinds:
            random = np.random.default_rng([seed, trial, kinds.index(kind)])
            yield {
                number: _values(random, graph, scene, value, shapes[number], kind, trial + place)
                for place, (number, value) in enumerate(border.items())
            }


def _shape(scene: Scene, value: Value) -> tuple[int, ...]:
    shape = scene.shape(value)
    if shape is None:
        raise CannotEvaluate(f"the shape of {value.name!r} is not known")
    return shape


def _values(
    random: np.random.Generator,
    graph: Graph,
    scene: Scene,
    value: Value,
    shape: tuple[int, ...],
    kind: str,
    turn: int,
) -> Array:
    dtype = scene.dtype(value)
    if dtype == np.bool_:
        return np.full(shape, turn % 2 == 0) if not shape or shape == (1,) else random.random(shape) < 0.5
    if dtype is not None and as_real(dtype) != np.float64:
        if dtype.kind not in "iu" or value.producer is not None:
            raise CannotEvaluate(f"{value.name!r} is neither a number nor an index")
        return random.integers(0, index_range(graph, value.name) or 2, shape).astype(dtype)
    return _numbers(random, shape, kind)


def _numbers(random: np.random.Generator, shape: tuple[int, ...], kind: str) -> FloatArray:
    x = random.standard_normal(shape)
    if kind == "normal" or not shape:
        return x
    large = _LARGE * x
    for axis in {1, len(shape) - 1} - {0, len(shape)}:
        sizes = [1] * len(shape)
        sizes[axis] = shape[axis]
        large *= 10 ** random.uniform(-_DECADES, _DECADES, sizes)
    if kind == "mixed":
        large[::2] = x[::2]
    return large
