"""The record itself: frozen data, and the JSON that it is kept in. docs/verification.md describes it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TypeVar

from bnfold.folding import FoldOptions
from bnfold.model_io import ModelError

SCHEMA = 1
KIND = "bnfold certificate"
_MOST_BYTES = 1 << 30
_Kind = TypeVar("_Kind")


class CertificateError(ModelError):
    """The record cannot be read, or is of other files than these."""


@dataclass(frozen=True)
class FileSeen:
    """A file, and what was in it.

    Attributes:
        path: Relative to the folder of the certificate; of a data file, as the model names it.
        sha256: Of its content, in hexadecimal digits.
        nbytes: Its size.
    """

    path: str
    sha256: str
    nbytes: int


@dataclass(frozen=True)
class ModelSeen:
    """The file of a model and its data files."""

    file: FileSeen
    data: tuple[FileSeen, ...] = ()


@dataclass(frozen=True)
class Parameter:
    """A constant that a fold wrote.

    Attributes:
        name: Its name in AFTER.
        dtype: The type it is stored in.
        shape: Its shape.
        ulp: The largest distance of a number in it from the exact one, in units in the last place of its type.
        limit: How much that may be.
    """

    name: str
    dtype: str
    shape: tuple[int, ...]
    ulp: float
    limit: float

    @property
    def is_exact(self) -> bool:
        """Whether every number is within the limit."""
        return self.ulp <= self.limit


@dataclass(frozen=True)
class Options:
    """What the fold and the verification were asked for."""

    fold: FoldOptions
    seed: int = 0


@dataclass(frozen=True)
class Certificate:
    """What was folded, into which files, how exactly, and how it was verified.

    Attributes:
        before: The model.
        after: The folded model.
        versions: Of the packages that did it, by name.
        options: What they were asked for.
        entries: What became of each affine node, and what that rests on: plain data.
        parameters: Every constant that was written.
        verification: What the verification found: plain data; None if there was none.
    """

    before: ModelSeen
    after: ModelSeen
    versions: Mapping[str, str]
    options: Options
    entries: tuple[Mapping[str, Any], ...]
    parameters: tuple[Parameter, ...]
    verification: Mapping[str, Any] | None

    @property
    def largest_ulp(self) -> float:
        """The largest error of any parameter; 0 if there is none."""
        return max((parameter.ulp for parameter in self.parameters), default=0.0)

    @property
    def is_exact(self) -> bool:
        """The static verdict: whether every parameter is within its limit."""
        return all(parameter.is_exact for parameter in self.parameters)

    def to_json(self) -> str:
        """The record as it is kept."""
        static = {"exact": self.is_exact, "parameters": len(self.parameters), "largest_ulp": self.largest_ulp}
        content = {"kind": KIND, "schema": SCHEMA, "static": static, **asdict(self)}
        content["options"] = content["options"].pop("fold") | content["options"]
        return json.dumps(content, indent=1) + "\n"  # in ASCII: a name of a file need not be UTF-8


def read(path: Path) -> Certificate:
    """Reads a record.

    Raises:
        CertificateError: It cannot be read, or is no certificate of this schema.
    """
    try:
        if not path.is_file() and path.exists():
            raise CertificateError(f"{path}: is not a regular file")
        if path.stat().st_size > _MOST_BYTES:
            raise CertificateError(f"{path}: is too large for a certificate")
        content = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise CertificateError(f"{path}: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise CertificateError(f"{path}: is no JSON: {error}") from error
    try:
        return _certificate(content)
    except (KeyError, TypeError, ValueError) as error:
        what = f"{error.args[0]!r} is missing" if isinstance(error, KeyError) else str(error)
        raise CertificateError(f"{path}: is no certificate: {what}") from error


def _certificate(content: object) -> Certificate:
    record = _dict(content, "the record")
    if record.get("kind") != KIND:
        raise ValueError(f"its kind is not {KIND!r}")
    if record.get("schema") != SCHEMA:
        raise ValueError(f"this version reads schema {SCHEMA}, it has {record.get('schema')!r}")
    verification = None if record["verification"] is None else _dict(record["verification"], "verification")
    if verification is not None:
        _checked(verification["verdict"], str, "verdict")
        _each(verification["regions"], dict, "regions")
    return Certificate(
        before=_model(record["before"]),
        after=_model(record["after"]),
        versions=_dict(record["versions"], "versions"),
        options=_options(_dict(record["options"], "options")),
        entries=_each(record["entries"], dict, "entries"),
        parameters=tuple(_parameter(entry) for entry in _each(record["parameters"], dict, "parameters")),
        verification=verification,
    )


def _model(content: object) -> ModelSeen:
    model = _dict(content, "a model")
    return ModelSeen(_file(model["file"]), tuple(map(_file, _each(model["data"], dict, "data"))))


def _file(content: object) -> FileSeen:
    file = _dict(content, "a file")
    path, digest = (_checked(file[key], str, key) for key in ("path", "sha256"))
    if not path or "\0" in path:
        raise ValueError("a path is none")
    return FileSeen(path, digest, _checked(file["nbytes"], int, "nbytes"))


def _parameter(content: Mapping[str, Any]) -> Parameter:
    return Parameter(
        name=_checked(content["name"], str, "name"),
        dtype=_checked(content["dtype"], str, "dtype"),
        shape=_each(content["shape"], int, "shape"),
        ulp=float(_checked(content["ulp"], float, "ulp")),
        limit=float(_checked(content["limit"], float, "limit")),
    )


def _options(content: Mapping[str, Any]) -> Options:
    shapes, dims = (_dict(content[key], key) for key in ("shapes", "dims"))
    growth = content["max_growth"]
    fold = FoldOptions(
        keep=_each(content["keep"], str, "keep"),
        assume_constant=_checked(content["assume_constant"], bool, "assume_constant"),
        leftover=_checked(content["leftover"], str, "leftover"),
        max_growth=growth if growth is None or isinstance(growth, str) else _checked(growth, int, "max_growth"),
        inside_patterns=_checked(content.get("inside_patterns", True), bool, "inside_patterns"),  # 0.1.0 knew no other
        fold_norms=_checked(content.get("fold_norms", False), bool, "fold_norms"),
        shapes={name: _each(shape, int, "shapes") for name, shape in shapes.items()},
        dims={name: _checked(size, int, "dims") for name, size in dims.items()},
    )
    return Options(fold, _checked(content["seed"], int, "seed"))


def _dict(value: object, what: str) -> dict[str, Any]:
    found: dict[str, Any] = _checked(value, dict, what)
    return found


def _each(value: object, kind: type[_Kind], what: str) -> tuple[_Kind, ...]:
    entries: list[Any] = _checked(value, list, what)
    return tuple(_checked(entry, kind, f"an entry of {what}") for entry in entries)


def _checked(value: object, kind: type[_Kind], what: str) -> _Kind:
    if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
        raise TypeError(f"{what} is {type(value).__name__}, not {kind.__name__}")
    return value
