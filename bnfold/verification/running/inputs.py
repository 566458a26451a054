"""Inputs made up for a model, from the types and shapes that it declares."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx

from bnfold.graph import Graph
from bnfold.graph.ports import Port, index_range, required_inputs
from bnfold.graph.sizes import MOST_ENTRIES, odd_size, sized
from bnfold.model_io.tensors import type_name

Array = npt.NDArray[Any]

DISTRIBUTIONS = ("normal", "uniform", "spikes", "large", "constant")
_GUESSES = (224, 64, 32, 256, 128, 16, 8, 4, 1, 80, 40)  # for an axis that nothing is known of
_LONG, _MOST_LONG = (1024, 16_000), 100_000  # which may be that of a sound, while the inputs have so many entries
_BATCHES = (2, 1)
_MOST_CANDIDATES = 26


class CannotGenerate(Exception):
    """No inputs can be made up; the text says why, and what the user can do."""


@dataclass(frozen=True)
class Sample:
    """Inputs for one run.

    Attributes:
        name: What they are, for reports.
        feed: Arrays by input name.
        like: The name of a sample that differs from it in nothing but how many there are, if there is one.
    """

    name: str
    feed: dict[str, Array]
    like: str = ""

    @property
    def kind(self) -> str:
        return self.like or self.name

    @property
    def entries(self) -> int:
        return sum(array.size for array in self.feed.values())

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        return {name: array.shape for name, array in self.feed.items()}


class Generator:
    """Makes up inputs for a model.

    Args:
        graph: The model.
        shapes: Shapes that the user gave, by input.
        dims: Sizes that the user gave, by the names of dimensions.
        seed: Same seed, same inputs.
        most: Entries that inputs of a run may have together.

    Raises:
        ModelError: A given shape belongs to no input, or contradicts the model.
    """

    def __init__(
        self,
        graph: Graph,
        shapes: Mapping[str, Sequence[int]],
        dims: Mapping[str, int],
        seed: int,
        most: int = MOST_ENTRIES,
    ) -> None:
        self._most = most
        self._ports = sized(required_inputs(graph.model), shapes, dims)
        self._ranges = {port.name: index_range(graph, port.name) for port in self._ports}
        self._seed = seed
        self._given = {port.name: _filled(port) for port in self._ports}

    def candidates(self) -> Iterator[dict[str, tuple[int, ...]]]:
        """Shapes for all inputs, the most sensible first; only running the model tells which one fits.

        Raises:
            CannotGenerate: An input is no tensor.
        """
        for port in self._ports:
            if port.kind != "tensor" or type_name(port.elem_type) in ("", "UNDEFINED"):
                raise CannotGenerate(f"input {port} is no tensor of a known type: give inputs with --data")
        unknown = list(dict.fromkeys(dim for shape in self._given.values() for dim in shape if isinstance(dim, str)))
        batch = {shape[0] for shape in self._given.values() if shape and isinstance(shape[0], str)}
        others = [dim for dim in unknown if dim not in batch]
        guesses = itertools.product(self._guesses(len(others)), _BATCHES if batch else (1,))
        for guess, size in itertools.islice(guesses, _MOST_CANDIDATES):
            shapes = self._sized(dict(zip(others, guess, strict=True)) | dict.fromkeys(batch, size))
            if not set(guess) & set(_LONG) or _entries(shapes) <= _MOST_LONG:
                yield shapes

    @property
    def guessed(self) -> str:
        """The first input whose shape is not known but for its batch."""
        open_ = (name for name, shape in self._given.items() if any(isinstance(dim, str) for dim in shape[1:]))
        return next(open_, next(iter(self._given), "NAME"))

    def batch_variants(self, shapes: Mapping[str, Sequence[int]]) -> Iterator[dict[str, tuple[int, ...]]]:
        """The same shapes with other batch sizes, if it is open."""
        batch = {name for name, shape in self._given.items() if shape and isinstance(shape[0], str)}
        for size in _BATCHES[1:]:
            other = {name: (size, *shape[1:]) if name in batch else tuple(shape) for name, shape in shapes.items()}
            if other != shapes:
                yield other

    def length_variants(self, shapes: Mapping[str, Sequence[int]]) -> Iterator[dict[str, tuple[int, ...]]]:
        """The same, but odd sizes for all others that are open: each its own, or one where they were alike."""
        batch = {shape[0] for shape in self._given.values() if shape}
        found = {
            dim: size
            for name, shape in self._given.items()
            for dim, size in zip(shape, shapes[name], strict=True)
            if isinstance(dim, str) and dim not in batch
        }
        for apart in (2, 0)[: len(found)]:
            odd: dict[int | str, int] = {dim: odd_size(found[dim]) + apart * place for place, dim in enumerate(found)}
            yield {
                name: tuple(odd.get(dim, size) for dim, size in zip(shape, shapes[name], strict=True))
                for name, shape in self._given.items()
            }

    def sample(self, shapes: Mapping[str, Sequence[int]], distribution: str, *, salt: int = 0) -> Sample:
        """Inputs of these shapes.

        Raises:
            CannotGenerate: They are too large.
        """
        if (entries := _entries(shapes)) > self._most:
            raise CannotGenerate(f"inputs of {entries} entries are more than time and memory allow ({self._most})")
        random = np.random.default_rng([self._seed, DISTRIBUTIONS.index(distribution), salt])
        feed = {
            port.name: _array(random, port.elem_type, tuple(shapes[port.name]), distribution, self._ranges[port.name])
            for port in self._ports
        }
        return Sample(distribution, feed)

    def _guesses(self, count: int) -> Iterator[tuple[int, ...]]:
        if count <= 2:
            yield from ((guess,) * count for guess in _GUESSES[: 1 if not count else None])
            yield from ((guess,) for guess in _LONG if count == 1)
            yield from itertools.permutations(_GUESSES[:5], count) if count == 2 else ()
        else:
            yield from ((guess,) * count for guess in _GUESSES)

    def _sized(self, sizes: Mapping[str, int]) -> dict[str, tuple[int, ...]]:
        return {
            name: tuple(sizes[dim] if isinstance(dim, str) else dim for dim in shape)
            for name, shape in self._given.items()
        }


def _entries(shapes: Mapping[str, Sequence[int]]) -> int:
    return sum(map(math.prod, shapes.values()))


def _filled(port: Port) -> tuple[int | str, ...]:
    """The shape of an input, every axis of unknown size under a name."""
    shape = port.shape if port.shape is not None else ("batch?", 3, None, None)
    return tuple(f"{port.name}.{axis}" if dim is None else dim for axis, dim in enumerate(shape))


def _array(
    random: np.random.Generator, elem_type: int, shape: tuple[int, ...], distribution: str, choices: int | None
) -> Array:
    if elem_type == onnx.TensorProto.STRING:
        return np.array([f"word{number}" for number in random.integers(0, 50, int(np.prod(shape)))]).reshape(shape)
    dtype = np.dtype(onnx.helper.tensor_dtype_to_np_dtype(elem_type))
    if dtype == np.bool_:
        return random.integers(0, 2, shape).astype(bool)
    if dtype.kind in "iu":
        return _integers(random, dtype, shape, distribution, choices)
    return floats(random, shape, distribution, large=1e2 if dtype.itemsize == 2 else 1e3).astype(dtype)


def _integers(
    random: np.random.Generator, dtype: np.dtype[Any], shape: tuple[int, ...], distribution: str, choices: int | None
) -> Array:
    if choices is None:
        choices = 256 if dtype.itemsize == 1 and dtype.kind == "u" else 2
    if distribution == "constant":
        return np.full(shape, min(1, choices - 1), dtype)
    return random.integers(0, max(1, choices), shape).astype(dtype)


def floats(random: np.random.Generator, shape: tuple[int, ...], distribution: str, large: float) -> Array:
    """Floating-point values of one of ``DISTRIBUTIONS``."""
    if distribution == "uniform":
        return random.uniform(0.0, 1.0, shape)
    if distribution == "constant":
        return np.full(shape, 0.5)
    values = random.standard_normal(shape)
    if distribution == "spikes":
        return np.where(random.random(shape) < 0.02, 10 * values, 0.0)
    return np.asarray(values * large if distribution == "large" else values)
