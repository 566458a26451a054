"""Values made up for the border of a region."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt

from bnfold.affine import FloatArray
from bnfold.graph import Graph, Value
from bnfold.graph.ports import index_range
from bnfold.verification.float64.evaluate import CannotEvaluate
from bnfold.verification.float64.kept import Kept
from bnfold.verification.float64.kernel import as_real
from bnfold.verification.regions.numbering import Number
from bnfold.verification.regions.scenes import Scene

Array = npt.NDArray[Any]
_MOST = 1 << 40  # entries of one value
_LARGE = 100.0
_CYCLE = 4  # kinds of samples, the last of which is zero
_DECADES = 1.5  # by which the sizes of channels go up and down
_TRUTHS = 4  # trials where a condition is to be made up
_MANY_CHOICES = 10
_BESIDE = 1.0, -2.0, 3.0  # numbers beside what is none
_WORD = "word"


@dataclass(frozen=True)
class Hints:
    """What the operators of a region say of the values that make a difference.

    Attributes:
        reach: The largest number that a value may be held against, as the bounds of a Clip.
        is_smooth: Whether no operator decides by comparing, so that equal numbers are nothing special.
        choices: Integers to try: rows of tables that stand out, and what integers are compared with.
        levels: Numbers to try: on both sides of thresholds.
        winners: Places to make the largest one, for an ArgMax whose labels differ there.
        losers: Places to make the smallest one.
        meet: Whether an operator may bring together what is in different samples.
        extremes: Integers to try that a narrower type does not hold.
        odd: What is no number, if an operator asks for that.
        words: Texts to try.
    """

    reach: float = 0.0
    is_smooth: bool = True
    choices: tuple[int, ...] = ()
    levels: tuple[float, ...] = ()
    winners: tuple[int, ...] = ()
    losers: tuple[int, ...] = ()
    meet: bool = True
    extremes: tuple[int, ...] = ()
    odd: tuple[float, ...] = ()
    words: tuple[str, ...] = ()


@dataclass(frozen=True)
class Trial:
    """Values for a border.

    Attributes:
        given: The values by number.
        is_daring: Whether they may be none that the operators take.
        is_zero: Whether all numbers are zero.
    """

    given: dict[Number, Array]
    is_daring: bool = False
    is_zero: bool = False


def shapes_at(scene: Scene, border: Mapping[Number, Value]) -> dict[Number, tuple[int, ...]]:
    """The shapes of the values at a border.

    Raises:
        CannotEvaluate: One of them is not known.
    """
    return {number: _shape(scene, value) for number, value in border.items()}


def made_up(
    graph: Graph,
    scene: Scene,
    border: Mapping[Number, Value],
    shapes: Mapping[Number, tuple[int, ...]],
    hints: Hints,
    seed: int,
    tries: int,
    kept: Kept,
) -> Iterator[Trial]:
    """Values for a border, one set for each trial.

    The first sample is normal. The second is large, and its channels are of very different size, so that no weight
    hides behind a larger one, nor behind the rounding of the bias; a third is large alike in all channels, so that none
    is too small to show; a fourth is zero, so that what is left is the shift; of three, the last is. Where there are
    fewer, zeros are a trial of their own, and so are the first two where there is only one. Where samples may
    meet, there is a trial of normal ones alone.
    Further trials are for what the others leave out: both truths, more integers, ties, numbers beyond large bounds.

    Args:
        graph: The model that the values belong to.
        scene: The shapes of all values.
        border: The values by number.
        shapes: Their shapes, which may be smaller than in the scene.
        hints: What else to try.
        seed: Same seed, same values.
        tries: How often at least.
        kept: Where to keep them, so that a value is made up alike, and once, for all regions that start from it.

    Raises:
        CannotEvaluate: A value is of a kind that cannot be made up.
    """
    rows = min((shape[0] for shape in shapes.values() if shape), default=1)
    kinds = [_Kind("mixed")] if rows > 1 else [_Kind("normal"), _Kind("large")]
    # where samples meet, large ones hide what the normal one has to say, as those of a sum behind a Tanh do
    kinds += [_Kind("normal")] * (rows > 1 and (hints.meet or any(len(shape) < 3 for shape in shapes.values())))
    usual = len(kinds)
    kinds += [_Kind("normal", 0.0)] * (rows < _CYCLE - 1)
    dtypes = [scene.dtype(value) for value in border.values()]
    known = list(zip(shapes.items(), dtypes, strict=True))
    conditions = [number for (number, shape), dtype in known if dtype == np.bool_ and shape in ((), (1,))]
    turns = max(tries, _TRUTHS if np.dtype(np.bool_) in dtypes else 1)
    if integers := [shape for (_, shape), dtype in known if dtype is not None and dtype.kind in "iu"]:
        kinds += [_Kind("normal", choices=range(_MANY_CHOICES)), _Kind("normal", choices=range(-_MANY_CHOICES, 3))]
        kinds += [_Kind("normal", choices=some) for some in (hints.choices, hints.extremes) if some]
        # a single one, as the number of an iteration: each in turn
        single = [*range(_MANY_CHOICES), *hints.choices[-_MANY_CHOICES:]] if () in integers else []
        kinds += [_Kind("normal", choices=(k,)) for k in single]
    kinds += [_Kind("coarse")] * (not hints.is_smooth) + [_Kind("normal", 2 * hints.reach)] * bool(hints.reach)
    if hints.levels:
        singles = [_Kind("normal", levels=(level,)) for level in hints.levels] if () in shapes.values() else []
        kinds += [_Kind("normal", levels=hints.levels), *singles]
    kinds += [_Kind("normal", levels=(*hints.odd, *_BESIDE))] * bool(hints.odd)
    for places, peak in ((hints.winners, _LARGE), (hints.losers, -_LARGE)):
        kinds += [_Kind("normal", peak=peak, places=places[k : k + rows]) for k in range(0, len(places), max(1, rows))]
    for turn, (place, kind) in itertools.product(range(turns), enumerate(kinds)):
        # of two conditions every combination, of more some
        more = np.random.default_rng([seed, turn]).random(len(border)) < 0.5
        truths = dict(zip(conditions, [turn % 2 == 0, turn // 2 % 2 == 0, *more.tolist()], strict=False))
        given: dict[Number, Array] = {}
        for number, value in border.items():
            key = (seed, turn, place, number)
            make = partial(_values, key, graph, scene, value, shapes[number], kind, truths.get(number), hints.words)
            given[number] = kept.array((scene, key, shapes[number], kind, truths.get(number), hints.words), make)
        yield Trial(given, is_daring=place >= usual, is_zero=not kind.size)


@dataclass(frozen=True)
class _Kind:
    """Of values: how numbers are distributed, their size, and what integers or numbers are drawn from, if so.

    With places, sample by sample, what is added there along every axis that has so many.
    """

    name: str
    size: float = 1.0
    choices: Sequence[int] = ()
    levels: Sequence[float] = ()
    peak: float = 0.0
    places: Sequence[int] = ()


def _shape(scene: Scene, value: Value) -> tuple[int, ...]:
    shape = scene.shape(value)
    if shape is None:
        raise CannotEvaluate(f"the shape of {value.name!r} is not known")
    return shape


def _values(
    seed: Sequence[int],
    graph: Graph,
    scene: Scene,
    value: Value,
    shape: tuple[int, ...],
    kind: _Kind,
    truth: bool | None,
    words: Sequence[str],
) -> Array:
    random, dtype = np.random.default_rng(seed), scene.dtype(value)
    if dtype == np.object_ and value.producer is None:
        return np.asarray(random.choice(np.array([*words, _WORD], object), shape))
    if truth is not None:
        return np.full(shape, truth)
    if dtype == np.bool_:
        return random.random(shape) < 0.5
    if dtype is not None and as_real(dtype) != np.float64:
        if dtype.kind not in "iu" or value.producer is not None:
            raise CannotEvaluate(f"{value.name!r} is neither a number nor an index")
        choices = kind.choices or range(index_range(graph, value.name) or 2)
        return np.array(random.choice(np.array(choices), shape)).astype(dtype)
    if kind.levels:
        return np.asarray(random.choice(np.array(kind.levels), shape))
    numbers = kind.size * _numbers(random, shape, kind.name)
    for sample, place in zip(numbers, kind.places, strict=False) if numbers.ndim > 1 else ():
        for axis in range(sample.ndim):
            if place < sample.shape[axis]:
                np.moveaxis(sample, axis, 0)[place] += kind.peak
    return numbers


def _numbers(random: np.random.Generator, shape: tuple[int, ...], kind: str) -> FloatArray:
    if math.prod(shape) > _MOST:
        raise MemoryError  # numpy says that in many ways
    x = random.standard_normal(shape)
    if kind == "coarse":  # whole numbers, and those between two of them
        return np.rint(2 * x) / 2
    if kind == "normal" or not shape:
        return x
    large = _LARGE * x
    for axis in {1, len(shape) - 1} - {0, len(shape)}:
        sizes = [1] * len(shape)
        sizes[axis] = shape[axis]
        large *= 10 ** random.uniform(-_DECADES, _DECADES, sizes)
    if kind == "mixed":
        large[::_CYCLE] = x[::_CYCLE]
        large[2::_CYCLE] = _LARGE * x[2::_CYCLE]
        if (last := min(len(x), _CYCLE) - 1) > 1:
            large[last::_CYCLE] = 0.0
    return large
