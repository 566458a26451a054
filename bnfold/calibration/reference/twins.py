"""Which layer of the reference is which: by names, else by order where both models line up, and never by a guess.

A pair has to be related: of one kind, with as many channels, and with weights that have something in common. What
rounding, pruning and training do to weights leaves their direction, and their length where it leaves the direction
well; weights that have the same direction in a channel but not the length are of another scaling, whose statistics
are others too (a scale that was folded across an activation, or equalized between layers).
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import prod
from typing import NamedTuple

import numpy as np

from bnfold.calibration.reference.layers import Layer

_LEAST_COSINE = 0.2  # of weights that are of one origin; two bits leave 0.4 and more
_SAME_DIRECTION = 0.9
_COUNTED = re.compile(r"\d$")  # such names go on to other layers when a model is exported anew
_MOST_SCALED = 2.0


@dataclass(frozen=True, eq=False)
class Pair:
    """A layer and its twin.

    Attributes:
        layer: of the model.
        twin: of the reference.
        is_named: whether they were found by a name; else by their order.
        depth: behind how many of its steps the layer is compared.
        twin_depth: the same of the twin.
    """

    layer: Layer
    twin: Layer
    is_named: bool
    depth: int
    twin_depth: int

    @property
    def is_folded(self) -> bool:
        """Whether one of the two has steps that the other has not."""
        return [s.op.type for s in self.layer.steps] != [s.op.type for s in self.twin.steps]


class Left(NamedTuple):
    """A layer without a twin, and why."""

    layer: Layer
    why: str


def pairs(model: Sequence[Layer], reference: Sequence[Layer]) -> tuple[list[Pair], list[Left]]:
    """The layers of a model with their twins, in the order of the model, and those that have none."""
    found: dict[Layer, Pair | str] = {}
    named = _named(model, reference)
    for layer in model:
        if layer in named:
            found[layer] = _only(layer, named[layer])
    claims = _claims(found)
    for layer, pair in found.items():
        if isinstance(pair, Pair) and claims[pair.twin] > 1:
            found[layer] = f"and another layer both have the names of {pair.twin.name}"
    taken = {pair.twin for pair in found.values() if isinstance(pair, Pair)}
    rest = [layer for layer in model if layer not in found]
    found |= _in_order(rest, [twin for twin in reference if twin not in taken])
    result = [(layer, found[layer]) for layer in model]
    return [pair for _, pair in result if isinstance(pair, Pair)], [
        Left(layer, why) for layer, why in result if isinstance(why, str)
    ]


def _claims(found: dict[Layer, Pair | str]) -> dict[Layer, int]:
    counts: dict[Layer, int] = defaultdict(int)
    for pair in found.values():
        if isinstance(pair, Pair):
            counts[pair.twin] += 1
    return counts


def _named(model: Sequence[Layer], reference: Sequence[Layer]) -> dict[Layer, list[Layer]]:
    """For each layer those of the reference that share a name with it which is no other's."""
    ours, theirs = _by_name(model), _by_name(reference)
    result: dict[Layer, list[Layer]] = {}
    for name, holders in ours.items():
        twins = theirs.get(name, [])
        if len(holders) == len(twins) == 1:
            candidates = result.setdefault(holders[0], [])
            candidates += [twin for twin in twins if twin not in candidates]
    return result


def _by_name(layers: Sequence[Layer]) -> dict[tuple[str, str], list[Layer]]:
    result: dict[tuple[str, str], list[Layer]] = defaultdict(list)
    for layer in layers:
        for name in layer.names():
            result[name].append(layer)
    return result


def _only(layer: Layer, twins: list[Layer]) -> Pair | str:
    """The pair with the one of these that is related; why there is none, or not one."""
    answers = [_pair(layer, twin, is_named=True) for twin in twins]
    good = [answer for answer in answers if isinstance(answer, Pair)]
    if len(good) == 1:
        return good[0]
    if good:
        return f"has names of several layers of the reference: {', '.join(pair.twin.name for pair in good)}"
    return answers[0]


