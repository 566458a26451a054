"""A report as JSON. docs/json.md describes it; a change that breaks a reader raises `SCHEMA`."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from bnfold.escape import as_json
from bnfold.folding.record import Entry, Outcome, Plan
from bnfold.reasons import Refusal
from bnfold.report.stays import kind_of
from bnfold.version import __version__

SCHEMA = 3


def document(models: Sequence[dict[str, object]]) -> str:
    """The JSON document about some models."""
    content = {"schema": SCHEMA, "bnfold": __version__, "models": models}
    return as_json(content, default=plain)


def plan_dict(plan: Plan) -> dict[str, object]:
    """Counts, and an entry for each affine node."""
    fates = (Outcome.FOLDED, Outcome.REDUCED, Outcome.KEPT, Outcome.REPLACED)
    return {
        "batchnorms": {outcome.value: plan.count_batchnorms(outcome) for outcome in fates},
        "spelt_out": len(plan.spelt_out),
        "affines": {outcome.value: plan.count_others(outcome) for outcome in fates},
        "merged": plan.count(Outcome.MERGED, batchnorms=False),
        "nodes": {"before": plan.nodes_before, "after": plan.nodes_after},
        "entries": [entry_dict(entry) for entry in plan.entries],
    }


def entry_dict(entry: Entry) -> dict[str, object]:
    """What became of one affine node."""
    return {
        "node": entry.node,
        "op_type": entry.op_type,
        "outcome": entry.outcome.value,
        "into": entry.into,
        "through": entry.through,
        "left": [{"node": left.node, "op_type": left.op_type} for left in entry.left],
        "stays": None if (kind := kind_of(entry)) is None else kind.name,
        "reasons": [_refusal(refusal) for refusal in entry.refusals],
        "renamed": entry.renamed,
        "copied": entry.copied,
        "part_of": entry.part_of or None,
    }


def _refusal(refusal: Refusal) -> dict[str, object]:
    return {
        "reason": refusal.reason.name,
        "text": refusal.text,
        "facts": refusal.facts,
        "node": refusal.node,
        "towards": refusal.towards,
    }


def plain(value: object) -> object:
    """A fact that JSON has no type for."""
    if isinstance(value, np.generic | np.ndarray):
        return value.tolist()
    return sorted(value) if isinstance(value, set | frozenset) else str(value)
