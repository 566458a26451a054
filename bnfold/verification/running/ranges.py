"""Outputs that are kept within a range: the runtime rounds them to digits of that range, however small they come out.

A sigmoid near 1e-7 is off by half of itself in float32, in every runtime.
"""

from __future__ import annotations

from collections.abc import Mapping

from bnfold.graph import Graph, Value

_UNIT = frozenset({"Sigmoid", "HardSigmoid"})  # others are as exact near zero as elsewhere
_MOVING = frozenset(
    {
        *("Identity", "Cast", "Reshape", "Flatten", "Squeeze", "Unsqueeze", "Transpose", "Slice", "Gather", "Split"),
        *("Concat", "Pad", "Resize", "MaxPool", "AveragePool", "GlobalAveragePool", "GlobalMaxPool", "ReduceMean"),
        *("ReduceMax", "ReduceMin"),
    }
)


def ranges(graph: Graph) -> Mapping[str, float]:
    """The outputs that hold what is at most 1 by its operator, with that 1."""
    outputs = (graph.main.lookup(entry.name) for entry in graph.model.proto.graph.output)
    return {value.name: 1.0 for value in outputs if _is_confined(value)}


def _is_confined(value: Value) -> bool:
    seen, stack = {value}, [value]
    while stack:
        op = stack.pop().producer
        if op is not None and op.type in _UNIT:
            return True
        if op is not None and op.type in _MOVING:
            reads = {read for read in (op.inputs if op.type == "Concat" else op.inputs[:1]) if read is not None}
            stack.extend(reads - seen)
            seen |= reads
    return False
