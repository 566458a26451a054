"""What a model is made of, before and after: operators, numbers that it stores, multiply-adds."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from math import prod
from typing import Any

import onnx
from onnx import NodeProto

from bnfold.folding.record import Plan
from bnfold.model_io import Model
from bnfold.model_io.tensors import STANDARD_DOMAINS, all_nodes, all_tensors
from bnfold.optimization.macs import macs


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
    def of(cls, model: onnx.ModelProto, *, counts_macs: bool) -> Inventory:
        """Counts; multiply-adds only where they are asked for, since that infers shapes."""
        operators = Counter(map(name_of, all_nodes(model)))
        parameters = sum(prod(tensor.dims) for tensor in all_tensors(model))
        return cls(operators, parameters, macs(model) if counts_macs else None)


@dataclass(frozen=True)
class Change:
    """What a model was made of, and what it is made of now."""

    before: Inventory
    after: Inventory

    @classmethod
    def of(cls, model: Model, plan: Plan) -> Change:
        """What a model is made of, and what a plan makes of it."""
        before = Inventory.of(model.proto, counts_macs=plan.changes)
        if not plan.changes:
            return cls(before, before)
        return cls(before, Inventory.of(plan.model.proto, counts_macs=before.macs is not None))

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
