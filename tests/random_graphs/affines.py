"""Affine nodes: BatchNormalizations, and Mul, Div, Add, Sub by constants of every broadcast form."""

from __future__ import annotations

import numpy as np

from random_graphs.builder import Array, Attributes, Builder, Tensor, Unfit
from random_graphs.constants import constant


def numbers(b: Builder, shape: tuple[int, ...], size: float = 1.0) -> Array:
    """Ordinary values; sometimes such that a narrower type holds them too."""
    values: Array = b.rng.normal(size=shape) * size
    return values.astype(np.float16).astype(np.float64) if b.chance(0.25) else values


def scales(b: Builder, shape: tuple[int, ...], *, friendly: bool) -> Array:
    """Factors: positive if friendly; else of both signs, now and then zero or tiny in places."""
    values: Array = b.rng.uniform(0.3, 2.0, shape)
    if b.chance(0.15):
        return np.full(shape, b.pick([1.0, 2.0, 0.5]))
    if b.dtype != np.float64 and b.chance(0.04):  # beyond what the type can hold, or nearly
        return values * 10 ** b.rng.uniform(-6, 4, shape)
    if friendly:
        return values
    values = values * b.rng.choice([-1.0, 1.0], shape)
    if b.chance(0.2):
        values = np.where(b.rng.random(shape) < 0.4, b.pick([0.0, 1e-3, 1e-5]), values)
    return values


