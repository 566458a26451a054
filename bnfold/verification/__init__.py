"""Do two models compute the same? It trusts nothing of the folder."""

from bnfold.graph.ports import InterfaceError
from bnfold.verification.compare import verify
from bnfold.verification.result import Outcome, OutputFigures, RegionResult, Verdict, Verification

__all__ = [
    "InterfaceError",
    "Outcome",
    "OutputFigures",
    "RegionResult",
    "Verdict",
    "Verification",
    "verify",
]
