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
            alike = self._after.get(name, [])  # a fold may have made a Gemm of a MatMul
            return _of_type(self._after, name, op_type) or (alike[0] if len(alike) == 1 else None)
        # one without a name is known by its output, which may have taken the name of what was folded into it
        for _ in range(_FARTHEST):
            found = self._makers.get(self._now(name))
            if found is not None and found.type == op_type:
                return found
            following = self._following(name)
            if following is None:
                break
            name = following
        return None

    def heir(self, name: str, op_type: str) -> Op | None:
        """The same; of one that is gone itself, what it went into."""
        for _ in range(_FARTHEST):
            found = self.after(name, op_type)
            if found is not None or (name, op_type) not in self._heirs:
                return found
            name, op_type = self._heirs[name, op_type]
        return None

    def left(self, name: str, op_type: str) -> Op | None:
        """The operator of the folded model that is called so there."""
        return _of_type(self._after, name, op_type)

    def _now(self, name: str) -> str:
        """What a value is called after the folds that renamed it."""
        for _ in range(_FARTHEST):
            if name not in self._renamed:
                break
            name = self._renamed[name]
        return name

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
    def _heirs(self) -> dict[tuple[str, str], tuple[str, str]]:
        """What each node that is gone went into: names and types."""
        heirs = {}
        for entry in self._plan.entries:
            types = {answer.node: answer.op_type for answer in entry.answers}
            if entry.outcome in (Outcome.FOLDED, Outcome.MERGED) and entry.into and entry.into[0] in types:
                heirs[entry.node, entry.op_type] = entry.into[0], types[entry.into[0]]
        return heirs

    @cached_property
    def _renamed(self) -> dict[str, str]:
        renamed: dict[str, str] = {}
        for entry in self._plan.entries:
            renamed |= entry.renamed
        return renamed


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
