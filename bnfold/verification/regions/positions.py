"""Fewer positions for regions that do the same at each of them.

Where no operator asks for a place or a size, and no constant differs along an axis, a region computes at 256 positions
what it computes at 3,000. Windows need enough to meet all of themselves, and both ends. So every axis of a value is
followed back to the axes of the border that it comes from.
"""

from __future__ import annotations

import itertools
import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence

from bnfold.graph import Op, Value
from bnfold.model_io.tensors import STANDARD_DOMAINS
from bnfold.verification.float64.gaussian import GAUSSIAN
from bnfold.verification.float64.kernels import is_training
from bnfold.verification.regions.hints import MOVING
from bnfold.verification.regions.numbering import Number
from bnfold.verification.regions.regions import Region

Shape = tuple[int, ...]
Axis = int | None
"""Axes that are the same have the same number; one of a single place has none."""

EACH = frozenset(
    {
        *("Add", "Sub", "Mul", "Div", "Pow", "Neg", "Abs", "Sqrt", "Reciprocal", "Exp", "Log", "Identity", "Cast"),
        *("Relu", "LeakyRelu", "PRelu", "Elu", "Selu", "Celu", "Clip", "Sigmoid", "HardSigmoid", "HardSwish", "Tanh"),
        *("Softplus", "Softsign", "Mish", *GAUSSIAN),
    }
)
"""What works on numbers one by one."""

_FIXED = 0  # of which every place counts
_ENOUGH = 256  # positions, along all axes together
_BROADCASTS = 7  # from this opset of ONNX on axes are counted from the last


class _Varies(Exception):
    """What a region does depends on the place, or that cannot be told."""


class _Axes:
    """The axes of the values at a border, and which of them are the same."""

    def __init__(self, shapes: Mapping[Number, Shape]) -> None:
        self._same = [_FIXED]
        self._sizes: dict[int, int] = {}
        self.border = {number: [self._new(size) for size in shape] for number, shape in shapes.items()}
        for axes in self.border.values():
            self.joined([_FIXED, *axes[:1]])  # the first one counts samples

    def _new(self, size: int) -> Axis:
        if size == 1:
            return None
        self._same.append(len(self._same))
        self._sizes[self._same[-1]] = size
        return self._same[-1]

    def _first(self, axis: int) -> int:
        while self._same[axis] != axis:
            axis = self._same[axis]
        return axis

    def joined(self, axes: Iterable[Axis]) -> Axis:
        """Some axes, which are the same from here on."""
        firsts = {self._first(axis) for axis in axes if axis is not None}
        for axis in firsts:
            self._same[axis] = min(firsts)
        return min(firsts, default=None)

    def broadcast(self, *several: Sequence[Axis]) -> list[Axis]:
        """Those of what numpy makes of several values."""
        from_last = itertools.zip_longest(*(reversed(axes) for axes in several))
        return [self.joined(along) for along in from_last][::-1]

    def free(self) -> dict[int, int]:
        """Axes of which one place is like the other, with their sizes."""
        groups: dict[int, set[int]] = defaultdict(set)
        for axis, size in self._sizes.items():
            groups[self._first(axis)].add(size)
        return {axis: max(sizes) for axis, sizes in groups.items() if axis != _FIXED and len(sizes) == 1}

    def reduced(self, number: Number, sizes: Mapping[int, int], shape: Shape) -> Shape:
        """The shape of a value at the border with some axes of other sizes."""
        axes = self.border[number]
        return tuple(
            size if axis is None else sizes.get(self._first(axis), size) for axis, size in zip(axes, shape, strict=True)
        )


