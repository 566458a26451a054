"""Checking a certificate again: what it says of the files, without trusting it."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bnfold import escape
from bnfold.certificate.conditions import differing, entries
from bnfold.certificate.contents import differences
from bnfold.certificate.exactness import parameters
from bnfold.certificate.files import refuse_changed, seen
from bnfold.certificate.record import Certificate, CertificateError, ModelSeen, Parameter, read
from bnfold.certificate.write import versions
from bnfold.folding import plan
from bnfold.limits import Deadline
from bnfold.model_io import Model, load
from bnfold.page import Case, Demand, Level, Page
from bnfold.verification import Outcome, Verdict, Verification, verify

_HOLDS = Demand("certificate", "statements of the certificate that do not hold")
_SLACK = 1e-9  # of an ULP: floating-point numbers in JSON, on another machine


@dataclass(frozen=True)
class CertificateCheck:
    """What checking a certificate came to.

    Attributes:
        certificate: The record.
        findings: What does not agree; nothing if all does.
        parameters: How many folded parameters were computed anew.
        largest_ulp: Their largest error.
        verification: What verifying again found; None if that was not done.
    """

    certificate: Certificate
    findings: tuple[str, ...]
    parameters: int
    largest_ulp: float
    verification: Verification | None = None

    @property
    def holds(self) -> bool:
        """Whether everything agrees with the record."""
        return not self.findings

    def __str__(self) -> str:
        """One line, and one for each finding."""
        if not self.holds:
            lines = ["the certificate does not hold:", *(f"  {finding}" for finding in self.findings)]
            return "\n".join(map(escape.line, lines))
        static = (
            f"AFTER is bit for bit what folding makes of BEFORE, "
            f"{self.parameters} folded parameters within {self.largest_ulp:.3g} ULP"
        )
        measured = "nothing was run"
        if self.verification is not None:
            measured = f"verified again: {self.verification}"
        return f"the certificate holds: {static}; {measured}"

    def page(self, *, verbose: bool = False) -> Page:  # noqa: ARG002 -- there is no more to tell
        """What there is to say."""
        head, *findings = str(self).splitlines()
        return Page(head, tuple(finding.removeprefix("  ") for finding in findings))

    def cases(self) -> tuple[Case, ...]:
        """Each finding, or that there is none."""
        file = self.certificate.after.file.path
        if self.holds:
            return (Case(file, _HOLDS, "holds", Level.PASSED, str(self)),)
        return tuple(Case(file, _HOLDS, "holds", Level.ERROR, finding) for finding in self.findings)

    @property
    def ok(self) -> bool:
        """The same as `holds`, as other results have it."""
        return self.holds

    def __bool__(self) -> bool:
        return self.ok

    def to_dict(self) -> dict[str, Any]:
        """As plain data."""
        return {
            "holds": self.holds,
            "findings": list(self.findings),
            "parameters": self.parameters,
            "largest_ulp": self.largest_ulp,
            "verification": None if self.verification is None else self.verification.to_dict(),
        }


def verify_certificate(
    certificate: str | os.PathLike[str],
    before: str | os.PathLike[str] | None = None,
    after: str | os.PathLike[str] | None = None,
    *,
    static: bool = False,
    timeout: float = 1800.0,
    memory: int | None = None,
    progress: Callable[[str, int, int], None] | None = None,
) -> CertificateCheck:
    """Checks what `optimize` certified: folds BEFORE once more, and verifies once more.

    Args:
        certificate: The file that `optimize` wrote.
        before: Where the model is now, if not where the certificate says.
        after: Where the folded model is now, if not where the certificate says.
        static: Do not run the verification again; linear in the size of the model, and runs nothing.
        timeout: Seconds for folding once more, as many for comparing, and for running the models.
        memory: Bytes for running the models; None for as much as there is.
        progress: Told what is being done, how much of it is done, and how much there is.

    Raises:
        ModelError: The certificate or a model cannot be read, or a file is not what it was.
        TimeoutError: Folding once more would take longer.
    """
    path = Path(certificate)
    record = read(path)
    old = _loaded(record.before, "model", before, path)
    new = _loaded(record.after, "folded model", after, path)
    findings = [] if record.verification is None else list(_recorded(record.verification))
    deadline = Deadline.after(timeout)
    planned = plan(old, record.options.fold, deadline)
    deadline.heed()  # else what was not decided in time would be taken for another fold
    computed = tuple(parameters(planned.model)) if planned.changes else ()
    findings += [
        *_of_entries(record, entries(planned)),
        *_of_parameters(record, computed),
        *differences(planned.model if planned.changes else old, new),
    ]
    if findings and (other := _other_versions(record)):
        findings.append(f"versions differ: {other}")
    found = None
    if record.verification is not None and not static:
        options = record.options
        found = verify(
            old,
            new,
            shapes=options.fold.shapes,
            dims=options.fold.dims,
            seed=options.seed,
            timeout=timeout,
            memory=memory,
            strict=False,  # as it was when the record was made
            progress=progress,
        )
        findings += _of_verdicts(record.verification, found)
    largest = max((parameter.ulp for parameter in computed), default=0.0)
    return CertificateCheck(record, tuple(findings), len(computed), largest, found)


def _loaded(recorded: ModelSeen, what: str, given: str | os.PathLike[str] | None, certificate: Path) -> Model:
    path = certificate.parent / recorded.file.path if given is None else Path(given)
    if not path.is_file():
        raise CertificateError(f"{path}: the {what} of the certificate is not there")
    model = load(path)
    refuse_changed(recorded, seen(model, path, certificate.parent), what, path)
    return model


def _of_entries(record: Certificate, planned: tuple[dict[str, Any], ...]) -> Iterator[str]:
    if len(record.entries) != len(planned):
        yield f"{len(record.entries)} affine nodes are recorded, {len(planned)} are found"
        return
    for recorded, entry in zip(record.entries, planned, strict=True):
        if wrong := differing(recorded, entry):
            yield f"{entry['op_type']} {entry['node']!r}: the record has another {', '.join(wrong)}"


def _of_parameters(record: Certificate, computed: tuple[Parameter, ...]) -> Iterator[str]:
    recorded = {parameter.name: parameter for parameter in record.parameters}
    if set(recorded) != {parameter.name for parameter in computed} or len(recorded) != len(record.parameters):
        yield "the record has other parameters than folding writes"
    for parameter in computed:
        if not parameter.is_exact:
            yield f"parameter {parameter.name!r}: {parameter.ulp:.3g} ULP from the exact value"
        other = recorded.get(parameter.name)
        if other is not None and not _agree(other, parameter):
            yield f"parameter {parameter.name!r}: {other.ulp:.3g} ULP are recorded, {parameter.ulp:.3g} are found"


def _agree(recorded: Parameter, found: Parameter) -> bool:
    alike = (recorded.dtype, recorded.shape, recorded.limit) == (found.dtype, found.shape, found.limit)
    return alike and abs(recorded.ulp - found.ulp) <= _SLACK


def _recorded(verification: Mapping[str, Any]) -> Iterator[str]:
    if verification["verdict"] == Verdict.DIFFERENT.value:
        yield "the record itself says that the models are different"


def _of_verdicts(recorded: Mapping[str, Any], found: Verification) -> Iterator[str]:
    if recorded["verdict"] != found.verdict.value:
        yield f"verified again, the models are {found.verdict.value}; {recorded['verdict']!r} is recorded"
    if recorded.get("complete") != found.complete:
        yield "the record and the verification differ in whether every region was evaluated"
    fates = [(region.value, region.outcome.value) for region in found.regions]
    if [(region.get("value"), region.get("outcome")) for region in recorded["regions"]] != fates:
        yield "the regions that were verified again, or what became of them, are others than those recorded"
    yield from (str(region) for region in found.regions if region.outcome is Outcome.DIFFERENT)


def _other_versions(record: Certificate) -> str:
    now = versions()
    return ", ".join(
        f"{name} {record.versions.get(name)} then, {now[name]} now"
        for name in now
        if record.versions.get(name) != now[name]
    )
