"""BatchNormalizations that are spelt out: x → (x - mean) / deviation · gamma + beta, in operators of their own.

It is known by its form alone: Mul, Div, Add and Sub by constants, each the only reader of the one before, that all
vary along one and the same axis; and one of them shifts after another has scaled. That is what a BatchNormalization
computes, and what exporters write for one. Scale and shift behind another normalization are that one's own.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from bnfold.graph import Graph, Op, Value

_SCALES, _SHIFTS = ("Mul", "Div"), ("Add", "Sub")
_PASSED = ("Reshape", "Flatten", "Transpose", "Squeeze", "Unsqueeze", "Cast", "Identity")
_NORMALIZATIONS = (
    "BatchNormalization",
    "GroupNormalization",
    "InstanceNormalization",
    "LayerNormalization",
    "LpNormalization",
    "MeanVarianceNormalization",
    "RMSNormalization",
)


class _Step(NamedTuple):
    """A Mul, Div, Add or Sub by a vector.

    Attributes:
        op: The operator.
        data: What it scales or shifts.
        along: The axis, counted from the last, and its size.
    """

    op: Op
    data: Value
    along: tuple[int, int]


def spelt_out(graph: Graph) -> dict[Op, str]:
    """The operators that spell a BatchNormalization out, each with the label of the first of its kin."""
    return {step.op: run[0].op.label for run in _runs(graph) if _is_batchnorm(run) for step in run}


def _runs(graph: Graph) -> Iterator[Sequence[_Step]]:
    ending: dict[Value, list[_Step]] = {}
    for op in graph.ops():
        step = _step(op)
        if step is None:
            continue
        run = ending.pop(step.data, None)
        follows = run is not None and run[0].along == step.along and _is_read_once(step.data)
        if run is not None and not follows:
            yield run
        run = [*run, step] if run is not None and follows else [step]
        ending[op.output] = run
    yield from ending.values()


def _step(op: Op) -> _Step | None:
    if op.type not in _SCALES + _SHIFTS or len(op.inputs) != 2 or None in op.outputs or not op.outputs:
        return None
    for index in (1,) if op.type == "Div" else (1, 0):
        data, vector = op.input(1 - index), op.input(index)
        constant = None if vector is None else op.graph.constant(vector)
        if data is not None and constant is not None and op.graph.constant(data) is None:
            long = [axis - len(constant.shape) for axis, size in enumerate(constant.shape) if size != 1]
            return _Step(op, data, (long[0], constant.shape[long[0]])) if len(long) == 1 else None
    return None


def _is_batchnorm(run: Sequence[_Step]) -> bool:
    types = [step.op.type for step in run]
    scaled = next((place for place, op_type in enumerate(types) if op_type in _SCALES), len(types))
    return any(op_type in _SHIFTS for op_type in types[scaled:]) and not _is_normalized(run[0].data)


def _is_normalized(value: Value) -> bool:
    """Whether a normalization makes the value, as one operator or by a division at its end."""
    op = value.producer
    while op is not None and op.type in _PASSED and (data := op.input(0)) is not None:
        op = data.producer
    if op is None:
        return False
    by_reciprocal = op.type == "Mul" and any(
        operand is not None and operand.producer is not None and operand.producer.type == "Reciprocal"
        for operand in op.inputs
    )
    return op.type in _NORMALIZATIONS or op.type == "Div" or by_reciprocal


def _is_read_once(value: Value) -> bool:
    return len(value.readers) == 1 and not value.is_output
