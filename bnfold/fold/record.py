"""What happened to each affine: the plan's records, plain data for reports and tests."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum

from bnfold.model_io import Model
from bnfold.reasons import Refusal


class Outcome(Enum):
    """What became of an affine node."""

    FOLDED = "folded"  # it is gone
    REDUCED = "reduced"  # a single Add or Mul stands in its place
    KEPT = "kept"  # it stays as it was
    REPLACED = "replaced"  # it found no place; a Mul and an Add, or a depthwise Conv, compute what it did
    MERGED = "merged"  # not an affine node: a branch of a sum that went into a Conv beside it


@dataclass(frozen=True)
class Entry:
    """One affine node of the model and what became of it.

    Attributes:
        node: The node's name, or that of its output where it has none.
        op_type: BatchNormalization, Mul, Add, …
        outcome: What became of it.
        into: The nodes that took it in.
        through: The nodes that it passed on its way.
        refusals: For a node that stays or is replaced: why each way that was tried ended.
        renamed: Values whose meaning changed: old name to new name.
        copied: Shared weights that had to be copied: name to size in bytes.
    """

    node: str
    op_type: str
    outcome: Outcome
    into: tuple[str, ...] = ()
    through: tuple[str, ...] = ()
    refusals: tuple[Refusal, ...] = ()
    renamed: dict[str, str] = field(default_factory=dict)
    copied: dict[str, int] = field(default_factory=dict)

    @property
    def is_batchnorm(self) -> bool:
        return self.op_type == "BatchNormalization"


@dataclass(frozen=True)
class Plan:
    """Every affine node in graph order, and the model in which the folds are done.

    Attributes:
        entries: One for each BatchNormalization and each other per-channel affine.
        nodes_before: Nodes of the model, subgraphs and functions included.
        nodes_after: The same once it is folded.
        model: The folded model; its new weights are computed when it is saved.
    """

    entries: tuple[Entry, ...]
    nodes_before: int
    nodes_after: int
    model: Model

    @property
    def changes(self) -> bool:
        """Whether anything folds."""
        return any(entry.outcome is not Outcome.KEPT for entry in self.entries)

    def count(self, outcome: Outcome, *, batchnorms: bool = True) -> int:
        """How many BatchNormalizations (or, if not, other affines) have this outcome."""
        return sum(entry.outcome is outcome and entry.is_batchnorm is batchnorms for entry in self.entries)
