"""Sizes of a model's inputs where it leaves them open: those that a user states, and others to try."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace

from bnfold.graph.ports import Port
from bnfold.model_io import ModelError

MOST_ENTRIES = 2**36
"""Of an input; a quarter of a terabyte."""


def odd_size(usual: int) -> int:
    """A size in the place of one that comes to mind: an odd one, which no tool knows by heart."""
    return max(3, usual // 5 | 1)


def sized(ports: Sequence[Port], shapes: Mapping[str, Sequence[int]], dims: Mapping[str, int]) -> list[Port]:
    """The inputs with the sizes that the user gave.

    Args:
        ports: The inputs of a model.
        shapes: Shapes by input.
        dims: Sizes by the names of dimensions.

    Raises:
        ModelError: A shape or size belongs to nothing, or contradicts the model or another one.
    """
    names = {port.name for port in ports}
    if wrong := [name for name in shapes if name not in names]:
        raise ModelError(f"there is no input {wrong[0]!r}; the inputs are {', '.join(map(repr, sorted(names)))}")
    symbols = {dim for port in ports for dim in port.shape or () if isinstance(dim, str)}
    if wrong := [name for name in dims if name not in symbols]:
        raise ModelError(f"no input has a dimension {wrong[0]!r}; there are {', '.join(sorted(symbols)) or 'none'}")
    return [_sized(port, shapes.get(port.name), dims) for port in ports]


def _sized(port: Port, given: Sequence[int] | None, dims: Mapping[str, int]) -> Port:
    known = port
    if port.shape is not None:
        known = replace(port, shape=tuple(dims.get(dim, dim) if isinstance(dim, str) else dim for dim in port.shape))
    if given is not None:
        if port.kind != "tensor" or not known.accepts(replace(port, shape=tuple(given))):
            raise ModelError(f"input {known} cannot have the shape {','.join(map(str, given))}")
        known = replace(port, shape=tuple(given))
    sizes = [dim for dim in known.shape or () if isinstance(dim, int)]
    if sizes[:1] == [0] and known != port:
        raise ModelError(f"input {known} would hold no sample")
    if math.prod(sizes) > MOST_ENTRIES and known != port:  # of what the model declares, nothing so large is made up
        raise ModelError(f"input {known} is too large")
    return known
