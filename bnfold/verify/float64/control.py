"""Loop and Scan."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from bnfold.graph import Op, Scope
from bnfold.verify.float64.kernel import NotComputed

RunBody = Callable[[Scope, Sequence[Any]], list[Any]]
"""Runs a body on its inputs; gives its outputs."""

Repeat = Callable[[Op, Sequence[Any], RunBody], Sequence[Any]]

_MAX_ITERATIONS = 64


def body(op: Op, name: str) -> Scope:
    """The body that an attribute holds."""
    names = [attribute.name for attribute in op.node.attribute if attribute.HasField("g")]
    return op.bodies[names.index(name)]


def _loop(op: Op, inputs: Sequence[Any], run: RunBody) -> Sequence[Any]:
    trips, condition, *state = inputs
    limit = int(np.asarray(trips).reshape(-1)[0]) if trips is not None else _MAX_ITERATIONS
    if limit > _MAX_ITERATIONS:
        raise NotComputed(f"{limit} iterations")
    going = condition is None or bool(np.asarray(condition).reshape(-1)[0])
    rows: list[Sequence[Any]] = []
    step = 0
    while going and step < limit:
        first, *rest = run(body(op, "body"), [np.int64(step).reshape(()), np.asarray(True), *state])
        going, step = bool(np.asarray(first).reshape(-1)[0]), step + 1
        state, scanned = rest[: len(state)], rest[len(state) :]
        rows.append(scanned)
    if going and step == _MAX_ITERATIONS and trips is None:
        raise NotComputed(f"more than {step} iterations")
    if not rows and len(op.outputs) > len(state):
        raise NotComputed("a Loop of no iterations with scan outputs")
    return [*state, *(np.stack(column) for column in zip(*rows, strict=True))]


def _scan(op: Op, inputs: Sequence[Any], run: RunBody) -> Sequence[Any]:
    if op.opset < 9 or any("axes" in attribute.name or "dir" in attribute.name for attribute in op.node.attribute):
        raise NotComputed("this form of Scan")
    states = len(inputs) - op.attribute("num_scan_inputs")
    state, scanned = list(inputs[:states]), inputs[states:]
    rows = []
    for step in range(scanned[0].shape[0]):
        results = run(body(op, "body"), [*state, *(array[step] for array in scanned)])
        state = list(results[:states])
        rows.append(results[states:])
    return [*state, *(np.stack(column) for column in zip(*rows, strict=True))]


def trips(op: Op, inputs: Sequence[Any]) -> int:
    """How many iterations there will be, as far as that is known before the first."""
    if op.type == "Loop":
        return 1 if inputs[0] is None else int(np.asarray(inputs[0]).reshape(-1)[0])
    scanned = inputs[len(inputs) - op.attribute("num_scan_inputs") :]
    return int(scanned[0].shape[0])


REPEATING: dict[str, Repeat] = {"Loop": _loop, "Scan": _scan}