def _in_order(model: list[Layer], reference: list[Layer]) -> dict[Layer, Pair | str]:
    """Pairs of those that nothing is named like, if all of them line up."""
    if [_outline(layer) for layer in model] != [_outline(layer) for layer in reference]:
        return dict.fromkeys(model, "has no layer in the reference that is named like it")
    answers = [_pair(layer, twin, is_named=False) for layer, twin in zip(model, reference, strict=True)]
    if all(isinstance(answer, Pair) for answer in answers):
        return dict(zip(model, answers, strict=True))
    why = next(answer for answer in answers if isinstance(answer, str))
    return {
        layer: answer if isinstance(answer, str) else f"has no name in the reference, and by order another one {why}"
        for layer, answer in zip(model, answers, strict=True)
    }


def _outline(layer: Layer) -> tuple[object, ...]:
    return layer.form.kind, layer.channels, prod(layer.shape)


def _pair(layer: Layer, twin: Layer, *, is_named: bool) -> Pair | str:
    """The two as a pair, or why they are none."""
    if layer.form.kind is not twin.form.kind:
        return f"is a {layer.form.kind.value}, and its twin {twin.name} a {twin.form.kind.value}"
    if layer.channels != twin.channels:
        return f"has {layer.channels} channels, and its twin {twin.name} {twin.channels}"
    depths = _depths(layer, twin)
    if depths is None:
        last = layer.steps[-1].op.type
        return f"has a {last} behind it that its twin {twin.name} has not, and no bias behind that"
    ours, theirs = layer.weights(depths[0]), twin.weights(depths[1])
    if ours.shape != theirs.shape:  # inputs were pruned: the names have to do, and one that is but counted does not
        shared = {name for _, name in {*layer.names()} & {*twin.names()}}
        if all(map(_COUNTED.search, shared)):
            return f"has weights of another shape than its twin {twin.name}, and no name that is more than a number"
    elif unrelated := _unrelated(ours, theirs):
        return f"has weights that are not those of its twin {twin.name}: {unrelated}"
    return Pair(layer, twin, is_named, *depths)


def _depths(layer: Layer, twin: Layer) -> tuple[int, int] | None:
    """Behind how many steps the two are the same value, and the layer has a bias."""
    if [step.op.type for step in layer.steps] != [step.op.type for step in twin.steps]:
        # one is folded, perhaps: then what is behind all of them is the same
        has_bias = not layer.steps or layer.steps[-1].can_shift
        return (len(layer.steps), len(twin.steps)) if has_bias else None
    depth = len(layer.steps)
    while depth and not layer.steps[depth - 1].can_shift:
        depth -= 1
    return depth, depth


def _unrelated(ours: np.ndarray, theirs: np.ndarray) -> str:
    """What shows that weights `[C, …]` are not of one origin; empty if nothing does."""
    dots, squares, others = (np.einsum("ij,ij->i", *pair) for pair in ((ours, theirs), (ours, ours), (theirs, theirs)))
    if not (squares.sum() and others.sum()):
        return ""
    cosine = dots.sum() / np.sqrt(squares.sum() * others.sum())
    if not cosine >= _LEAST_COSINE:
        return f"their cosine is {cosine:.2f}"
    return next(_scaled(dots, squares, others), "")


def _scaled(dots: np.ndarray, squares: np.ndarray, others: np.ndarray) -> Iterator[str]:
    alike = dots > _SAME_DIRECTION * np.sqrt(squares * others)
    for channel in np.flatnonzero(alike & (others > 0)):
        ratio = np.sqrt(squares[channel] / others[channel])
        if not 1 / _MOST_SCALED <= ratio <= _MOST_SCALED:
            yield f"in channel {channel} they are {ratio:.2g} times as large"
