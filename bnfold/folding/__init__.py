"""When to fold: the plan decides and records, apply writes."""

from bnfold.folding.leftover import Leftover
from bnfold.folding.options import FoldArguments, FoldOptions
from bnfold.folding.planning import plan
from bnfold.folding.record import Entry, Outcome, Plan

__all__ = ["Entry", "FoldArguments", "FoldOptions", "Leftover", "Outcome", "Plan", "plan"]
