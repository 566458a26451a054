"""Small models crowded with affines that want the same operators: where the order of folds could matter."""

from __future__ import annotations

from contextlib import suppress

import numpy as np

from random_graphs.absorbers import conv
from random_graphs.affines import arithmetic, batchnorm, normalised_input
from random_graphs.branches import residual, same_conv
from random_graphs.builder import Builder, Tensor, Unfit, World
from random_graphs.generate import Case, case_of
from random_graphs.passers import average_pool, leaky_relu, max_pool, relu

MOST_NODES = 12
_LATEST = 21


def crowded_case(seed: int) -> Case:
    """The model of a seed.

    Raises:
        Unfit: it has become too large.
    """
    rng = np.random.default_rng([seed, 1])
    world = World(seed, rng, _LATEST, 10, np.dtype("float64"), 0.15, nasty_names=False, unnamed=False)
    b = Builder(world)
    b.is_plain = True
    x = b.input((1, b.pick([2, 4]), 3, 3))
    for _ in range(b.integer(2, 5)):
        with suppress(Unfit):
            x = b.first_fit(_MOTIFS, x)
    if not b.nodes or len(b.nodes) > MOST_NODES:
        raise Unfit("too large")
    return case_of(b, x)


def affine(b: Builder, x: Tensor) -> Tensor:
    """A general one: it scales, and a BatchNormalization shifts as well."""
    return batchnorm(b, x, friendly=b.chance(0.15)) if b.chance(0.5) else arithmetic(b, x)


def ends(b: Builder, x: Tensor) -> Tensor:
    """What stands behind a fork: an affine, a Conv, both, or none."""
    for motif in b.pick([[affine], [same_conv], [affine, same_conv], [same_conv, affine], [affine, affine], []]):
        x = motif(b, x)
    return x


def sum_of_branches(b: Builder, x: Tensor) -> Tensor:
    """Two or three branches, most with an affine, added and read on."""
    total = ends(b, x)
    for _ in range(b.integer(1, 2)):
        total = b.node(b.pick(["Add", "Add", "Sub"]), total, ends(b, x))
    return total


def read_twice(b: Builder, x: Tensor) -> Tensor:
    """A value with two readers; both results come out."""
    b.outputs.append(ends(b, x))
    return ends(b, x)


def concat_read_twice(b: Builder, x: Tensor) -> Tensor:
    """A Concat that two branches read."""
    y = b.node("Concat", ends(b, x), ends(b, x), axis=1)
    return read_twice(b, y) if b.chance(0.6) else y


def slices(b: Builder, x: Tensor) -> Tensor:
    """Two parts of the channels, which may overlap or leave some out, each with something behind."""
    count = x.channels
    if count < 2:
        raise Unfit("one channel")
    cuts = b.pick([(0, count // 2, count // 2, count), (0, count // 2 + 1, count // 2, count), (0, 1, 1, count)])
    parts = [b.node("Slice", x, *map(b.integers, ([cuts[k]], [cuts[k + 1]], [1]))) for k in (0, 2)]
    return b.node("Concat", *(ends(b, part) for part in parts), axis=1)


def halves(b: Builder, x: Tensor) -> Tensor:
    """A Split whose parts have affines of their own."""
    if x.channels % 2:
        raise Unfit("odd")
    done = [ends(b, part.along(1)) for part in b.multi("Split", [x], 2, axis=1, num_outputs=2)]
    return b.node("Concat", *done, axis=1) if b.chance(0.6) else b.node("Add", *done)


def shared_weight(b: Builder, x: Tensor) -> Tensor:
    """Two Convs with one weight, each with affines of its own."""
    c = x.channels
    kernel = b.store(b.rng.normal(size=(c, c, 1, 1)), "shared")
    branches = [b.node("Conv", affine(b, x) if b.chance(0.4) else x, kernel) for _ in range(2)]
    return b.node("Add", *(affine(b, branch) if b.chance(0.6) else branch for branch in branches))


def tall_conv(b: Builder, x: Tensor) -> Tensor:
    """Any Conv, padded or not."""
    return conv(b, x, keeps=b.chance(0.5), out=b.pick([2, 4]))


_MOTIFS = [affine] * 4 + [sum_of_branches] * 2 + [concat_read_twice, read_twice, slices, halves, shared_weight]
_MOTIFS += [residual, normalised_input, tall_conv, relu, relu, leaky_relu, max_pool, average_pool]
