"""A BatchNormalization of a constant makes another constant: it goes, and what reads that gets it stored.

Nets with standardised weights (NFNet, BiT) are exported so: each weight goes through a BatchNormalization in training
mode, for the sake of the statistics that it takes of the weight.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from bnfold.affine import Affine
from bnfold.folding.names import refuse_shadowed
from bnfold.folding.record import Ability
from bnfold.folding.representable import refuse_unrepresentable
from bnfold.folding.walk import Way, refuse_change_of_kept
from bnfold.graph import Op
from bnfold.ops import Assign, Edit
from bnfold.reasons import Reason, Refused

_NOTHING = Affine.identity(1)


def stored(op: Op, price: Callable[[Sequence[Edit]], int]) -> Way:
    """The way of a constant through all that only computes others from it, into what reads those.

    Args:
        op: What makes the constant.
        price: How many bytes larger edits make the model; it refuses what may not be done.

    Raises:
        Refused: It is not finite, or an output, or something else that the operator makes is used.
    """
    if any(value is not None and (value.readers or value.is_output) for value in op.outputs[1:]):
        raise Refused(Reason.EXTRA_OUTPUTS)
    made = op.graph.constant(op.output)
    if made is None or not np.isfinite(made.float64()).all():
        raise Refused(Reason.NOT_FINITE, value=op.output.name)
    way = Way()
    computing, met = [op], {op}
    for each in computing:  # it grows meanwhile
        way.answers.append((each, (Ability.COMPUTED, None, _NOTHING)))
        constant = op.graph.constant(each.output)
        assert constant is not None
        if each.output.is_output:
            raise Refused(Reason.GRAPH_OUTPUT, value=each.output.name)
        for use in each.output.readers:
            if _is_constant(use.op):
                computing += [use.op] if use.op not in met else []
                met.add(use.op)
            else:
                way.edits.append(Assign(use.op, use.index, constant))
                way.into.append(use.op)
                way.answers.append((use.op, (Ability.STORED, None, _NOTHING)))
    way.through += computing[1:]
    refuse_shadowed(way.edits)
    refuse_unrepresentable(way.edits)
    refuse_change_of_kept(way.edits)
    price(way.edits)
    return way


def _is_constant(op: Op) -> bool:
    return len(op.outputs) == 1 and op.outputs[0] is not None and op.graph.constant(op.outputs[0]) is not None
