"""Which operators of a model before and after its fold are meant by the names that a plan has."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from functools import cached_property

from bnfold.folding import Outcome, Plan
from bnfold.graph import Graph, Op, inlined
from bnfold.model_io import Model
from bnfold.reasons import Refused

_FARTHEST = 64  # affine nodes behind one another that were folded


class Twins:
    """The graphs of a plan. Nodes are called as in its entries: by names that they have, or had, before the fold."""

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self._before = _by_name(_graph(plan, plan.original)) if plan.original is not None else {}
        after = Graph(plan.model)
        self._after = _by_name(after)
        self._makers = {value.name: op for op in after.ops() for value in op.outputs if value is not None}

    def before(self, name: str, op_type: str) -> Op | None:
        """The operator of that name and type in the original."""
        return _of_type(self._before, name, op_type)

    def after(self, name: str, op_type: str) -> Op | None:
        """The operator in the folded model that is the one of that name and type in the original."""
        before = self.before(name, op_type)
        if before is None or before.node.name:
            return _of_type(self._after, name, op_type)
        # one without a name is known by its output, which may have taken the name of what was folded into it
        for _ in range(_FARTHEST):
            found = self._makers.get(_last(name, self._renamed))
            if found is not None and found.type == op_type:
                return found
            following = self._following(name)
            if following is None:
                break
            name = following
        return None

    def heir(self, name: str, op_type: str) -> Op | None:
        """The same; of a branch of a sum that was merged, what it went into."""
        return self.after(_last(name, self._heirs), op_type)

    def left(self, name: str, op_type: str) -> Op | None:
        """The operator of the folded model that is called so there."""
        return _of_type(self._after, name, op_type)

    def _following(self, name: str) -> str | None:
        """The output of the folded affine node that reads a value of the original."""
        for op in self._readers.get(name, ()):
            if (op.type, op.label) in self._folded and op.outputs and op.outputs[0] is not None:
                return op.outputs[0].name
        return None

    @cached_property
    def _readers(self) -> Mapping[str, list[Op]]:
        readers: dict[str, list[Op]] = defaultdict(list)
        for ops in self._before.values():
            for op in ops:
                for value in op.inputs:
                    if value is not None:
                        readers[value.name].append(op)
        return readers

    @cached_property
    def _folded(self) -> set[tuple[str, str]]:
        return {(entry.op_type, entry.node) for entry in self._plan.entries if entry.outcome is Outcome.FOLDED}

    @cached_property
    def _heirs(self) -> dict[str, str]:
        """Branches of sums that were merged, and what each went into."""
        merged = (entry for entry in self._plan.entries if entry.outcome is Outcome.MERGED and entry.into)
        return {entry.node: entry.into[0] for entry in merged}

    @cached_property
    def _renamed(self) -> dict[str, str]:
        renamed: dict[str, str] = {}
        for entry in self._plan.entries:
            renamed |= entry.renamed
        return renamed


def _last(name: str, followers: Mapping[str, str]) -> str:
    """What a name has become after all that followed."""
    for _ in range(_FARTHEST):
        if name not in followers:
            break
        name = followers[name]
    return name


def _graph(plan: Plan, original: Model) -> Graph:
    """The original; with its functions written out, if that is what was folded."""
    graph = Graph(original)
    if not original.proto.functions or plan.model.proto.functions:
        return graph
    try:
        return Graph(inlined(original))
    except Refused:
        return graph


def _by_name(graph: Graph) -> dict[str, list[Op]]:
    ops: dict[str, list[Op]] = defaultdict(list)
    for op in graph.ops():
        ops[op.label].append(op)
    return ops


def _of_type(ops: Mapping[str, list[Op]], name: str, op_type: str) -> Op | None:
    """The one of that name; None also where there are several of its type, since none is meant more than another."""
    found = [op for op in ops.get(name, ()) if op.type == op_type]
    return found[0] if len(found) == 1 else None
