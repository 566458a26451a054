"""What there is to say of a plan: affine nodes that met the same fate share a row."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from typing import NamedTuple

from bnfold.folding.record import Entry, Outcome, Plan
from bnfold.folding.stays import kind_of, sentence
from bnfold.graph.ports import sizes_told
from bnfold.page import Table, plural
from bnfold.reasons import Reason

_STAYED = (Outcome.KEPT, Outcome.REPLACED)
_SHOWN = 3
"""So many names stand for a group of nodes."""
_COLUMNS = ("outcome", "which", "operator", "how or why")


class Row(NamedTuple):
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


def headline(plan: Plan, folded: str) -> str:
    """How many BatchNormalizations went, or other affines if there are none; `folded` is the verb to say it with."""
    batchnorms = sum(entry.is_batchnorm for entry in plan.entries) + len(plan.spelt_out)
    line = f"{plan.count_batchnorms(Outcome.FOLDED)} of {plural(batchnorms, 'BatchNormalization')} {folded}"
    if not batchnorms:
        line = "no BatchNormalization"
        line += f", {plural(others, 'other affine')} {folded}" if (others := _others(plan)) else ""
    if reduced := plan.count_batchnorms(Outcome.REDUCED):
        line += f", {reduced} reduced"
    if replaced := plan.count(Outcome.REPLACED):
        line += f", {replaced} replaced"
    return line


def besides(plan: Plan) -> tuple[str, ...]:
    """What there is to say beside the headline, in sentences."""
    spelt_out, batchnorms = len(plan.spelt_out), sum(entry.is_batchnorm for entry in plan.entries)
    told = []
    if spelt_out:
        counted = plural(spelt_out, "BatchNormalization") if batchnorms or spelt_out == 1 else "all BatchNormalizations"
        told.append(f"{counted} {'is' if spelt_out == 1 else 'are'} spelt out as Mul and Add")
    also = []
    if (others := _others(plan)) and (batchnorms or spelt_out):
        also.append(f"{plural(others, 'other affine')} folded")
    if merged := plan.count(Outcome.MERGED, batchnorms=False):
        also.append(f"{plural(merged, 'node')} merged")
    told += [f"also {', '.join(also)}"] if also else []
    cleared = plan.count_norms(Outcome.CLEARED)
    if norms := cleared + plan.count_norms(Outcome.KEPT):
        told.append(f"scale and bias of {cleared} of {plural(norms, 'norm')} folded")
    if narrow := sum(bool(entry.assumes) for entry in plan.entries):
        told.append(f"{narrow} of these {'holds' if narrow == 1 else 'hold'} for the stated sizes alone")
    return tuple(told)


def _others(plan: Plan) -> int:
    """How many affines that are no BatchNormalization went, or half of them did."""
    return plan.count_others(Outcome.FOLDED) + plan.count_others(Outcome.REDUCED)


def table(plan: Plan, *, verbose: bool = False) -> Table:
    """The table of a plan; arguments as in `rows`."""
    told = rows(plan, verbose=verbose)
    counts = [len(row.what) for row in told] if all(row.what.isdigit() for row in told) else []
    width = max(counts, default=0)  # counts end below each other, names begin so
    return Table(_COLUMNS, tuple(row._replace(what=row.what.rjust(width)) for row in told), is_headed=False)


def rows(plan: Plan, *, verbose: bool = False) -> tuple[Row, ...]:
    """What became of the affine nodes of a plan.

    Args:
        plan: What was planned.
        verbose: A row for each node. Otherwise nodes that met the same fate share a row, and only a
            BatchNormalization that stays is told with its reasons: there may be hundreds of other affines.
    """
    if verbose:
        return tuple(_alone(entry, plan) for entry in plan.entries)
    told = [entry for entry in plan.entries if not _is_untold(entry)]
    grouped = [_together(group) for group in _groups(told)]
    if untold := list(filter(_is_untold, plan.entries)):
        grouped.append(Row(Outcome.KEPT.value, str(len(untold)), "other affines", (_untold(untold),)))
    return tuple(grouped)


def _is_untold(entry: Entry) -> bool:
    return entry.is_other and entry.outcome is Outcome.KEPT and not entry.is_norm


def _untold(entries: Sequence[Entry]) -> str:
    """What is said of nodes that nobody asked for: how many of them are where they should be."""
    fused = sum(any(refusal.reason is Reason.FUSED_BY_RUNTIME for refusal in entry.refusals) for entry in entries)
    if not fused:
        return "-v tells why"
    who = "all of them are" if fused == len(entries) > 1 else f"{fused} of them {'is' if fused == 1 else 'are'}"
    return f"{who} {Reason.FUSED_BY_RUNTIME.name}; -v tells why"


def _groups(entries: Iterable[Entry]) -> list[list[Entry]]:
    """Entries by their fate: BatchNormalizations first, then by outcome, then the largest group."""
    groups: dict[object, list[Entry]] = {}
    for entry in entries:
        reasons = frozenset(refusal.reason for refusal in entry.refusals)
        way = _way([entry]) if entry.is_batchnorm else ""
        left = tuple(left.op_type for left in entry.left)
        stays = kind_of(entry) or reasons
        key = (entry.op_type, entry.outcome, way, left, stays, assumed(entry))
        groups.setdefault(key, []).append(entry)
    outcomes = list(Outcome)
    return sorted(groups.values(), key=lambda g: (not g[0].is_batchnorm, outcomes.index(g[0].outcome), -len(g)))


def _together(group: list[Entry]) -> Row:
    first = group[0]
    notes = [] if first.outcome in _STAYED else [_way(group)]
    notes += filter(None, [assumed(first)])
    notes += _shared_reasons(group)
    if first.outcome in (Outcome.REDUCED, Outcome.CLEARED) and first.left:
        notes.append(f"left: {first.left[0].op_type} {some([left.node for entry in group for left in entry.left])}")
    elif first.outcome in _STAYED:
        notes.append(some([entry.node for entry in group]))
    return Row(first.outcome.value, str(len(group)), first.op_type, tuple(notes))


def _alone(entry: Entry, plan: Plan) -> Row:
    """A row for one node, with all that is known of it."""
    left = ", ".join(f"{left.op_type} {left.node}" for left in entry.left)
    notes = [_way([entry], by_name=True), assumed(entry), left and f"left: {left}"]
    notes += [f"{kind.name}: {kind.remedy}" if (kind := kind_of(entry)) is not None else ""]
    notes += (f"{refusal.reason.name}: {refusal.text}" for refusal in entry.refusals)
    notes += [f"{old} is now {new}" for old, new in plan.renamed(entry).items()]
    notes += [f"{name} is shared, and was copied ({nbytes} bytes)" for name, nbytes in entry.copied.items()]
    return Row(entry.outcome.value, entry.node, entry.op_type, tuple(filter(None, notes)))


def _way(group: list[Entry], *, by_name: bool = False) -> str:
    """Where the nodes went: by operator, or by name."""
    into: list[str] = []
    through: list[str] = []
    for entry in group:
        types = {} if by_name else {answer.node: answer.op_type for answer in entry.answers}
        into += (types.get(node, node) for node in entry.into)
        through += (types.get(node, node) for node in entry.through)
    ways = (("into", into), ("through", through))
    return " ".join(f"{word} {', '.join(dict.fromkeys(nodes))}" for word, nodes in ways if nodes)


def assumed(entry: Entry) -> str:
    """For which sizes alone a fold holds; empty if for all."""
    shapes = (f"{name} is {sizes_told(shape)}" for name, shape in entry.assumes.items())
    return f"only where {', '.join(shapes)}" if entry.assumes else ""


def _shared_reasons(group: list[Entry]) -> Iterator[str]:
    """Why nodes of a group stay: in a sentence, or a line for each reason. What is true of all, or else an example."""
    if (kind := kind_of(group[0])) is not None:
        yield sentence(kind, group)
        names = dict.fromkeys(refusal.reason.name for entry in group for refusal in entry.refusals)
        yield f"reasons: {', '.join(names)}"
        return
    first = {refusal.reason: refusal for refusal in group[0].refusals}
    for reason, example in first.items():
        facts = [refusal.facts for entry in group for refusal in entry.refusals if refusal.reason is reason]
        if len(group) == 1:
            yield f"{reason.name}: {example}"
        elif all(others == example.facts for others in facts):
            yield f"{reason.name}: {replace(example, node='')}"
        else:
            yield f"{reason.name}: e.g. {example}"


def some(names: Sequence[str]) -> str:
    """A few of the names, and how many more there are."""
    shown = ", ".join(names[:_SHOWN])
    more = len(names) - _SHOWN
    return f"{shown} and {more} more (-v tells all)" if more > 0 else shown
