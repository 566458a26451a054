"""Sizes that leave another rest: what pads or cuts to a multiple does so by what is left over."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence

from onnx import NodeProto

from bnfold.graph import Op
from bnfold.model_io.protobuf import encoded
from bnfold.verification.float64.evaluate import CannotEvaluate
from bnfold.verification.regions.border import Frame
from bnfold.verification.regions.hints import MOVING
from bnfold.verification.regions.scenes import Scene
from bnfold.verification.regions.side import Side
from bnfold.verification.regions.sizes import MET, size_numbers, slice_steps

_WINDOWS = MOVING | {"LpPool"}
_HALVING = frozenset({"Resize", "Upsample"})
_MOST = 32


def period(left: Side, right: Side) -> int:
    """What sizes have to differ by to leave the same rest wherever the two sides step, or divide, in other ways."""
    ours, theirs = (Counter(_steps(side)) for side in (left, right))
    is_owed = any(step > 1 for *_, step in [*(ours - theirs), *(theirs - ours)]) or any(key[0] == "Mod" for key in ours)
    # one may be behind the other
    return min(_MOST, max(math.prod(step for *_, step in some.elements()) for some in (ours, theirs))) if is_owed else 1


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


def _steps(side: Side) -> Iterator[tuple[str, bytes, int]]:
    """What steps over sizes: its type, how it does so, and by how much."""
    for op in side.active:
        if op.type in _WINDOWS:
            yield op.type, _settings(op), math.lcm(*op.attribute("strides") or [1])
        elif op.type in _HALVING:
            yield op.type, _settings(op), 2
        elif op.type == "Slice":
            yield from ((op.type, b"", abs(step)) for step in slice_steps(side, op) if abs(step) > 1)
    for op in side.compared:
        if op.type in ("Div", "Mod"):
            yield from ((op.type, b"", int(k)) for k in size_numbers(side, op, ()) if 1 < k <= MET)


def _settings(op: Op) -> bytes:
    node = NodeProto()
    node.attribute.extend(attribute for attribute in op.node.attribute if attribute.name != "kernel_shape")
    return encoded(node, deterministic=True)
