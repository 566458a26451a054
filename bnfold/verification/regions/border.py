"""Values made up for the border of a region."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, NamedTuple

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
LARGE = 100.0
_MOST = 1 << 40  # entries of one value
_MANY = 1 << 12  # entries, of which some are large, and some of either sign
_CYCLE = 4  # kinds of samples, the last of which is zero
STILL = _CYCLE - 1  # so many samples, and one of the usual ones is zero
_TRUTHS = 4  # trials where a condition is to be made up
_SHARES = 0.5, 0.5, 0.0, 1.0  # of truths in a sample: masks may hide all of it, or nothing
_WORDS = "word", "Another Word", "a1,b2;c3;d"


class Frame(NamedTuple):
    """What there is to make up for a border: the shapes of its values, and their types where these are known."""

    shapes: tuple[tuple[int, ...], ...]
    dtypes: tuple[np.dtype[np.generic] | None, ...]

    @property
    def rows(self) -> int:
        """How many samples there are."""
        return min((shape[0] for shape in self.shapes if shape), default=1)

    @property
    def of_a_sample(self) -> tuple[tuple[int | None, ...], ...]:
        """The shapes, but for the number of samples."""
        return tuple(
            (None if shape[0] == self.rows else shape[0], *shape[1:]) if shape else () for shape in self.shapes
        )

    @property
    def integers(self) -> list[tuple[int, ...]]:
        """The shapes of those that are integers."""
        return [shape for shape, dtype in zip(self.shapes, self.dtypes, strict=True) if dtype and dtype.kind in "iu"]


@dataclass(frozen=True)
class Kind:
    """Of values: how numbers are distributed, their size, and what integers, numbers or texts are taken from, if so.

    With places, sample by sample, what is added there along every axis that has so many.

    Attributes:
        only: Of the values at the border, the one that is taken from levels; none for all.
        aim: The name of the obligation that asks for them.
        is_daring: Whether they may be none that the operators take.
    """

    name: str
    size: float = 1.0
    choices: Sequence[int] = ()
    levels: Sequence[float] = ()
    only: int | None = None
    peak: float = 0.0
    places: Sequence[int] = ()
    words: Sequence[str] = ()
    aim: str = ""
    is_daring: bool = True


class Trial(NamedTuple):
    """Values for a border, by number."""

    given: dict[Number, Array]
    kind: Kind


def frame(scene: Scene, border: Iterable[Value]) -> Frame:
    """What there is to make up in a scene.

    Raises:
        CannotEvaluate: A shape is not known.
    """
    border = list(border)
    return Frame(tuple(_shape(scene, value) for value in border), tuple(map(scene.dtype, border)))


def says_nothing_new(made: Frame, told: Iterable[Frame]) -> bool:
    """Whether nothing is left to make up that was not there before: these shapes, or two numbers of such samples.

    What a region makes of its border depends on nothing else.
    """
    counts = {other.rows for other in told if other.of_a_sample == made.of_a_sample}
    return made.rows in counts or len(counts) > 1


def made_up(
    graph: Graph,
    scene: Scene,
    border: Mapping[Number, Value],
    made: Frame,
    kinds: Sequence[Kind],
    seed: int,
    tries: int,
    kept: Kept,
) -> Iterator[Trial]:
    """Values for a border, one set for each trial.

    Args:
        graph: The model that the values belong to.
        scene: Where they stand.
        border: The values by number.
        made: Their shapes, which may be smaller than there, and types.
        kinds: Of what kind, for each trial; where truths are made up, all of them several times.
        seed: Same seed, same values.
        tries: How often at least.
        kept: Where to keep them, so that a value is made up alike, and once, for all regions that start from it.

    Raises:
        CannotEvaluate: A value is of a kind that cannot be made up.
    """
    shapes = dict(zip(border, made.shapes, strict=True))
    known = zip(border, made.shapes, made.dtypes, strict=True)
    conditions = [number for number, shape, dtype in known if dtype == np.bool_ and shape in ((), (1,))]
    turns = max(tries, _TRUTHS if np.dtype(np.bool_) in made.dtypes else 1)
    for turn, (place, kind) in itertools.product(range(turns), enumerate(kinds)):
        # of two conditions every combination, of more some
        more = np.random.default_rng([seed, turn]).random(len(border)) < 0.5
        truths = dict(zip(conditions, [turn % 2 == 0, turn // 2 % 2 == 0, *more.tolist()], strict=False))
        given: dict[Number, Array] = {}
        for position, (number, value) in enumerate(border.items()):
            key = (seed, turn, place, number)
            own = kind if kind.only in (None, position) else replace(kind, levels=())
            is_shared = math.prod(shapes[number]) > _MANY  # many are drawn once for all kinds: nothing takes as long
            draw = (seed, turn, 0 if is_shared else place, number, 1), shapes[number]
            normal = partial(kept.array, draw, partial(_normal, *draw))
            make = partial(_values, key, graph, scene, value, shapes[number], own, truths.get(number), normal)
            given[number] = kept.array((scene, key, shapes[number], own, truths.get(number)), make)
        yield Trial(given, kind)


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
    kind: Kind,
    truth: bool | None,
    normal: Callable[[], FloatArray],
) -> Array:
    random, dtype = np.random.default_rng(seed), scene.dtype(value)
    if dtype == np.object_ and value.producer is None:
        return _drawn(random, np.array(kind.words or _WORDS, object), shape)
    if truth is not None:
        return np.full(shape, truth)
    if dtype == np.bool_:
        return _truths(random, shape, seed[1])
    if dtype is not None and as_real(dtype) != np.float64:
        if dtype.kind not in "iu" or value.producer is not None:
            raise CannotEvaluate(f"{value.name!r} is neither a number nor an index")
        choices = kind.choices or range(index_range(graph, value.name) or 2)
        return _drawn(random, np.array(choices), shape).astype(dtype)
    if kind.levels:
        return _drawn(random, np.array(kind.levels), shape)
    if not kind.size:
        return np.zeros(shape)
    numbers = _numbers(normal(), kind.name)
    if kind.size != 1 or kind.places:
        numbers = kind.size * numbers
    for sample, place in zip(numbers, kind.places, strict=False) if numbers.ndim > 1 else ():
        for axis in range(sample.ndim):
            if place < sample.shape[axis]:
                np.moveaxis(sample, axis, 0)[place] += kind.peak
    return numbers


def _drawn(random: np.random.Generator, some: Array, shape: tuple[int, ...]) -> Array:
    """Each of some as often as the others, in random places."""
    if len(some) == 1:
        return np.full(shape, some[0])
    return random.permutation(np.resize(random.permutation(some), math.prod(shape))).reshape(shape)


def _truths(random: np.random.Generator, shape: tuple[int, ...], turn: int) -> Array:
    """Some of a sample, none or all of it; and none or all of everything, in turn."""
    share = random.permutation(_SHARES) if turn % _TRUTHS < 2 else np.array([turn % _TRUTHS - 2.0])
    rows = shape[:1] if len(shape) > 1 else (1,)
    return random.random(shape) < np.resize(share, rows).reshape(*rows, *[1] * (len(shape) - 1))


def _normal(seed: Sequence[int], shape: tuple[int, ...]) -> FloatArray:
    if math.prod(shape) > _MOST:
        raise MemoryError  # numpy says that in many ways
    return np.asarray(np.random.default_rng(seed).standard_normal(shape))


def _numbers(x: FloatArray, kind: str) -> FloatArray:
    """Of a kind, made of normal ones."""
    shape = x.shape
    if kind == "coarse":  # whole numbers, and those between two of them
        return np.rint(2 * x) / 2
    if kind == "normal" or not shape:
        return x
    power = x * x
    large = LARGE * x * power * power  # over many decades: in some place, one number outweighs all others of a sum
    if kind == "mixed":
        large[::_CYCLE] = x[::_CYCLE]
        large[2::_CYCLE] = LARGE * x[2::_CYCLE]
        if (last := min(len(x), _CYCLE) - 1) > 1:
            large[last::_CYCLE] = 0.0
    return large
