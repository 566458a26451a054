"""How much larger folds make a model: a weight that several operators share is copied for those that change.

Copies of equal content are one, so a weight of an unrolled loop that changes alike in every step costs nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

from bnfold.folding.apply import Writer, nbytes
from bnfold.folding.options import FoldOptions
from bnfold.folding.unread import unread_after
from bnfold.graph import Constant, Value
from bnfold.model_io import Model
from bnfold.model_io.tensors import raw_size
from bnfold.ops import AddBehind, Assign, Edit
from bnfold.ops.weights import Exact
from bnfold.reasons import Reason, Refused


class Account:
    """How many bytes folds may add to a model, and how many they have added.

    Either all copies that fit one by one also fit together, or none is made: so a second fold, which begins with a
    new account, finds nothing more to do. Nor may it find that a model that has grown may grow by more.

    Args:
        model: The model as it came.
        options: Say how much it may grow.
        spent: What earlier folds have added.
        together: What all folds together would add, if that is known to be too much.
        counts_vectors: Whether also a number for each channel counts.
    """

    def __init__(
        self,
        model: Model,
        options: FoldOptions,
        spent: int = 0,
        together: int = 0,
        *,
        counts_vectors: bool = False,
    ) -> None:
        self.spent = spent
        self.counts_vectors = counts_vectors
        self._size = model.nbytes
        self._options = options
        self._together = together
        self._most: float | None = None
        self._refused: list[int] = []

    @property
    def excess(self) -> int:
        """What all folds together would add, if that is too much; else 0."""
        if self.spent <= 0:
            return 0
        later = self._options.growth_of(self._size + self.spent)
        together = self.spent + min((size for size in self._refused if size <= later), default=0)
        return together if together > self._allowed else 0

    def excess_of(self, folded: Model) -> int:
        """By how much a model has grown, if that is too much; else 0."""
        grown = folded.nbytes - self._size
        return grown if grown > self._allowed else 0

    def refuse_beyond(self, size: int) -> None:
        """Refuses a fold that adds so many bytes, if they are too many."""
        if size > 0 and (self._together or size > self._allowed):
            self._refused.append(size)
            raise self.refused(size)

    def refused(self, size: int) -> Refused:
        """The refusal of what adds so many bytes."""
        return Refused(Reason.GROWTH, size=size, together=max(self._together, size), left=int(self._allowed))

    @property
    def _allowed(self) -> float:
        if self._most is None:
            self._most = self._options.growth_of(self._size)
        return self._most


def growth(edits: Sequence[Edit], writer: Writer, *, counts_vectors: bool = False) -> int:
    """How many bytes larger edits make the weights of a model; a number for each channel is none, unless it counts."""
    assigned = [edit for edit in edits if isinstance(edit, Assign)]
    counted = [edit for edit in assigned if counts_vectors or not _is_vector(edit.constant)]
    new = {writer.key(edit): nbytes(edit.constant) for edit in counted if writer.copy_of(edit) is None}
    added = sum(new.values())
    if counts_vectors:
        added += sum(nbytes(edit.constant) for edit in edits if isinstance(edit, AddBehind))
    return added - sum(_size(value, counts_vectors) for value in unread_after(edits).values()) if added else 0


def _is_vector(constant: Constant) -> bool:
    return isinstance(constant, Exact) and _is_small(constant.shape)


def _is_small(shape: Sequence[int]) -> bool:
    return prod(shape) == max(shape, default=1)


def _size(value: Value, counts_vectors: bool) -> int:
    """The bytes of a weight that the file holds."""
    if value.tensor is not None:
        return raw_size(value.tensor) or 0 if counts_vectors or not _is_small(value.tensor.dims) else 0
    op = value.producer
    constant = op.graph.constant(value) if op is not None and op.type == "Constant" else None
    return 0 if constant is None or (_is_small(constant.shape) and not counts_vectors) else nbytes(constant)
