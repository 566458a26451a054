"""A report as JUnit XML, which GitLab, Jenkins and most other CI servers show as tests."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from xml.etree import ElementTree as ET

from bnfold.escape import line
from bnfold.page.cases import Case, Level

_RESULTS = {Level.ERROR: "failure", Level.WARNING: "skipped"}


def junit(cases: Iterable[Case]) -> str:
    """A test suite for each file, and in it a test for each case, under its demand."""
    suites = ET.Element("testsuites", name="bnfold")
    files: dict[str, list[Case]] = {}
    for case in cases:
        files.setdefault(case.file, []).append(case)
    for file, judged in files.items():
        _suite(suites, line(file), judged)
    for count in ("tests", "failures", "errors", "skipped"):
        suites.set(count, str(sum(int(suite.get(count, "0")) for suite in suites)))
    ET.indent(suites)
    content: bytes = ET.tostring(suites)  # in ASCII, which any output can take
    return '<?xml version="1.0" encoding="UTF-8"?>\n' + content.decode()


def _suite(suites: ET.Element, name: str, cases: Sequence[Case]) -> None:
    suite = ET.SubElement(suites, "testsuite", name=name)
    for case in cases:
        test = ET.SubElement(suite, "testcase", classname=line(case.demand.name), name=line(case.name))
        details = "\n".join(map(line, case.details))
        if case.is_open:
            ET.SubElement(test, _RESULTS[case.level], message=line(case.message)).text = details
        elif case.message:
            ET.SubElement(test, "system-out").text = "\n".join(filter(None, [line(case.message), details]))
    counts = {"failures": "failure", "skipped": "skipped"}
    suite.attrib.update({"tests": str(len(cases)), "errors": "0"})
    suite.attrib.update({count: str(len(suite.findall(f"testcase/{tag}"))) for count, tag in counts.items()})
