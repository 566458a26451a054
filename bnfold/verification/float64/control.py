"""Loop and Scan."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from bnfold.graph import Op, Scope
from bnfold.verification.float64.carried import Num
from bnfold.verification.float64.kernel import NotComputed

RunBody = Callable[[Scope, Sequence[Num]], list[Num]]
"""Runs a body on its inputs; gives its outputs."""

Repeat = Callable[[Op, Sequence[Num], RunBody], Sequence[Num]]

_MAX_ITERATIONS = 64


def body(op: Op, name: str) -> Scope:
    """The body that an attribute holds."""
    names = [attribute.name for attribute in op.node.attribute if attribute.HasField("g")]
    return op.bodies[names.index(name)]


def _loop(op: Op, inputs: Sequence[Num], run: RunBody) -> Sequence[Num]:
    trips, condition, *state = inputs
    limit = int(_first(trips)) if trips.value is not None else _MAX_ITERATIONS
    if limit > _MAX_ITERATIONS:
        raise NotComputed(f"{limit} iterations")
    going = condition.value is None or bool(_first(condition))
    rows: list[Sequence[Num]] = []
    step = 0
    while going and step < limit:
        first, *rest = run(body(op, "body"), [Num(np.int64(step).reshape(())), Num(np.asarray(True)), *state])
        going, step = bool(_first(first)), step + 1
        state, scanned = rest[: len(state)], rest[len(state) :]
        rows.append(scanned)
    if going and step == _MAX_ITERATIONS and trips.value is None:
        raise NotComputed(f"more than {step} iterations")
    if not rows and len(op.outputs) > len(state):
        raise NotComputed("a Loop of no iterations with scan outputs")
    return [*state, *(_stacked(column) for column in zip(*rows, strict=True))]


def _scan(op: Op, inputs: Sequence[Num], run: RunBody) -> Sequence[Num]:
    if op.opset < 9 or any("axes" in attribute.name or "dir" in attribute.name for attribute in op.node.attribute):
        raise NotComputed("this form of Scan")
    states = len(inputs) - op.attribute("num_scan_inputs")
    state, scanned = list(inputs[:states]), inputs[states:]
    rows = []
    for step in range(scanned[0].value.shape[0]):
        results = run(body(op, "body"), [*state, *(_row(num, step) for num in scanned)])
        state = list(results[:states])
        rows.append(results[states:])
    return [*state, *(_stacked(column) for column in zip(*rows, strict=True))]


def _first(num: Num) -> Any:
    """What decides whether there is another iteration."""
    if num.error is not None and num.error.any():
        raise NotComputed("rounding decides how often it is repeated")
    return np.asarray(num.value).reshape(-1)[0]


def _row(num: Num, step: int) -> Num:
    return Num(num.value[step], None if num.error is None else num.error[step])


def _stacked(column: Sequence[Num]) -> Num:
    errors = [np.zeros(np.shape(num.value)) if num.error is None else num.error for num in column]
    is_off = any(num.error is not None for num in column)
    return Num(np.stack([num.value for num in column]), np.stack(errors) if is_off else None)


def trips(op: Op, inputs: Sequence[Num]) -> int:
    """How many iterations there will be, as far as that is known before the first."""
    if op.type == "Loop":
        return 1 if inputs[0].value is None else int(_first(inputs[0]))
    scanned = inputs[len(inputs) - op.attribute("num_scan_inputs") :]
    return int(scanned[0].value.shape[0])


REPEATING: dict[str, Repeat] = {"Loop": _loop, "Scan": _scan}
