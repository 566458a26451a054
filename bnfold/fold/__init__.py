"""When to fold: the plan decides and records, apply writes, cleanup leaves nothing dead."""

from bnfold.fold.leftover import Leftover
from bnfold.fold.plan import plan
from bnfold.fold.record import Entry, Outcome, Plan

__all__ = ["Entry", "Leftover", "Outcome", "Plan", "plan"]
