"""Scale and bias of a norm go into what reads it, for who asks for that: the norm stays, with a scale of 1 and no bias.

No node is gone, and no time is won. But what rotates the data between two layers, as quantizers do, has to move norms
and weights apart; and all channels behind the norm are on one scale.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from bnfold.affine import Affine
from bnfold.folding.names import refuse_shadowed
from bnfold.folding.representable import refuse_unrepresentable
from bnfold.folding.underflow import Scaling
from bnfold.folding.walk import Walk, Way, malformed_is_refused, refuse_change_of_kept, towards
from bnfold.graph import Op
from bnfold.ops import RULES, Edit, Moved
from bnfold.ops.quantized import requantized
from bnfold.reasons import Reason, Refused


def shed(op: Op, price: Callable[[Sequence[Edit]], int]) -> tuple[Affine, Way]:
    """What a norm ends with, and the way of all of it into everything that reads the norm.

    Args:
        op: The norm.
        price: How many bytes larger edits make the model; it refuses what may not be done.

    Raises:
        Refused: A reader does not take it, or it is no constant that varies on one axis.
    """
    sheds = RULES[op.type].sheds
    assert sheds is not None
    if op.is_kept:
        raise Refused(Reason.KEPT_BY_NAME)
    with malformed_is_refused(op):
        affine, edits = sheds(op)
        if affine.is_identity:
            return affine, Way()
        if len(affine.axes) > 1:
            raise Refused(Reason.WRONG_AXIS, axes=sorted(affine.axes), op_type=op.type, expected="one axis")
        with towards("down"):
            way = Walk(op).down(op.output, affine)
        way = replace(way, edits=requantized([*edits, Moved(op.output), *way.edits]))
        refuse_shadowed(way.edits)
        refuse_unrepresentable(way.edits, Scaling.of(op, way))
        refuse_change_of_kept(way.edits)
        price(way.edits)
    return affine, way
