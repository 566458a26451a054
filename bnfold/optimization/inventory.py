"""What a model is made of, before and after: operators, numbers that it stores, multiply-adds."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from math import prod
from typing import Any

import onnx
from onnx import NodeProto

from bnfold.folding.record import Plan
from bnfold.model_io import Model
from bnfold.model_io.tensors import STANDARD_DOMAINS, all_nodes, all_tensors
from bnfold.optimization.macs import MOST_NODES, macs


@dataclass(frozen=True)
class Inventory:
    """What a model is made of.

    Attributes:
        operators: How many there are of each type, those in bodies and functions among them.
        parameters: Numbers that initializers and Constants hold.
        macs: Multiply-adds of one run; None where that is not known.
    """

    operators: Mapping[str, int]
    parameters: int
    macs: int | None = None

    @classmethod
    def of(cls, model: onnx.ModelProto) -> Inventory:
        """Counts all but multiply-adds, for which shapes are inferred."""
        operators = Counter(map(name_of, all_nodes(model)))
        return cls(operators, sum(prod(tensor.dims) for tensor in all_tensors(model)))


@dataclass(frozen=True)
class Change:
    """What a model was made of, and what it is made of now."""

    before: Inventory
    after: Inventory

    @classmethod
    def of(cls, before: Inventory, model: Model, plan: Plan) -> Change:
        """What a model was made of, counted before it was planned, and what a plan makes of it."""
        if not plan.changes:
            return cls(before, before)
        after = Inventory.of(plan.model.proto)
        if sum(before.operators.values()) > MOST_NODES:  # it need not be there beside what is made of it
            return cls(before, after)
        then = macs(model.proto)
        now = macs(plan.model.proto) if then is not None else None
        return cls(replace(before, macs=then), replace(after, macs=now))

    def operators(self) -> Iterator[tuple[str, int, int]]:
        """Each type of which there are now more or fewer, and how many there were and are; the largest change first."""
        before, after = self.before.operators, self.after.operators
        changed = [name for name in {**before, **after} if before.get(name, 0) != after.get(name, 0)]
        for name in sorted(changed, key=lambda name: (-abs(after.get(name, 0) - before.get(name, 0)), name)):
            yield name, before.get(name, 0), after.get(name, 0)

    def to_dict(self) -> dict[str, Any]:
        """As plain data; docs/json.md describes it."""
        before, after = self.before, self.after
        is_known = before.macs is not None and after.macs is not None
        return {
            "operators": {name: {"before": then, "after": now} for name, then, now in self.operators()},
            "parameters": {"before": before.parameters, "after": after.parameters},
            "macs": {"before": before.macs, "after": after.macs} if is_known else None,
        }


def name_of(node: NodeProto) -> str:
    """Its type, with the domain if that is not ONNX's own."""
    return node.op_type if node.domain in STANDARD_DOMAINS else f"{node.domain}.{node.op_type}"
