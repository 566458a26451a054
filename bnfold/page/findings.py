"""A report as SARIF 2.1.0, for GitHub's code scanning and other viewers of findings.

https://docs.oasis-open.org/sarif/sarif/v2.1.0/sarif-v2.1.0.html
"""

from __future__ import annotations

from collections.abc import Iterable
from hashlib import sha256
from pathlib import Path
from urllib.parse import quote

from bnfold.escape import as_json, line
from bnfold.page.cases import Case, Demand
from bnfold.version import __version__

_HOME = "https://github.com/OWNER/bnfold"


def sarif(cases: Iterable[Case]) -> str:
    """A result for each case that somebody has to look at."""
    found = [case for case in cases if case.is_open]
    demands = list(dict.fromkeys(case.demand for case in found))
    driver = {
        "name": "bnfold",
        "version": __version__,
        "informationUri": _HOME,
        "rules": [_rule(demand) for demand in demands],
    }
    run = {"tool": {"driver": driver}, "results": [_result(case, demands.index(case.demand)) for case in found]}
    schema = "https://json.schemastore.org/sarif-2.1.0.json"
    return as_json({"$schema": schema, "version": "2.1.0", "runs": [run]})


def _rule(demand: Demand) -> dict[str, object]:
    text = {"text": demand.broken}
    return {"id": demand.name, "shortDescription": text, "helpUri": f"{_HOME}/blob/main/docs/ci.md"}


def _result(case: Case, rule: int) -> dict[str, object]:
    place = {
        "artifactLocation": {"uri": _uri(case.file)},
        "region": {"startLine": 1},  # a model has no lines, but GitHub leaves out what has no region
    }
    told = "; ".join(filter(None, [f"{case.name}: {case.message}", *case.details]))
    return {
        "ruleId": case.demand.name,
        "ruleIndex": rule,
        "level": case.level.value,
        "message": {"text": _message(told)},
        "locations": [{"physicalLocation": place, "logicalLocations": [{"name": case.name}]}],
        # by which GitHub knows a finding again; its own is made of the lines of a text
        "partialFingerprints": {"primaryLocationLineHash": _fingerprint(case)},
    }


def _message(text: str) -> str:
    """A plain text message of SARIF: brackets would be a link in it, braces a placeholder."""
    text = line(text)
    for char in "\\[]":
        text = text.replace(char, f"\\{char}")
    return text.replace("{", "{{").replace("}", "}}")


def _uri(file: str) -> str:
    """Relative to the repository, if that is how it was given."""
    path = Path(file)
    if path.is_absolute():
        return path.as_uri()
    return quote(path.as_posix(), errors="surrogateescape")


def _fingerprint(case: Case) -> str:
    text = "\0".join((case.file, case.demand.name, case.name))
    return sha256(text.encode("utf-8", "surrogatepass")).hexdigest()
