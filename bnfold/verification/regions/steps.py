"""Sizes that leave another rest: what pads or cuts to a multiple does so by what is left over."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterable, Iterator, Sequence

import onnx

from bnfold.graph import Op, Value, is_float
from bnfold.model_io.protobuf import encoded
from bnfold.verification.float64.evaluate import CannotEvaluate
from bnfold.verification.regions.border import Frame
from bnfold.verification.regions.hints import MOVING, is_uniform
from bnfold.verification.regions.positions import EACH
from bnfold.verification.regions.scenes import Scene
from bnfold.verification.regions.side import Side, is_made_of_constants
from bnfold.verification.regions.sizes import MET, size_numbers, slice_steps

_WINDOWS = MOVING | {"LpPool"}
_WHOLE = frozenset({"Floor", "Ceil", "Round", "Cast"})
_SCALING = frozenset({"Cast", "Mul", "Div", "Gather", "Slice", "Squeeze", "Unsqueeze", "Reshape", "Concat"})
_HALVING = frozenset({"Resize", "Upsample"})
_KEEPING = EACH | {"BatchNormalization", "MatMul", "Gemm"}
_MOST = 32


def period(left: Side, right: Side) -> int:
    """What sizes have to differ by to leave the same rest wherever the two sides step over them, or divide them."""
    found = [list(_steps(side)) for side in (left, right)]
    by = min(_MOST, max(math.prod(step for _, step in some) for some in found))  # one may be behind the other
    is_even = is_uniform(left, right) and not any(op_type == "Mod" for op_type, _ in itertools.chain(*found))
    return 1 if by == 1 or is_even or _sizing(left) == _sizing(right) else by


def telling(
    scenes: Iterable[Scene], tried: Iterable[Scene], made: Callable[[Scene], Frame], period: int
) -> Iterator[Scene]:
    """The scenes in which some size at a border leaves a rest that it leaves in none of those that were tried."""
    met: set[tuple[int, int, int]] = set()
    for is_new, some in ((False, tried), (True, scenes)):
        for scene in some:
            try:
                rests = set(_rests(made(scene).shapes, period))
            except CannotEvaluate:
                continue
            if is_new and not rests <= met:
                yield scene
            met |= rests


def _rests(shapes: Sequence[tuple[int, ...]], period: int) -> Iterator[tuple[int, int, int]]:
    return (
        (place, axis, size % period) for place, shape in enumerate(shapes) for axis, size in enumerate(shape) if axis
    )


def _steps(side: Side) -> Iterator[tuple[str, int]]:
    """What steps over sizes or divides them, and by how much."""
    for op in side.active:
        if op.type in _WINDOWS:
            yield op.type, math.lcm(*op.attribute("strides") or [1])
        elif op.type in _HALVING:
            yield op.type, 2
        elif op.type == "Slice":
            yield from ((op.type, abs(step)) for step in slice_steps(side, op) if step)
    for op in side.compared:
        if op.type in ("Div", "Mod"):
            yield from ((op.type, int(k)) for k in size_numbers(side, op, ()) if 1 < k <= MET)
    for op in side.region.all_ops:
        if op.type in _WHOLE and _is_of_sizes(side, op):
            numbers = (k if k > 1 else 1 / k for k in size_numbers(side, op, _SCALING) if k > 0)
            yield from ((op.type, round(k)) for k in numbers if k <= MET)


def _sizing(side: Side) -> list[tuple[bytes, ...]]:
    """What may make other sizes or other places of data, with its settings."""
    found = []
    for op in side.active:
        if op.type not in _KEEPING:
            node = onnx.NodeProto(op_type=op.type, attribute=op.node.attribute)
            stored = [value for value in op.inputs if value is not None and is_made_of_constants(value)]
            integers = [v for v in stored if (dtype := op.graph.dtype(v)) is None or not is_float(dtype)]
            found.append((encoded(node, deterministic=True), *(side.weight(value).tobytes() for value in integers)))
    return found


def _is_of_sizes(side: Side, op: Op) -> bool:
    """Whether it works on what is computed of sizes alone."""
    seen, stack, shapes = set[Value](), list(op.reads()), 0
    while stack:
        value = stack.pop()
        maker = value.producer
        if value in side.region.border or (maker is None and not value.is_stored):
            return False
        if maker is None or value in seen:
            continue
        seen.add(value)
        is_shape = maker.type in ("Shape", "Size")
        shapes += is_shape
        stack += () if is_shape else maker.reads()
    return shapes > 0
