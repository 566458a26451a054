"""What travels to the process that runs ONNX Runtime: descriptions, never arrays of activations or weights."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import numpy.typing as npt


@dataclass(frozen=True)
class Reading:
    """Where a graph puts the statistics of one value.

    Attributes:
        target: the number of the BatchNormalization.
        shape: the output that holds the shape of the value, `[N, C, …]`.
        mean: the output that holds means: `[N * C]` or `[N, C]` one for each sample, or `[C]` of the batch.
        var: likewise biased variances; "" where each mean is of a single value, so that they are 0.
        by_sample: whether there is a mean for each sample.
    """

    target: int
    shape: str
    mean: str
    var: str
    by_sample: bool


@dataclass(frozen=True)
class Program:
    """A graph on disk, and what to do with its inputs and outputs.

    Attributes:
        path: the ONNX file.
        feeds: inputs that come from the data.
        reads: inputs that come from the activation cache.
        keeps: outputs that go to the activation cache.
        frees: cached values that nobody reads after this.
        readings: outputs that are statistics.
        describes: outputs of which only type and shape are wanted.
        trains: whether it holds training-mode nodes, for which this ONNX Runtime has to be checked.
        providers: execution providers, in the order of preference.
    """

    path: str
    feeds: tuple[str, ...] = ()
    reads: tuple[str, ...] = ()
    keeps: tuple[str, ...] = ()
    frees: tuple[str, ...] = ()
    readings: tuple[Reading, ...] = ()
    describes: tuple[str, ...] = ()
    trains: bool = False
    providers: tuple[str, ...] = ("CPUExecutionProvider",)


@dataclass(frozen=True)
class Batch:
    """Some samples, in `.npy` files.

    Attributes:
        number: of the batch; names its activations in the cache.
        files: one for each input, by name.
        rows: how many samples.
    """

    number: int
    files: dict[str, str] = field(hash=False)
    rows: int


@dataclass(frozen=True)
class Cache:
    """Where activations wait for the next segment.

    Attributes:
        folder: for files, one per batch and value.
        memory: bytes that may stay in the memory of the process; 0 where another process may need them.
    """

    folder: str
    memory: int


@dataclass(frozen=True, eq=False)
class Measured:
    """Statistics of one value in one batch; `mean` and `var` are `[parts, C]`, of `count` values per channel each."""

    target: int
    count: int
    mean: npt.NDArray[Any]
    var: npt.NDArray[Any]


@dataclass(frozen=True)
class Described:
    """The type and shape of a value in one batch."""

    name: str
    kind: str  # of its elements, by ONNX Runtime's name: "float"
    shape: tuple[int, ...]

    @property
    def can_wait(self) -> bool:
        """Whether it can be kept for another program: whether numpy has the type."""
        return self.kind in BYTES


@dataclass(frozen=True, eq=False)
class Outcome:
    """What a program made of one batch."""

    batch: int
    rows: int
    measured: tuple[Measured, ...] = ()
    described: tuple[Described, ...] = ()
    spilled: int = 0  # bytes of activations that went to files


BYTES = {
    "float16": 2, "float": 4, "double": 8, "bool": 1, "int8": 1, "int16": 2, "int32": 4, "int64": 8,
    "uint8": 1, "uint16": 2, "uint32": 4, "uint64": 8,
}  # fmt: skip
"""Bytes of an element of the types that numpy has, by ONNX Runtime's names."""


def nbytes(described: Described) -> int:
    """The size of a value."""
    return math.prod(described.shape) * BYTES.get(described.kind, 8)
