"""Folding, calibration and verification put together: what `bnfold check` and `bnfold optimize` do."""

from bnfold.optimization.errors import NotAllFolded, NotEquivalent, NotVerified
from bnfold.optimization.forecast import check, fold, plan
from bnfold.optimization.pipeline import VerifyMode, optimize
from bnfold.optimization.results import Checked, Optimized

__all__ = [
    "Checked",
    "NotAllFolded",
    "NotEquivalent",
    "NotVerified",
    "Optimized",
    "VerifyMode",
    "check",
    "fold",
    "optimize",
    "plan",
]