def fewer(left: Region, right: Region, shapes: Mapping[Number, Shape]) -> dict[Number, Shape]:
    """The shapes of the values at a border, with no more positions than it takes to tell two regions apart.

    Args:
        left: The region of BEFORE.
        right: The region of AFTER.
        shapes: The shapes.
    """
    axes = _Axes(shapes)
    moving = [[op for op in region.ops if op.type in MOVING] for region in (left, right)]
    try:
        for region in (left, right):
            _follow(region, axes)
        least = max(map(_reach, moving))
    except _Varies:
        return dict(shapes)
    if not (free := axes.free()):
        return dict(shapes)
    least = max(least, math.ceil(_ENOUGH ** (1 / len(free))))
    step = math.lcm(*map(_stride, moving))  # by which sizes may differ that leave the same over
    few = {axis: min(size, size - (size - least) // step * step) for axis, size in free.items()}
    return {number: axes.reduced(number, few, shape) for number, shape in shapes.items()}


def _follow(region: Region, axes: _Axes) -> None:
    """Finds out which axes of the border are the same, and of which every place counts.

    Raises:
        _Varies: That cannot be told.
    """
    known: dict[Value | None, list[Axis]] = {value: axes.border[number] for value, number in region.border.items()}
    for op in region.ops:
        if op.type != "Constant":
            rule = _RULES.get(op.type)
            if rule is None or op.outputs[0] is None or (op.node.domain in STANDARD_DOMAINS and op.opset < _BROADCASTS):
                raise _Varies
            reads = [known[value] if value in known else _of_constant(value) for value in op.inputs]
            known[op.outputs[0]] = rule(op, axes, reads)


def _of_constant(value: Value | None) -> list[Axis]:
    """Along which it may hold several numbers."""
    if value is None:
        return []
    tensor = value.tensor if value.producer is None else value.producer.attribute("value")
    if tensor is None:
        raise _Varies
    return [None if size == 1 else _FIXED for size in tensor.dims]


_Reads = Sequence[list[Axis]]


def _each(op: Op, axes: _Axes, reads: _Reads) -> list[Axis]:
    """Of numbers, one by one."""
    del op
    return axes.broadcast(*reads)


def _moved(op: Op, axes: _Axes, reads: _Reads) -> list[Axis]:
    """Along the axes behind the second, of which every place counts; what is added at the end has them, too."""
    if op.attribute("output_shape"):
        raise _Varies
    x, *others = reads
    axes.joined([_FIXED, x[1], *(axis for other in others[:2] for axis in other)])
    return axes.broadcast([x[0], _FIXED, *x[2:]], *others[2:])


def _normalised(op: Op, axes: _Axes, reads: _Reads) -> list[Axis]:
    """Channel by channel."""
    if is_training(op):
        raise _Varies
    axes.joined([_FIXED, *reads[0][1:2]])
    return reads[0]


def _along_last(op: Op, axes: _Axes, reads: _Reads) -> list[Axis]:
    """Of all numbers along the last axis."""
    if op.attribute("axis", -1) != -1 or (op.type == "Softmax" and op.opset < 13):
        raise _Varies
    axes.joined([_FIXED, *reads[0][-1:]])
    return axes.broadcast(*reads)


def _product(op: Op, axes: _Axes, reads: _Reads) -> list[Axis]:
    """Of all numbers along the last axis of one and the one before the last of the other."""
    del op
    a, b = reads
    if min(len(a), len(b)) < 2:
        raise _Varies
    axes.joined([_FIXED, a[-1], b[-2]])
    return [*axes.broadcast(a[:-2], b[:-2]), a[-2], b[-1]]


def _concatenated(op: Op, axes: _Axes, reads: _Reads) -> list[Axis]:
    place = op.attribute("axis") % len(reads[0])
    axes.joined([_FIXED, *(each[place] for each in reads)])
    return axes.broadcast(*([*each[:place], _FIXED, *each[place + 1 :]] for each in reads))


def _transposed(op: Op, axes: _Axes, reads: _Reads) -> list[Axis]:
    del axes
    return [reads[0][place] for place in op.attribute("perm") or range(len(reads[0]))[::-1]]


def _unsqueezed(op: Op, axes: _Axes, reads: _Reads) -> list[Axis]:
    del axes
    places = _places(op)
    rest, rank = iter(reads[0]), len(reads[0]) + len(places)
    new = {place % rank for place in places}
    return [None if place in new else next(rest) for place in range(rank)]


def _squeezed(op: Op, axes: _Axes, reads: _Reads) -> list[Axis]:
    del axes
    gone = {place % len(reads[0]) for place in _places(op)}
    return [axis for place, axis in enumerate(reads[0]) if place not in gone]


def _places(op: Op) -> list[int]:
    """The axes that an operator names."""
    second = op.input(1)
    known = op.graph.constant(second) if second is not None else None
    places = op.attribute("axes") if known is None else known.array().ravel().tolist()
    if not places:
        raise _Varies
    return [int(place) for place in places]


_RULES: dict[str, Callable[[Op, _Axes, _Reads], list[Axis]]] = {
    **dict.fromkeys(EACH, _each),
    **dict.fromkeys(MOVING, _moved),
    **dict.fromkeys(("Softmax", "LayerNormalization", "RMSNormalization", "SimplifiedLayerNormalization"), _along_last),
    "BatchNormalization": _normalised,
    "MatMul": _product,
    "Concat": _concatenated,
    "Transpose": _transposed,
    "Unsqueeze": _unsqueezed,
    "Squeeze": _squeezed,
}


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
