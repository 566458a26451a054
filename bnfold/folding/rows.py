"""Operators with weights in a row, of which one can do what both do."""

from __future__ import annotations

from bnfold.affine import Affine
from bnfold.folding.alone import made_alone
from bnfold.folding.names import refuse_shadowed
from bnfold.folding.record import Ability
from bnfold.folding.representable import refuse_unrepresentable
from bnfold.folding.walk import Way, malformed_is_refused
from bnfold.graph import Op
from bnfold.ops import Detach, Edit
from bnfold.ops.quantized import requantized
from bnfold.ops.rows import ROWS
from bnfold.reasons import Refused


def row_ending_in(second: Op) -> tuple[Op, Way] | None:
    """Of an operator and the one whose result it alone reads, the one that goes, and its way into the other."""
    value = second.input(0) if second.type in ROWS and not second.is_kept else None
    first = None if value is None else made_alone(value, second.scope, ROWS)
    if first is None or ROWS[first.type] is not ROWS[second.type]:
        return None
    try:
        with malformed_is_refused(second):
            return _merged(first, second)
    except Refused:
        return None


def _merged(first: Op, second: Op) -> tuple[Op, Way]:
    rule = ROWS[second.type]
    host, edits = rule(first, second)
    guest = first if host is second else second
    all_edits: list[Edit] = [*requantized(edits), Detach(guest, 0, keeps_name=guest is second)]
    refuse_shadowed(all_edits)
    refuse_unrepresentable(all_edits)
    ability = Ability.TOOK_INPUT if host is second else Ability.TOOK_OUTPUT
    asked = ability, rule, Affine.identity(len(second.shape(1)))
    return guest, Way(all_edits, into=[host], answers=[(host, asked)])
