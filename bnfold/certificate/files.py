"""What is in the files of a model, by their hashes."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

from bnfold.certificate.record import CertificateError, FileSeen, ModelSeen
from bnfold.model_io import Model
from bnfold.model_io.external import ExternalRange
from bnfold.model_io.payload import Range, Source
from bnfold.model_io.tensors import all_tensors


def seen(model: Model, path: Path, folder: Path) -> ModelSeen:
    """The files of a model that was loaded, read through the descriptor that it was loaded by.

    Args:
        model: The model.
        path: Where it is, or will be once it is in its place.
        folder: The folder of the certificate.
    """
    data: dict[str, ExternalRange] = {}
    for tensor in all_tensors(model.proto) if model.has_data_files else ():
        payload = model.payload(tensor)
        if isinstance(payload, ExternalRange):
            data.setdefault(payload.location, payload)
    files = [_seen(payload.open().source, location) for location, payload in sorted(data.items())]
    return ModelSeen(_seen(model.source, _relative(path, folder)), tuple(files))


def refuse_changed(recorded: ModelSeen, found: ModelSeen, what: str, path: Path) -> None:
    """Refuses files that are not those of the record.

    Raises:
        CertificateError: one was changed.
    """
    if recorded.file.sha256 != found.file.sha256:
        raise CertificateError(f"{path}: is not the {what} of the certificate: its content has changed")
    if [(file.path, file.sha256) for file in recorded.data] != [(file.path, file.sha256) for file in found.data]:
        raise CertificateError(f"{path}: a data file of {what} has changed since the certificate was written")


def _seen(source: Source, path: str) -> FileSeen:
    digest = hashlib.sha256()
    for chunk in Range(source, 0, source.size).chunks():
        digest.update(chunk)
    return FileSeen(path, digest.hexdigest(), source.size)


def _relative(path: Path, folder: Path) -> str:
    return Path(os.path.relpath(os.path.abspath(path), os.path.realpath(folder))).as_posix()
