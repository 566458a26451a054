"""How much larger folds make a model: a weight that several operators share is copied for those that change.

Copies of equal content are one, so a weight of an unrolled loop that changes alike in every step costs nothing.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from math import prod

from bnfold.fold.apply import Writer, nbytes
from bnfold.fold.options import FoldOptions
from bnfold.graph import Constant, Use, Value
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
    leaving = {Use(edit.op, edit.index) for edit in assigned}
    new = {writer.key(edit): nbytes(edit.constant) for edit in assigned if writer.copy_of(edit) is None}
    old = dict.fromkeys(edit.op.input(edit.index) for edit in assigned)
    return sum(new.values()) - sum(_released(value, leaving) for value in old if value is not None)


def _is_vector(constant: Constant) -> bool:
    return isinstance(constant, Exact) and prod(constant.shape) == max(constant.shape, default=1)


def _released(value: Value, leaving: Collection[Use]) -> int:
    """The size of the initializers that nothing reads any more once a value has lost these readers."""
    if value.is_output or any(use not in leaving for use in value.readers):
        return 0
    if value.tensor is not None:
        return raw_size(value.tensor) or 0
    op = value.producer
    if op is None or any(other is not None and other is not value and other.readers for other in op.outputs):
        return 0
    if op.type == "Constant":
        constant = op.graph.constant(value)
        return nbytes(constant) if constant is not None else 0
    uses = {Use(op, index) for index in range(len(op.inputs))}
    return sum(_released(source, uses) for source in dict.fromkeys(op.inputs) if source is not None)
