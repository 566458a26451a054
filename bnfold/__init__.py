"""Takes every removable BatchNormalization out of an ONNX model and proves that nothing changed.

    >>> import bnfold
    >>> print(bnfold.optimize("model.onnx"))  # doctest: +SKIP

Everything here is imported when it is first used: `bnfold --version` must not wait for onnx, nor `check` for what only
verification needs. No package is named like a verb, so that `bnfold.fold` is always the function.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

from bnfold.version import __version__ as __version__

_PUBLIC = {
    "bnfold.calibration": ["Calibration", "Drift", "Images", "Matched", "RunOptions", "calibrate", "drift"],
    "bnfold.certificate": ["CertificateCheck", "verify_certificate"],
    "bnfold.folding": ["Entry", "FoldOptions", "Leftover", "Outcome", "Plan"],
    "bnfold.model_io": ["ModelError"],
    "bnfold.optimization": [
        *("Checked", "NotAllFolded", "NotEquivalent", "NotVerified", "Optimized", "VerifyMode"),
        *("check", "fold", "optimize", "plan"),
    ],
    "bnfold.reasons": ["Reason", "Refusal"],
    "bnfold.report": ["save_report"],
    "bnfold.verification": ["Verdict", "Verification", "verify"],
}
"""All that is public, by the module that it is taken from; docs/python.md tells what it is."""

_HOMES = {name: module for module, names in _PUBLIC.items() for name in names}

__all__ = sorted(_HOMES)  # noqa: PLE0605 -- it is a list

if TYPE_CHECKING:  # the same for who reads and does not run; a test compares the two
    from bnfold.calibration import Calibration as Calibration
    from bnfold.calibration import Drift as Drift
    from bnfold.calibration import Images as Images
    from bnfold.calibration import Matched as Matched
    from bnfold.calibration import RunOptions as RunOptions
    from bnfold.calibration import calibrate as calibrate
    from bnfold.calibration import drift as drift
    from bnfold.certificate import CertificateCheck as CertificateCheck
    from bnfold.certificate import verify_certificate as verify_certificate
    from bnfold.folding import Entry as Entry
    from bnfold.folding import FoldOptions as FoldOptions
    from bnfold.folding import Leftover as Leftover
    from bnfold.folding import Outcome as Outcome
    from bnfold.folding import Plan as Plan
    from bnfold.model_io import ModelError as ModelError
    from bnfold.optimization import Checked as Checked
    from bnfold.optimization import NotAllFolded as NotAllFolded
    from bnfold.optimization import NotEquivalent as NotEquivalent
    from bnfold.optimization import NotVerified as NotVerified
    from bnfold.optimization import Optimized as Optimized
    from bnfold.optimization import VerifyMode as VerifyMode
    from bnfold.optimization import check as check
    from bnfold.optimization import fold as fold
    from bnfold.optimization import optimize as optimize
    from bnfold.optimization import plan as plan
    from bnfold.reasons import Reason as Reason
    from bnfold.reasons import Refusal as Refusal
    from bnfold.report import save_report as save_report
    from bnfold.verification import Verdict as Verdict
    from bnfold.verification import Verification as Verification
    from bnfold.verification import verify as verify


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(_HOMES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
