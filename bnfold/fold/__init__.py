"""When to fold: the plan decides and records, apply writes, cleanup leaves nothing dead."""

from bnfold.fold.leftover import Leftover
from bnfold.fold.options import FoldOptions
from bnfold.fold.plan import plan
from bnfold.fold.record import Entry, Outcome, Plan

__all__ = ["Entry", "FoldOptions", "Leftover", "Outcome", "Plan", "plan"]
