"""The plan: for every affine node, where it goes or why it stays.

Planning folds a copy of the model's skeleton as it goes, so that each fold sees the edits of those before it;
the model it is given is not touched, and no large weight is computed before the result is written.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from bnfold.folding.affines import remainder
from bnfold.folding.growth import Account
from bnfold.folding.keep import kept_functions
from bnfold.folding.leftover import Leftover
from bnfold.folding.options import FoldOptions
from bnfold.folding.planner import Planner
from bnfold.folding.record import Outcome, Plan, followed
from bnfold.folding.stated import stated_shapes
from bnfold.folding.stored import store_constants
from bnfold.graph import Graph, inlined, old_objects_left_alone
from bnfold.graph.cleanup import drop_stale_notes
from bnfold.limits import NEVER, Deadline
from bnfold.model_io import Model
from bnfold.reasons import Refusal, Refused

_DEFAULT = FoldOptions()
_MOST_RUNS = 4


@np.errstate(all="ignore")  # what is not finite is refused or stays; numpy need not warn of it
def plan(model: Model, options: FoldOptions = _DEFAULT, deadline: Deadline = NEVER) -> Plan:
    """Decides for every affine node of a model, and folds a copy of it accordingly; the model is not changed.

    Where the deadline is over before all are decided, the others stay.

    Raises:
        ModelError: a pattern of ``keep`` matches no node, or stated sizes do not fit the model.
    """
    folded = _run(model, model, options, deadline)
    for _ in range(_MOST_RUNS):  # what the folds of one have made known may open the way for more
        if folded.is_settled:
            break
        again = _run(model, folded.plan.model, options, deadline, folded.growth)
        if not again.plan.changes:
            break
        folded = replace(again, plan=followed(folded.plan, folded.origins, again.plan))
    return replace(folded.plan, original=model)


@dataclass(frozen=True)
class _Folded:
    """What a run over a model has done.

    Attributes:
        plan: What became of each affine node.
        origins: How the nodes that are there now were called in the entries of the plan.
        is_settled: Whether another run would find nothing more to do.
        is_contested: Whether another order of folds might have left less over.
        growth: How many bytes larger the model has become.
    """

    plan: Plan
    origins: dict[str, str]
    is_settled: bool
    is_contested: bool
    growth: int


def _run(original: Model, model: Model, options: FoldOptions, deadline: Deadline, growth: int = 0) -> _Folded:
    has_functions = bool(model.proto.functions)
    own = _best(original, model, options, deadline, growth)
    if not has_functions or not any(_stayed(own.plan)):
        return own
    if any(op.shadowed for op in Graph(model).ops()):
        return own  # written out elsewhere, a name might mean another value
    own = replace(own, is_settled=not own.plan.changes)
    # what a function is given by its caller can only be seen where it is called
    try:
        written_out = inlined(model, but=kept_functions(model, options.keep))
    except Refused as refused:
        return replace(own, plan=_also_refused(own.plan, Refusal(refused.reason, refused.facts)))
    other = _best(original, written_out, options, deadline, growth)
    is_better = _stayed(other.plan) < _stayed(own.plan)
    account = Account(original, options)
    if is_better and (excess := account.excess_of(other.plan.model)):  # what a function holds is there for each call
        beyond = account.refused(excess)
        return replace(own, plan=_also_refused(own.plan, Refusal(beyond.reason, beyond.facts)))
    return replace(other, plan=replace(other.plan, nodes_before=own.plan.nodes_before)) if is_better else own


def _stayed(plan: Plan) -> tuple[int, int]:
    """How many BatchNormalizations found no place, and how many of them are still there."""
    kept = plan.count(Outcome.KEPT)
    return kept + plan.count(Outcome.REPLACED), kept


def _also_refused(plan: Plan, refusal: Refusal) -> Plan:
    """The plan in which one reason more keeps the nodes that stay."""
    stays = Outcome.KEPT, Outcome.REPLACED
    return replace(
        plan,
        entries=tuple(
            replace(entry, refusals=(*entry.refusals, refusal)) if entry.outcome in stays else entry
            for entry in plan.entries
        ),
    )


def _best(original: Model, model: Model, options: FoldOptions, deadline: Deadline, growth: int) -> _Folded:
    """The folds of a copy of a model, in that order of two which leaves less over, if the order may matter."""
    made = _affordable(original, model, options, deadline, growth)
    if not made.is_contested or deadline.is_over:
        return made
    other = _affordable(original, model, options, deadline, growth, batchnorms_first=False)
    return min(made, other, key=lambda folded: remainder(folded.plan.model))


def _affordable(
    original: Model,
    model: Model,
    options: FoldOptions,
    deadline: Deadline,
    growth: int,
    *,
    batchnorms_first: bool = True,
) -> _Folded:
    """The folds of a copy of a model, which comes of the original and is that much larger already."""
    account = Account(original, options, growth)
    made = _fold_copy(model, options, account, deadline, batchnorms_first)
    if account.excess:
        account = Account(original, options, growth, account.excess)
        made = _fold_copy(model, options, account, deadline, batchnorms_first)
    if excess := account.excess_of(made.plan.model):  # by many small ones
        account = Account(original, options, growth, excess, counts_vectors=True)
        made = _fold_copy(model, options, account, deadline, batchnorms_first)
    return made


def _fold_copy(
    model: Model, options: FoldOptions, account: Account, deadline: Deadline, batchnorms_first: bool
) -> _Folded:
    folded = model.copy()
    model.pack()  # a million nodes need not be there twice meanwhile
    graph = Graph(folded, assume_constant=options.assume_constant)
    nodes_before = sum(1 for _ in graph.ops())
    with old_objects_left_alone():
        planner = Planner(graph, options, account, deadline, batchnorms_first=batchnorms_first)
        planner.fold_all()
        if stated := stated_shapes(folded, options):
            planner.assume(stated)
            planner.fold_all()
        leftover = Leftover(options.leftover)
        if leftover is not Leftover.KEEP and planner.replace_batchnorms(leftover):
            planner.fold_all()  # so that a second run finds nothing to do with what stands there now
    if any(entry.outcome is not Outcome.KEPT for entry in planner.entries):
        store_constants(graph)
    drop_stale_notes(graph)
    nodes_after = sum(1 for _ in graph.ops())
    plan = Plan(planner.entries, nodes_before, nodes_after, folded)
    origins = planner.origins()
    graph.commit()
    is_settled = not plan.changes or not planner.is_open
    return _Folded(plan, origins, is_settled, planner.is_contested, account.spent)
