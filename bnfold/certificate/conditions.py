"""What a fold rests on, as plain data: every operator that the affine met, the rule it answered by, and the affine.

A rule refuses unless its conditions hold, and its docstring is the equation that they make true; so the record of an
answer is the record of the conditions, and planning again checks them again.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from math import isfinite
from typing import Any

from bnfold.affine import Extent
from bnfold.folding import Entry, Plan
from bnfold.folding.plain import entry_dict
from bnfold.folding.record import Ability, Answer
from bnfold.ops.rule import equation_of, function_of
from bnfold.page.schema import plain

_WORDS = ("rule", "equation")  # which another version may choose differently


def entries(plan: Plan) -> tuple[dict[str, Any], ...]:
    """Every entry of a plan as JSON has it."""
    there = {tensor.name for tensor in plan.model.proto.graph.initializer}
    return tuple(_entry(entry, plan, there) for entry in plan.entries)


def differing(recorded: Mapping[str, Any], planned: Mapping[str, Any]) -> list[str]:
    """The keys at which two entries differ in more than words."""
    return [key for key in {**recorded, **planned} if _wordless(recorded.get(key)) != _wordless(planned.get(key))]


def _wordless(value: object) -> object:
    if isinstance(value, list):
        return [_wordless(entry) for entry in value]
    if isinstance(value, dict):
        return {key: _wordless(entry) for key, entry in value.items() if key not in _WORDS}
    return value


def _entry(entry: Entry, plan: Plan, there: set[str]) -> dict[str, Any]:
    content = {
        **entry_dict(entry, plan),
        "parameters": [name for name in entry.wrote if name in there],
        "conditions": [_answer(answer) for answer in entry.answers],
    }
    as_json: dict[str, Any] = json.loads(json.dumps(content, default=plain))
    return as_json


def _answer(answer: Answer) -> dict[str, object]:
    upwards = answer.ability is Ability.LIFTED
    rule = None if answer.rule is None else function_of(answer.rule, upwards=upwards)
    return {
        "node": answer.node,
        "op_type": answer.op_type,
        "ability": answer.ability.value,
        "rule": None if rule is None else f"{rule.__module__}.{rule.__qualname__}",
        "equation": "" if rule is None else equation_of(rule, upwards=upwards),
        **_facts(answer.extent),
    }


def _facts(extent: Extent) -> dict[str, object]:
    return {
        "axes": list(extent.axes),
        "scale": [_number(end) for end in extent.scale],
        "shift": [_number(end) for end in extent.shift],
    }


def _number(value: float) -> float | str:
    """JSON has no infinity and no NaN."""
    return value if isfinite(value) else str(value)
