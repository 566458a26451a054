"""Folding, calibration and verification put together: what `bnfold check` and `bnfold optimize` do."""

from bnfold.optimization.pipeline import (
    NotAllFolded,
    NotEquivalent,
    NotVerified,
    VerifyMode,
    check,
    fold,
    optimize,
    plan,
)
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
