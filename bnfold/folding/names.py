"""A fold leaves each name with one meaning, and touches none that has two.

New names are in use nowhere. A value takes a name that is in use where it comes to stand for the value that has it: the
result of a node that goes. It is made earlier than that, and a body in between may have the name for its own.
"""

from __future__ import annotations

from collections.abc import Iterable

from bnfold.folding.unread import op_of
from bnfold.ops import Detach, Edit
from bnfold.reasons import Reason, Refused


def refuse_shadowed(edits: Iterable[Edit]) -> None:
    """Refuses edits of nodes that read or make a value whose name a body has too, or after which there would be such.

    Raises:
        Refused: SHADOWED
    """
    for edit in edits:
        op = op_of(edit)
        if op.shadowed:
            raise Refused(Reason.SHADOWED, value=op.shadowed)
        if isinstance(edit, Detach) and edit.keeps_name:
            name = edit.add.output.name
            if not edit.add.graph.may_be_called(edit.add.data(edit.stays), name):
                raise Refused(Reason.SHADOWED, value=name)