def blocked(b: Builder, vector: Array, pattern: str | None = None) -> Array:
    """Sometimes the same for each block of channels, or for all of them."""
    pattern = pattern or block_pattern(b)
    size = vector.size
    if pattern == "one" and size:
        return np.full_like(vector, vector[0])
    if pattern in ("tiled", "repeated") and size and size % 4 == 0:
        block = vector[: size // 4]
        return np.tile(block, 4) if pattern == "tiled" else np.repeat(block, 4)
    return vector


def block_pattern(b: Builder) -> str:
    return str(b.pick(["free", "free", "free", "free", "tiled", "tiled", "repeated", "one"]))


def batchnorm(b: Builder, x: Tensor, *, friendly: bool | None = None) -> Tensor:
    """An inference-mode BatchNormalization; without a shift if it is a friendly one."""
    if x.rank < 2 or (x.axis != 1 and b.chance(0.8)):
        raise Unfit("the channels are elsewhere")
    friendly = b.chance(b.world.friendly) if friendly is None else friendly
    return b.node("BatchNormalization", x, *_parameters(b, x.shape[1], friendly=friendly), **_attributes(b))


def _attributes(b: Builder) -> Attributes:
    attributes: dict[str, float | int] = {}
    if b.chance(0.6):
        attributes["epsilon"] = b.pick([1e-5, 1e-3, 0.1, 0.0])
    if b.chance(0.2):
        attributes["momentum"] = 0.7
    if b.opset >= 14 and b.chance(0.2):
        attributes["training_mode"] = 0
    return attributes


def _parameters(b: Builder, channels: int, *, friendly: bool) -> list[Tensor]:
    pattern = block_pattern(b)
    zeros = np.zeros(channels)
    gamma = scales(b, (channels,), friendly=friendly)
    beta = zeros if friendly or b.chance(0.1) else numbers(b, (channels,))
    mean = zeros if friendly or b.chance(0.1) else numbers(b, (channels,))
    var = b.rng.uniform(0.4, 2.0, channels)
    named = (gamma, "gamma"), (beta, "beta"), (mean, "mean"), (var, "var")
    return [constant(b, blocked(b, array, pattern), kind) for array, kind in named]


def training_batchnorm(b: Builder, x: Tensor) -> Tensor:
    """One that normalises with the statistics of its batch: never folds."""
    if x.rank < 2 or b.opset < 14 or x.shape[0] * int(np.prod(x.shape[2:])) < 4:
        raise Unfit("no training mode")
    parameters = _parameters(b, x.shape[1], friendly=False)
    outputs = b.multi("BatchNormalization", [x, *parameters], b.pick([1, 3]), training_mode=1)
    return outputs[0].along(1)


def arithmetic(b: Builder, x: Tensor) -> Tensor:
    """Mul, Div, Add or Sub by a constant along the channels."""
    op = b.pick(["Mul", "Mul", "Div", "Add", "Add", "Sub"])
    array = _channel_array(b, x, op)
    side = constant(b, array, "factor" if op in ("Mul", "Div") else "addend")
    first = op != "Div" and b.chance(0.3)
    return b.node(op, side, x, along=_axis(x, array)) if first else b.node(op, x, side, along=_axis(x, array))


def _channel_array(b: Builder, x: Tensor, op: str) -> Array:
    friendly = b.chance(b.world.friendly)
    if b.chance(0.15):
        shape: tuple[int, ...] = b.pick([(), (1,), (1,) * max(x.rank, 1)])
    else:
        shape = tuple(size if axis == x.axis else 1 for axis, size in enumerate(x.shape))
        if b.chance(0.6):  # leading ones may be left out
            shape = shape[x.axis :]
        if b.chance(0.05):  # and there may be too many
            shape = (1, *shape) if len(shape) == x.rank else shape
    size = int(np.prod(shape))
    if op in ("Add", "Sub"):
        if b.chance(0.04):
            return np.zeros(shape)
        return blocked(b, numbers(b, (size,))).reshape(shape)
    values = blocked(b, scales(b, (size,), friendly=friendly))
    return (np.where(values == 0, 1.0, values) if op == "Div" else values).reshape(shape)


def _axis(x: Tensor, array: Array) -> int:
    return x.axis + max(0, array.ndim - x.rank)


def odd_arithmetic(b: Builder, x: Tensor) -> Tensor:
    """A constant that varies along another axis, along several, or makes the data larger."""
    op = b.pick(["Mul", "Add", "Sub"])
    shape = [size if b.chance(0.5) else 1 for size in x.shape]
    if b.chance(0.3):
        ones = [axis for axis, size in enumerate(x.shape) if size == 1]
        if ones and b.chance(0.7):
            shape[b.pick(ones)] = 2
        else:
            shape = [2, *shape]
    array = scales(b, tuple(shape), friendly=True)
    return b.node(op, x, constant(b, array, "odd"), along=x.axis + len(shape) - x.rank)


def normalised_input(b: Builder, x: Tensor) -> Tensor:
    """(x - mean) / std"""
    shape = tuple(size if axis == x.axis else 1 for axis, size in enumerate(x.shape))
    centred = b.node("Sub", x, constant(b, numbers(b, shape), "mean_"))
    return b.node("Div", centred, constant(b, b.rng.uniform(0.5, 2, shape), "std"))


def uniform(b: Builder, x: Tensor) -> Tensor:
    """One positive number for all."""
    number = b.pick([0.5, 2.0, 4.0, b.rng.uniform(0.4, 2)])
    side = constant(b, np.full(b.pick([(), (1,)]), number), "factor")
    return b.node(b.pick(["Mul", "Div"]), x, side)


def integer_arithmetic(b: Builder, x: Tensor) -> Tensor:
    """Integers do not divide as numbers do: x + Cast(int(x) * 3 / 2)"""
    whole = b.node("Cast", x, to=7)
    product = b.node("Mul", whole, b.store(np.array(b.integer(-3, 3), np.int64)))
    total = b.node("Add", product, b.store(np.array(b.integer(-3, 3), np.int64)))
    half = b.node("Div", total, b.store(np.array(2, np.int64)))
    back = b.node("Cast", half, to={"float16": 10, "float32": 1, "float64": 11}[b.dtype.name])
    return b.node("Add", x, back)


AFFINES = [batchnorm] * 6 + [arithmetic] * 5 + [normalised_input, odd_arithmetic, uniform]
RARE = [training_batchnorm, integer_arithmetic]
