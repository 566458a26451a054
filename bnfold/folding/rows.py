"""Operators with weights in a row, of which one can do what all do; what stands between two may be part of it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from bnfold.affine import Affine
from bnfold.folding.alone import HANDS_ON, hands_on, made_alone
from bnfold.folding.names import refuse_shadowed
from bnfold.folding.record import Ability
from bnfold.folding.representable import refuse_unrepresentable
from bnfold.folding.walk import Asked, Way, malformed_is_refused
from bnfold.graph import Op
from bnfold.ops import Detach, Edit, Edits
from bnfold.ops.borders import BORDERS
from bnfold.ops.quantized import requantized
from bnfold.ops.rows import ROWS, conv_absorbs_zeros
from bnfold.reasons import Reason, Refused

_MOST_BETWEEN = 32
_BETWEEN = BORDERS | HANDS_ON


def row_ending_in(second: Op) -> Iterator[tuple[Op, Way]]:
    """Of what an operator alone reads, what can go, and its way; or the way of the operator into what it reads.

    Each way is good for the graph as it is: take the first.
    """
    if second.type not in ROWS or second.is_kept:
        return
    try:
        rows = list(_rows(second))
    except Refused:  # one of them lacks what it has to read
        return
    for row in rows:
        try:
            with malformed_is_refused(second):
                yield _merged(row, second)
        except Refused:
            continue


def _rows(second: Op) -> Iterator[list[Op]]:
    """What may be part of an operator: what makes the value that it reads, all the way up or only what comes last."""
    between: list[Op] = []
    value = second.data(0)
    while len(between) < _MOST_BETWEEN and (op := made_alone(value, second.scope, _BETWEEN)) is not None:
        between.insert(0, op)
        value = op.data(0)
    if (first := made_alone(value, second.scope, ROWS)) is not None and ROWS[first.type] is ROWS[second.type]:
        yield [first, *between]
    pads = [place for place, op in enumerate(between) if op.type == "Pad"]
    if pads and second.type == "Conv":
        yield between[pads[-1] :]


def _merged(row: Sequence[Op], second: Op) -> tuple[Op, Way]:
    first, around = row[0], [op for op in row if op.type in BORDERS]
    if any(not hands_on(op) for op in row[1:] if op not in around):
        raise Refused(Reason.UNSUPPORTED, op_type="Dropout", detail="it drops values, in training mode")
    if first.type not in ROWS:
        edits = conv_absorbs_zeros(around, second)
        return first, _way(row, second, edits, (Ability.TOOK_INPUT, conv_absorbs_zeros, _nothing_done(second)))
    rule = ROWS[second.type]
    host, edits = rule(first, second, around)
    if host is second:
        return first, _way(row, second, edits, (Ability.TOOK_INPUT, rule, _nothing_done(second)))
    if second.data(0) is not first.output:
        raise Refused(Reason.UNSUPPORTED, op_type=row[1].type, detail="between the two")
    return second, _way([second], first, edits, (Ability.TOOK_OUTPUT, rule, _nothing_done(second)))


def _nothing_done(op: Op) -> Affine:
    return Affine.identity(len(op.shape(1)))


def _way(gone: Sequence[Op], host: Op, edits: Edits, answer: Asked) -> Way:
    """Those that go stand before the host, or one does behind it, whose name its result takes."""
    detached = [Detach(op, 0, keeps_name=op.data(0) is host.output) for op in gone]
    all_edits: list[Edit] = [*requantized(edits), *detached]
    refuse_shadowed(all_edits)
    refuse_unrepresentable(all_edits)
    return Way(all_edits, into=[host], answers=[(host, answer)])
