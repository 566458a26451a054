"""What a fold is asked for."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from operator import index
from typing import TypedDict

from bnfold.folding.leftover import Leftover

_PERCENTAGE = re.compile(r"\d+(\.\d+)?%")


class FoldArguments(TypedDict, total=False):
    """The attributes of `FoldOptions` as keyword arguments, which every verb that folds takes."""

    keep: Sequence[str]
    assume_constant: bool
    leftover: Leftover | str
    max_growth: int | str | None
    inside_patterns: bool
    fold_norms: bool
    shapes: Mapping[str, Sequence[int]]
    dims: Mapping[str, int]


@dataclass(frozen=True)
class FoldOptions:
    """What a fold is asked for.

    Attributes:
        keep: A list of names of nodes that must stay as they are; `*`, `?` and `[…]` match as in file names. A node
            without a name goes by that of its first output, as in reports.
        assume_constant: Fold also what a caller could override: initializers that are inputs of the graph too.
        leftover: What to do with a BatchNormalization that stays: `keep` it, or put a Mul and an Add (`affine`) or a
            depthwise Conv (`conv`) in its place.
        max_growth: How much larger the model may become, since a weight that several operators share is copied for
            those that change: a number of bytes, or a percentage of its size such as `10%`; None for any amount.
        inside_patterns: Fold also affines that are part of what runtimes compute as one operator, such as a Gelu that
            is spelt out.
        fold_norms: Fold scale and bias of a LayerNormalization, RMSNormalization, InstanceNormalization or
            GroupNormalization into all that reads it; the norm stays. The Mul and Add of one that is spelt out go.
        shapes: Shapes of inputs, by name, where the model leaves them open. What folds for these sizes alone says so
            (`Entry.assumes`); the folded model takes other sizes as before, and computes something else for them.
        dims: The same for sizes of named dimensions.
    """

    keep: Sequence[str] = ()
    assume_constant: bool = False
    leftover: Leftover | str = Leftover.KEEP
    max_growth: int | str | None = "10%"
    inside_patterns: bool = False
    fold_norms: bool = False
    shapes: Mapping[str, Sequence[int]] = field(default_factory=dict)
    dims: Mapping[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Checks the options.

        Raises:
            TypeError: `keep` is one text, which would be taken for patterns of a single letter, or a size is no
                integer.
            ValueError: There is no such leftover, or the growth is neither a number of bytes nor a percentage.
        """
        if isinstance(self.keep, str | bytes):
            raise TypeError(f"keep is a list of patterns, not {type(self.keep).__name__}: [{self.keep!r}]")
        object.__setattr__(self, "keep", tuple(self.keep))  # it may be something that can be read only once
        shapes = {name: tuple(map(index, shape)) for name, shape in self.shapes.items()}
        object.__setattr__(self, "shapes", shapes)
        object.__setattr__(self, "dims", {name: index(size) for name, size in self.dims.items()})
        object.__setattr__(self, "leftover", Leftover(self.leftover))
        growth = self.max_growth
        is_good = _PERCENTAGE.fullmatch(growth) if isinstance(growth, str) else growth is None or growth >= 0
        if not is_good:
            raise ValueError(f"a growth is a number of bytes or a percentage such as 10%, not {growth!r}")

    def growth_of(self, size: int) -> float:
        """How many bytes a model of that size may grow by."""
        if self.max_growth is None:
            return float("inf")
        if isinstance(self.max_growth, int):
            return self.max_growth
        return max(size * float(self.max_growth[:-1]) / 100, SMALL_TENSOR)


SMALL_TENSOR = 4096
"""So many bytes count for nothing, whatever the size of the model."""
