"""What edits leave without a reader: the uses that they do away with, and all that only led there."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field

from bnfold.graph import Op, Use, Value
from bnfold.ops import Assign, Detach, Edit, Moved, Omit, Retype


@dataclass
class Unread:
    """Uses that are gone, and the ops that nothing needs then, those in their bodies included."""

    uses: set[Use] = field(default_factory=set)
    ops: list[Op] = field(default_factory=list)

    def values(self) -> list[Value]:
        """The values that nothing reads any more."""
        read = dict.fromkeys(use.op.input(use.index) for use in self.uses)
        return [value for value in read if value is not None and self.is_unread(value)]

    def is_unread(self, value: Value) -> bool:
        return not value.is_output and self.uses.issuperset(value.readers)


def unread_after(edits: Sequence[Edit]) -> Unread:
    """What nothing reads any more once edits are made."""
    gone = Unread({use for edit in edits for use in _dropped(edit)})
    pending = list(gone.uses)
    while pending:
        use = pending.pop()
        value = use.op.input(use.index)
        op = None if value is None else value.producer
        if op is None or not all(made is None or gone.is_unread(made) for made in op.outputs):
            continue
        inner = list(op.with_inner())
        more = {use for each in inner for use in _uses(each)} - gone.uses
        gone.ops += inner
        gone.uses |= more
        pending += more
    return gone


def op_of(edit: Edit) -> Op:
    """The op in which an edit takes place."""
    if isinstance(edit, Moved):
        assert edit.value.producer is not None  # what an affine passed through, an operator has made
        return edit.value.producer
    return edit.add if isinstance(edit, Detach) else edit.op


def _dropped(edit: Edit) -> Iterator[Use]:
    match edit:
        case Assign() | Omit():
            yield from _uses(edit.op, [edit.index])
        case Retype():
            yield from _uses(edit.op, range(edit.inputs, len(edit.op.inputs)))
        case Detach():
            yield from (use for use in _uses(edit.add) if use.index != edit.stays)


def _uses(op: Op, indices: Iterable[int] | None = None) -> Iterator[Use]:
    """The inputs that are read; of some, if not of all."""
    every = range(len(op.inputs)) if indices is None else indices
    return (Use(op, index) for index in every if op.input(index) is not None)
