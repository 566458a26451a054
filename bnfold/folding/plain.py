"""A plan as plain data, for JSON; docs/json.md describes it."""

from __future__ import annotations

from bnfold.folding.record import Entry, Outcome, Plan
from bnfold.folding.stays import kind_of
from bnfold.reasons import Refusal


def plan_dict(plan: Plan) -> dict[str, object]:
    """Counts, and an entry for each affine node."""
    fates = (Outcome.FOLDED, Outcome.REDUCED, Outcome.KEPT, Outcome.REPLACED)
    return {
        "batchnorms": {outcome.value: plan.count_batchnorms(outcome) for outcome in fates},
        "spelt_out": len(plan.spelt_out),
        "affines": {outcome.value: plan.count_others(outcome) for outcome in fates},
        "norms": {outcome.value: plan.count_norms(outcome) for outcome in (Outcome.CLEARED, Outcome.KEPT)},
        "merged": plan.count(Outcome.MERGED, batchnorms=False),
        "nodes": {"before": plan.nodes_before, "after": plan.nodes_after},
        "entries": [entry_dict(entry, plan) for entry in plan.entries],
    }


def entry_dict(entry: Entry, plan: Plan) -> dict[str, object]:
    """What became of one affine node of a plan."""
    return {
        "node": entry.node,
        "op_type": entry.op_type,
        "outcome": entry.outcome.value,
        "into": entry.into,
        "through": entry.through,
        "left": [{"node": left.node, "op_type": left.op_type} for left in entry.left],
        "stays": None if (kind := kind_of(entry)) is None else kind.name,
        "reasons": [_refusal(refusal) for refusal in entry.refusals],
        "renamed": plan.renamed(entry),
        "copied": entry.copied,
        "part_of": entry.part_of or None,
        "assumes": entry.assumes or None,
    }


def _refusal(refusal: Refusal) -> dict[str, object]:
    return {
        "reason": refusal.reason.name,
        "text": refusal.text,
        "facts": refusal.facts,
        "node": refusal.node,
        "towards": refusal.towards,
    }
