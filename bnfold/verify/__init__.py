"""Do two models compute the same? It trusts nothing of the folder."""

from bnfold.verify.compare import verify
from bnfold.verify.ports import InterfaceError
from bnfold.verify.result import Outcome, OutputFigures, RegionResult, Verdict, Verification

__all__ = [
    "InterfaceError",
    "Outcome",
    "OutputFigures",
    "RegionResult",
    "Verdict",
    "Verification",
    "verify",
]
