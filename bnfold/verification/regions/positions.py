"""Fewer positions for regions that do the same at each of them.

Where no operator asks for a place or a size, and no constant differs along an axis, a region computes at 256 positions
what it computes at 3,000. Windows need enough to meet all of themselves, and both ends.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence

from bnfold.graph import Op, Value
from bnfold.model_io.tensors import STANDARD_DOMAINS
from bnfold.verification.float64.gaussian import GAUSSIAN
from bnfold.verification.float64.kernels import is_training
from bnfold.verification.regions.hints import MOVING
from bnfold.verification.regions.regions import Region

Shape = tuple[int, ...]

_ENOUGH = 256  # positions, along all axes together
_BROADCASTS = 7  # from this opset of ONNX on axes are counted from the last
_EACH = frozenset(  # of numbers, one by one
    {
        *("Add", "Sub", "Mul", "Div", "Pow", "Neg", "Abs", "Sqrt", "Reciprocal", "Exp", "Log"),
        *("Identity", "Cast"),
        *("Relu", "LeakyRelu", "PRelu", "Elu", "Selu", "Celu", "Clip", "Sigmoid", "HardSigmoid", "HardSwish", "Tanh"),
        *("Softplus", "Softsign", "Mish", *GAUSSIAN),
    }
)
_ALONG_LAST = frozenset({"LayerNormalization", "RMSNormalization", "SimplifiedLayerNormalization", "Softmax"})


class _Varies(Exception):
    """What a region does depends on the place, or that cannot be told."""


def fewer(left: Region, right: Region, shapes: Sequence[Shape]) -> tuple[Shape, ...]:
    """The shapes of the values at a border, with no more positions than it takes to tell two regions apart.

    Args:
        left: The region of BEFORE.
        right: The region of AFTER.
        shapes: The shapes.
    """
    rank = max(map(len, shapes), default=0)
    try:
        fixed = {-rank, *_fixed(left, rank), *_fixed(right, rank)}  # the first axis counts samples
        moving = [[op for op in region.ops if op.type in MOVING] for region in (left, right)]
        least = max(map(_reach, moving))
    except _Varies:
        return tuple(shapes)
    sizes = {axis: {shape[axis] for shape in shapes if -axis <= len(shape)} - {1} for axis in range(-rank, 0)}
    free = {axis: max(found) for axis, found in sizes.items() if len(found) == 1 and axis not in fixed}
    if not free:
        return tuple(shapes)
    least = max(least, math.ceil(_ENOUGH ** (1 / len(free))))
    step = math.lcm(*map(_stride, moving))  # by which sizes may differ that leave the same over
    few = {axis: min(size, size - (size - least) // step * step) for axis, size in free.items()}
    return tuple(
        tuple(few.get(axis, size) if size != 1 else 1 for axis, size in zip(range(-len(shape), 0), shape, strict=True))
        for shape in shapes
    )


def _fixed(region: Region, rank: int) -> Iterator[int]:
    """The axes, counted from the last, along which it is not the same everywhere.

    Raises:
        _Varies: It is so along none, perhaps.
    """
    constants = frozenset(region.constants)
    for op in region.ops:
        fixed = [axis for value in op.inputs if value in constants for axis in _varying(value)]
        shape = None if (first := op.input(0)) is None else op.graph.shape(first)
        is_old = op.node.domain in STANDARD_DOMAINS and op.opset < _BROADCASTS
        if is_old or op.attribute("output_shape"):
            raise _Varies
        if op.type in _EACH:
            yield from fixed
        elif _is_along_last(op):
            yield from (-1, *fixed)
        elif op.type == "MatMul" and op.input(1) in constants and _is_matrix(op.graph.shape(op.data(1))):
            yield -1
        elif shape is not None and len(shape) == rank and (op.type in MOVING or _keeps_places(op)):
            yield 1 - rank
            yield from fixed if op.type == "Concat" else ()
        elif op.type != "Constant":
            raise _Varies


def _is_matrix(shape: Sequence[object] | None) -> bool:
    """Whether it is one, and not several, nor a vector, by which an axis would go."""
    return shape is not None and len(shape) > 1 and set(shape[:-2]) <= {1}


def _is_along_last(op: Op) -> bool:
    return op.type in _ALONG_LAST and (op.opset >= 13 or op.type != "Softmax") and op.attribute("axis", -1) == -1


def _keeps_places(op: Op) -> bool:
    """Whether it works on channels, at each place alike."""
    return op.attribute("axis") == 1 if op.type == "Concat" else op.type == "BatchNormalization" and not is_training(op)


def _varying(value: Value | None) -> Sequence[int]:
    """The axes, counted from the last, along which a constant has several numbers."""
    if value is None:
        return ()
    tensor = value.tensor if value.producer is None else value.producer.attribute("value")
    if tensor is None:
        raise _Varies
    return [place - len(tensor.dims) for place, size in enumerate(tensor.dims) if size != 1]


def _stride(moving: Iterable[Op]) -> int:
    return math.prod(math.lcm(*op.attribute("strides") or [1]) for op in moving)


def _reach(moving: Sequence[Op]) -> int:
    """Positions with which every window meets all of itself, and both ends."""
    reach = 1
    for op in reversed(moving):
        kernel = op.attribute("kernel_shape") or (op.graph.shape(op.data(1)) or (None, None, None))[2:]
        if not all(isinstance(size, int) for size in kernel):
            raise _Varies
        dilation, stride = (max(op.attribute(name) or [1]) for name in ("dilations", "strides"))
        reach = reach * stride + dilation * (max(kernel) - 1)
    return 2 * reach + 3
