"""A plan in a form to print: affine nodes that met the same fate share a row."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace

import onnx

from bnfold.fold.record import Entry, Outcome, Plan

_STAYED = (Outcome.KEPT, Outcome.REPLACED)
_SHOWN = 3
"""So many names stand for a group of nodes."""


@dataclass(frozen=True)
class Row:
    """What became of some nodes.

    Attributes:
        outcome: What became of them.
        what: How many they are, or the node's name if there is a row for each.
        op_type: Their operator.
        notes: Where they went, or why they stayed and which they are. Each is a line.
    """

    outcome: str
    what: str
    op_type: str
    notes: tuple[str, ...]


@dataclass(frozen=True)
class Summary:
    """A report: one line that says it all, a table, and lines below it."""

    headline: str
    rows: tuple[Row, ...]
    notes: tuple[str, ...] = ()


def plural(count: int, noun: str) -> str:
    """`1 node`, `2 nodes`."""
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


def headline(plan: Plan, folded: str) -> str:
    """How many nodes went, where `folded` is the verb to say it with."""
    batchnorms = sum(entry.is_batchnorm for entry in plan.entries)
    others = plan.count(Outcome.FOLDED, batchnorms=False) + plan.count(Outcome.REDUCED, batchnorms=False)
    line = f"{plan.count(Outcome.FOLDED)} of {plural(batchnorms, 'BatchNormalization')}"
    if not batchnorms:
        line = "no BatchNormalization"
    if others:
        line += f" and {plural(others, 'other affine')}"
    if batchnorms or others:
        line += f" {folded}"
    if reduced := plan.count(Outcome.REDUCED):
        line += f", {reduced} reduced to one node"
    if replaced := plan.count(Outcome.REPLACED):
        line += f", {replaced} replaced"
    if merged := plan.count(Outcome.MERGED, batchnorms=False):
        line += f", {plural(merged, 'parallel node')} merged"
    before = f"{plan.nodes_before} → " if plan.changes else ""
    return f"{line}; {before}{plural(plan.nodes_after, 'node')}"


def rows(plan: Plan, *, verbose: bool = False) -> tuple[Row, ...]:
    """The table of a plan.

    Args:
        plan: What was planned.
        verbose: A row for each node. Otherwise nodes that met the same fate share a row, and only a
            BatchNormalization that stays is told with its reasons: there may be hundreds of other affines.
    """
    if verbose:
        return tuple(_alone(entry) for entry in plan.entries)
    types = _op_types(plan)
    told = [entry for entry in plan.entries if entry.is_batchnorm or entry.outcome is not Outcome.KEPT]
    grouped = [_together(group, types) for group in _groups(told, types)]
    untold = len(plan.entries) - len(told)
    if untold:
        grouped.append(Row(Outcome.KEPT.value, str(untold), "other affines", ("-v tells why",)))
    return tuple(grouped)


def _groups(entries: Iterable[Entry], types: Mapping[str, str]) -> list[list[Entry]]:
    """Entries by their fate: BatchNormalizations first, then by outcome, then the largest group."""
    groups: dict[object, list[Entry]] = {}
    for entry in entries:
        reasons = frozenset(refusal.reason for refusal in entry.refusals)
        way = _way([entry], types) if entry.is_batchnorm else ""
        groups.setdefault((entry.op_type, entry.outcome, way, reasons), []).append(entry)
    outcomes = list(Outcome)
    return sorted(groups.values(), key=lambda g: (not g[0].is_batchnorm, outcomes.index(g[0].outcome), -len(g)))


def _together(group: list[Entry], types: Mapping[str, str]) -> Row:
    first = group[0]
    notes = [*_shared_reasons(group), _names(group)] if first.outcome in _STAYED else [_way(group, types)]
    return Row(first.outcome.value, str(len(group)), first.op_type, tuple(notes))


def _alone(entry: Entry) -> Row:
    """A row for one node, with all that is known of it."""
    notes = [_way([entry]), *(f"{refusal.reason.name}: {refusal}" for refusal in entry.refusals)]
    notes += [f"{old} is now {new}" for old, new in entry.renamed.items()]
    notes += [f"{name} is shared, and was copied ({nbytes} bytes)" for name, nbytes in entry.copied.items()]
    return Row(entry.outcome.value, entry.node, entry.op_type, tuple(filter(None, notes)))


def _way(group: list[Entry], types: Mapping[str, str] | None = None) -> str:
    """Where the nodes went: by name, or by operator if `types` are given."""

    def listed(nodes: Iterable[str]) -> str:
        return ", ".join(dict.fromkeys(node if types is None else types.get(node, node) for node in nodes))

    into = listed(node for entry in group for node in entry.into)
    through = listed(node for entry in group for node in entry.through)
    return " ".join(filter(None, (into and f"into {into}", through and f"through {through}")))


def _shared_reasons(group: list[Entry]) -> Iterator[str]:
    """One line for each reason of a group: what is true of all its nodes, or else an example."""
    first = {refusal.reason: refusal for refusal in group[0].refusals}
    for reason, example in first.items():
        facts = [refusal.facts for entry in group for refusal in entry.refusals if refusal.reason is reason]
        if len(group) == 1:
            yield f"{reason.name}: {example}"
        elif all(others == example.facts for others in facts):
            yield f"{reason.name}: {replace(example, node='')}"
        else:
            yield f"{reason.name}: e.g. {example}"


def _names(group: list[Entry]) -> str:
    names = ", ".join(entry.node for entry in group[:_SHOWN])
    more = len(group) - _SHOWN
    return f"{names} and {more} more (-v tells all)" if more > 0 else names


def _op_types(plan: Plan) -> dict[str, str]:
    """The operator of each node, under its name or that of its first output where it has none."""
    proto = plan.model.proto
    nodes = (node for owner in (proto.graph, *proto.functions) for node in _nodes(owner.node))
    types = {node.name or next(iter(node.output), ""): node.op_type for node in nodes}
    return types | {entry.node: entry.op_type for entry in plan.entries}  # some are gone from the model


def _nodes(nodes: Iterable[onnx.NodeProto]) -> Iterator[onnx.NodeProto]:
    for node in nodes:
        yield node
        for attribute in node.attribute:
            for graph in (attribute.g, *attribute.graphs):
                yield from _nodes(graph.node)
