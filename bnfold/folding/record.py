"""What happened to each affine: the plan's records, plain data for reports and tests."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field, replace
from enum import Enum
from functools import cached_property
from typing import Any

from bnfold.affine import Extent
from bnfold.graph import Shape
from bnfold.model_io import Holder, Model
from bnfold.model_io.tensors import all_nodes
from bnfold.reasons import Refusal


class Outcome(Enum):
    """What became of an affine node."""

    FOLDED = "folded"  # it is gone
    REDUCED = "reduced"  # a single Add or Mul stands in its place
    CLEARED = "cleared"  # a norm: it stays, with a scale of 1 and no bias
    KEPT = "kept"  # it stays as it was
    REPLACED = "replaced"  # it found no place; a Mul and an Add, or a depthwise Conv, compute what it did
    MERGED = "merged"  # not an affine node: a branch of a sum that went into a Conv beside it


class Ability(Enum):
    """What an operator did with an affine."""

    IS_AFFINE = "is an affine"
    TOOK_OUTPUT = "took in what follows it"
    TOOK_INPUT = "took in what precedes it"
    LIFTED = "let it pass upwards"
    SANK = "let it pass downwards"
    BRANCHED = "has it in each branch"
    TOOK_BESIDE = "took in what is added to it"
    COMPUTED = "made a constant of constants"
    STORED = "holds the constant that came of it"
    SHED = "gave its scale and bias away"


@dataclass(frozen=True, eq=False)
class Answer:
    """One operator's answer on the way of an affine: it met all conditions of a rule.

    Attributes:
        node: The operator's name, or that of its output where it has none.
        op_type: Its type.
        ability: What it did.
        rule: The function that says so, and whose docstring is the equation; None where there is no rule to it.
        extent: What was asked of it; not the affine itself, which may have a number for each of many channels.
    """

    node: str
    op_type: str
    ability: Ability
    rule: Callable[..., Any] | None
    extent: Extent


@dataclass(frozen=True)
class Remnant:
    """A node that stands where an affine node stood.

    Attributes:
        node: Its name in the folded model, or that of its output where it has none.
        op_type: Its type.
    """

    node: str
    op_type: str


@dataclass(frozen=True)
class Entry:
    """One affine node of the model and what became of it.

    Nodes are called by their names, or by those that their outputs had before the fold where they have none.

    Attributes:
        node: The node.
        op_type: BatchNormalization, Mul, Add, …
        outcome: What became of it.
        into: The nodes that took it in.
        through: The nodes that it passed on its way.
        left: For a node that is reduced or replaced: what stands in its place.
        refusals: For a node that is not gone: why each way that was tried ended; of a reduced one, each way without
            anything left.
        renamed: Values whose meaning changed: old name to new name.
        copied: Shared weights that had to be copied: name to size in bytes.
        wrote: Names of the constants that were made for it; a later fold may have put others in their place.
        answers: What it rests on: the answer of every operator on its way, its own first.
        part_of: Where several nodes spell a BatchNormalization out, the first of them.
        assumes: Shapes of inputs without which it would have found no place: what was done may be wrong for others.
    """

    node: str
    op_type: str
    outcome: Outcome
    into: tuple[str, ...] = ()
    through: tuple[str, ...] = ()
    left: tuple[Remnant, ...] = ()
    refusals: tuple[Refusal, ...] = ()
    renamed: dict[str, str] = field(default_factory=dict)
    copied: dict[str, int] = field(default_factory=dict)
    wrote: tuple[str, ...] = ()
    answers: tuple[Answer, ...] = field(default=(), compare=False, repr=False)
    part_of: str = ""
    assumes: Mapping[str, Shape] = field(default_factory=dict)

    @property
    def is_batchnorm(self) -> bool:
        return self.op_type == "BatchNormalization"

    @property
    def is_norm(self) -> bool:
        """Whether it is a norm that has a scale of its own, which stays."""
        return self.op_type.endswith("Normalization") and not self.is_batchnorm

    @property
    def is_other(self) -> bool:
        """Whether it is no BatchNormalization, nor part of one that is spelt out."""
        return not (self.is_batchnorm or self.part_of)


@dataclass(frozen=True)
class Plan(Holder):
    """Every affine node in graph order, and the model in which the folds are done.

    Attributes:
        entries: One for each BatchNormalization and each other per-channel affine.
        nodes_before: Nodes of the model, subgraphs and functions included.
        nodes_after: The same once it is folded.
        model: The folded model; its new weights are computed when it is saved.
        original: The model that was planned for; None if the plan was not made of one.
    """

    entries: tuple[Entry, ...]
    nodes_before: int
    nodes_after: int
    model: Model
    original: Model | None = None

    @property
    def _held(self) -> Model:
        return self.model

    @property
    def changes(self) -> bool:
        """Whether anything folds."""
        return any(entry.outcome is not Outcome.KEPT for entry in self.entries)

    def renamed(self, entry: Entry) -> dict[str, str]:
        """The values of the original model whose meaning an entry changed, and their names in the folded one."""
        if self.original is None:
            return entry.renamed
        found = {old: self._last_name(new) for old, new in entry.renamed.items() if old in self._names_before}
        return {old: new for old, new in found.items() if new in self._names_after}

    def _last_name(self, name: str) -> str:
        """What a value is called in the end, that other folds have renamed since."""
        met = {name}
        while (later := self._renamings.get(name)) is not None and later not in met:
            name = later
            met.add(name)
        return name

    @cached_property
    def _renamings(self) -> dict[str, str]:
        return {old: new for entry in self.entries for old, new in entry.renamed.items()}

    @cached_property
    def _names_before(self) -> Collection[str]:
        return () if self.original is None else _made_in(self.original)

    @cached_property
    def _names_after(self) -> Collection[str]:
        return _made_in(self.model)

    @property
    def spelt_out(self) -> dict[str, Outcome]:
        """What became of each BatchNormalization that other nodes spell out, by the first of them."""
        fates: dict[str, set[Outcome]] = defaultdict(set)
        for entry in self.entries:
            if entry.part_of:
                fates[entry.part_of].add(entry.outcome)
        return {name: next(iter(fate)) if len(fate) == 1 else Outcome.REDUCED for name, fate in fates.items()}

    def count(self, outcome: Outcome, *, batchnorms: bool = True) -> int:
        """How many BatchNormalizations (or, if not, other affines) have this outcome."""
        return sum(entry.outcome is outcome and entry.is_batchnorm is batchnorms for entry in self.entries)

    def count_batchnorms(self, outcome: Outcome) -> int:
        """How many BatchNormalizations have this outcome, those that are spelt out among them."""
        return self.count(outcome) + list(self.spelt_out.values()).count(outcome)

    def count_others(self, outcome: Outcome) -> int:
        """How many of what is left then, norms aside, have this outcome."""
        return sum(entry.outcome is outcome and entry.is_other and not entry.is_norm for entry in self.entries)

    def count_norms(self, outcome: Outcome) -> int:
        """How many norms have this outcome."""
        return sum(entry.outcome is outcome and entry.is_norm for entry in self.entries)


def _made_in(model: Model) -> set[str]:
    """The names of all values that nodes make."""
    return {name for node in all_nodes(model.proto) for name in node.output}


def followed(first: Plan, origins: dict[str, str], again: Plan) -> Plan:
    """The plan of two runs, one over what the other has made.

    Args:
        first: The plan of the first.
        origins: How nodes that the second found are called in the first plan.
        again: The plan of the second.
    """
    later: dict[str, list[Entry]] = defaultdict(list)
    for entry in again.entries:
        if entry.outcome is not Outcome.MERGED:
            later[origins.get(entry.node, entry.node)].append(entry)
    entries = []
    for entry in first.entries:
        found = later.get(entry.node)
        is_there = entry.outcome in (Outcome.KEPT, Outcome.REDUCED, Outcome.REPLACED)
        if entry.outcome is Outcome.CLEARED:
            later.pop(entry.node, None)  # what it has left behind its readers
        if is_there and found:
            entries.append(_followed(entry, found.pop(0)))
        elif entry.outcome is not Outcome.KEPT:  # one that is there no more stood in a function
            entries.append(entry)
    merged = [entry for entry in again.entries if entry.outcome is Outcome.MERGED]
    new = [entry for rest in later.values() for entry in rest]
    return Plan((*entries, *new, *merged), first.nodes_before, again.nodes_after, again.model)


def _followed(entry: Entry, later: Entry) -> Entry:
    """What became of a node, and later of what was left of it."""
    if later.outcome is Outcome.KEPT:
        return replace(entry, refusals=later.refusals) if entry.outcome is Outcome.KEPT else entry
    return replace(
        entry,
        outcome=later.outcome,
        into=tuple(dict.fromkeys([*entry.into, *later.into])),
        through=tuple(dict.fromkeys([*entry.through, *later.through])),
        left=later.left,
        refusals=later.refusals,
        renamed=entry.renamed | later.renamed,
        copied=entry.copied | later.copied,
        wrote=tuple(dict.fromkeys([*entry.wrote, *later.wrote])),
        answers=(*entry.answers, *later.answers),
        assumes={**entry.assumes, **later.assumes},
    )
