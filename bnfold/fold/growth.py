"""How much larger folds make a model: a weight that several operators share is copied for those that change.

Copies of equal content are one, so a weight of an unrolled loop that changes alike in every step costs nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

from bnfold.fold.apply import Writer, nbytes
from bnfold.fold.options import FoldOptions
from bnfold.fold.unread import unread_after
from bnfold.graph import Constant, Value
from bnfold.model_io import Model
from bnfold.model_io.tensors import raw_size
from bnfold.ops import Assign, Edit
from bnfold.ops.weights import Exact
from bnfold.reasons import Reason, Refused


class Account:
    """How many bytes folds may add to a model, and how many they have added.

    Either all copies that fit one by one also fit together, or none is made: so a second fold, which begins with a
    new account, finds nothing more to do.

    Args:
        model: The model as it came.
        options: Say how much it may grow.
        spent: What earlier folds have added.
        together: What all folds together would add, if that is known to be too much.
    """

    def __init__(self, model: Model, options: FoldOptions, spent: int = 0, together: int = 0) -> None:
        self.spent = spent
        self._model = model
        self._options = options
        self._together = together
        self._most: float | None = None

    @property
    def is_overdrawn(self) -> bool:
        return self.spent > 0 and self.spent > self._allowed

    def refuse_beyond(self, size: int) -> None:
        """Refuses a fold that adds so many bytes, if they are too many."""
        if size > 0 and (self._together or size > self._allowed):
            together = max(self._together, size)
            raise Refused(Reason.GROWTH, size=size, together=together, left=int(self._allowed))

    @property
    def _allowed(self) -> float:
        if self._most is None:
            self._most = self._options.growth_of(self._model.nbytes)
        return self._most


def growth(edits: Sequence[Edit], writer: Writer) -> int:
    """How many bytes larger edits make the weights of a model; a number for each channel is none."""
    assigned = [edit for edit in edits if isinstance(edit, Assign) and not _is_vector(edit.constant)]
    new = {writer.key(edit): nbytes(edit.constant) for edit in assigned if writer.copy_of(edit) is None}
    return sum(new.values()) - sum(map(_size, unread_after(edits).values())) if new else 0


def _is_vector(constant: Constant) -> bool:
    return isinstance(constant, Exact) and _is_small(constant.shape)


def _is_small(shape: Sequence[int]) -> bool:
    return prod(shape) == max(shape, default=1)


def _size(value: Value) -> int:
    """The bytes of a weight that the file holds."""
    if value.tensor is not None:
        return 0 if _is_small(value.tensor.dims) else raw_size(value.tensor) or 0
    op = value.producer
    constant = op.graph.constant(value) if op is not None and op.type == "Constant" else None
    return 0 if constant is None or _is_small(constant.shape) else nbytes(constant)
