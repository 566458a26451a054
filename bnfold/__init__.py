"""Takes every removable BatchNormalization out of an ONNX model and proves that nothing changed.

    >>> import bnfold
    >>> print(bnfold.optimize("model.onnx"))  # doctest: +SKIP

Everything here is imported when it is first used: `bnfold --version` must not wait for onnx.
"""

from __future__ import annotations

import sys
from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING

__version__ = "0.1.0"

if TYPE_CHECKING:
    from bnfold.api import NotAllFolded, NotEquivalent, NotVerified, VerifyMode, check, fold, optimize, plan
    from bnfold.calibrate import Calibration, Drift, Images, calibrate, drift
    from bnfold.certificate import CertificateCheck, verify_certificate
    from bnfold.fold import Entry, Leftover, Outcome, Plan
    from bnfold.model_io import ModelError
    from bnfold.reasons import Reason, Refusal
    from bnfold.report import Checked, Optimized
    from bnfold.verify import Verdict, Verification, verify

__all__ = [
    "Calibration",
    "CertificateCheck",
    "Checked",
    "Drift",
    "Entry",
    "Images",
    "Leftover",
    "ModelError",
    "NotAllFolded",
    "NotEquivalent",
    "NotVerified",
    "Optimized",
    "Outcome",
    "Plan",
    "Reason",
    "Refusal",
    "Verdict",
    "Verification",
    "VerifyMode",
    "calibrate",
    "check",
    "drift",
    "fold",
    "optimize",
    "plan",
    "verify",
    "verify_certificate",
]

_HOMES = {
    **dict.fromkeys(__all__, "bnfold.api"),
    **dict.fromkeys(("Calibration", "Drift", "Images", "calibrate", "drift"), "bnfold.calibrate"),
    **dict.fromkeys(("CertificateCheck", "verify_certificate"), "bnfold.certificate"),
    **dict.fromkeys(("Entry", "Leftover", "Outcome", "Plan"), "bnfold.fold"),
    **dict.fromkeys(("Reason", "Refusal"), "bnfold.reasons"),
    **dict.fromkeys(("Checked", "Optimized"), "bnfold.report"),
    **dict.fromkeys(("Verdict", "Verification", "verify"), "bnfold.verify"),
    "ModelError": "bnfold.model_io",
}
"""The module that each public name is taken from."""


class _Package(ModuleType):
    """In which `bnfold.fold` is the verb, although importing the package `bnfold.fold` would rebind that name."""

    def __setattr__(self, name: str, value: object) -> None:
        if not (name in _HOMES and isinstance(value, ModuleType)):
            super().__setattr__(name, value)


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(_HOMES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return [*__all__, "__version__"]


sys.modules[__name__].__class__ = _Package
