"""Making a certificate, and writing it whole or not at all."""

from __future__ import annotations

import os
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from bnfold.certificate.conditions import entries
from bnfold.certificate.exactness import parameters
from bnfold.certificate.files import seen
from bnfold.certificate.record import Certificate, CertificateError, Options
from bnfold.folding import Plan
from bnfold.model_io import Model, check_text, load, write_text
from bnfold.verification.result import Verification
from bnfold.version import __version__

_PACKAGES = ("onnx", "onnxruntime", "numpy")


class Draft:
    """A certificate in the making: nothing is written before the folded model is in its place."""

    def __init__(self, path: Path, before: Model | None, target: Path | None, options: Options) -> None:
        """Refuses, before any work is done, what no certificate can be written of.

        Args:
            path: Where the certificate will be.
            before: The model; None if it is calibrated first, so that no file holds what is folded.
            target: Where the folded model will be; None if in no file.
            options: What was asked for.

        Raises:
            CertificateError: the model or the output is no file, or they are one.
            ModelError: no certificate can be written there.
        """
        if before is None:
            raise CertificateError(
                "a certificate is of a fold, and knows nothing of data: calibrate first, into a file of its own "
                "(bnfold calibrate MODEL --data DATA -o CALIBRATED), and optimize that one with --certificate"
            )
        if before.path is None or target is None:
            raise CertificateError("a certificate is of two files: the model must be one, and the output too")
        files = os.path.realpath(before.path), os.path.realpath(target)
        if files[0] == files[1]:
            raise CertificateError("a certificate is of two files: in place, the first would be gone")
        check_text(path, [*files, *before.data_files()])
        self._path, self._options = path, options
        self._before, self._before_path, self._target = before, before.path, target
        self._record: Certificate | None = None

    def fill(self, plan: Plan, staged: Path, verification: Verification | None) -> None:
        """Collects what it says, while the folded model is still where it was verified.

        Args:
            plan: What was folded.
            staged: Where the folded model is now.
            verification: What the verification found.
        """
        folder = self._path.parent
        self._record = Certificate(
            before=seen(self._before, self._before_path, folder),
            after=seen(load(staged), self._target, folder),
            versions=versions(),
            options=self._options,
            entries=entries(plan),
            parameters=tuple(parameters(plan.model)) if plan.changes else (),
            verification=None if verification is None else verification.to_dict(),
        )

    def write(self) -> None:
        """Writes it; what was there is replaced at once or not at all.

        Raises:
            ModelError: it cannot be written.
        """
        assert self._record is not None
        write_text(self._path, self._record.to_json())


def versions() -> dict[str, str]:
    """Of this package and of those that its numbers depend on."""
    return {"bnfold": __version__, **{name: _version(name) for name in _PACKAGES}}


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:  # it may come from a package of another name, such as onnxruntime-gpu
        return "unknown"
