"""Reports of a verification, whatever the names in it."""

import json
from xml.etree import ElementTree as ET

import pytest

from bnfold.page import junit, markdown, render, text
from bnfold.verification.result import Layer, Outcome, OutputFigures, RegionResult, Verdict, Verification
from bnfold.verification.told import Compared

NASTY = "a\x00\x1b[31m<b>&\"'|`*_\n]]>\u2028\ufffe"


def output(name: str = "y", *, passed: bool = True) -> OutputFigures:
    return OutputFigures(
        *(1.0, 0.1, 0.1, 0.1, 0.1, 20.0, 3.0, 0.9, None, 0, 5, (0,)), *(name, 1e-7, 1e-6, "normal", passed)
    )


def region(outcome: Outcome = Outcome.EQUAL, name: str = "y") -> RegionResult:
    operators = (f"Conv {name!r}", f"BatchNormalization {name!r}"), (f"Conv {name!r}",)
    return RegionResult(name, *operators, f"Conv {name!r}", outcome, 1.0, 0.5, 0.1, 3, 1, name)


EVERYTHING = tuple(map(region, Outcome))


@pytest.mark.parametrize("layers", [False, True])
@pytest.mark.parametrize("report_format", ["text", "markdown", "html", "github", "junit"])
def test_names_cannot_break_a_report(report_format, layers):
    """Control characters are spelt out, so that no name moves a cursor, ends a line or makes invalid XML."""
    regions = tuple(region(outcome, NASTY) for outcome in Outcome)
    plain = Verification(Verdict.DIFFERENT, (output(), output(passed=False)), EVERYTHING, reasons=("y",))
    nasty = Verification(Verdict.DIFFERENT, (output(NASTY), output(NASTY, passed=False)), regions, reasons=(NASTY,))
    told = render(Compared(nasty, f"{NASTY}\udcff", NASTY, layers), "verification", report_format)
    assert all(char.isprintable() or char == "\n" for char in told)
    other = render(Compared(plain, "a", "b", layers), "verification", report_format)
    assert len(told.splitlines()) == len(other.splitlines())


def test_names_are_no_markup():
    """Neither Markdown nor HTML."""
    result = Verification(Verdict.DIFFERENT, regions=(region(Outcome.DIFFERENT, NASTY),))
    told = markdown(Compared(result, "", "", layers=True).page())
    assert "<b>" not in told
    table = told.partition("| state |")[0]
    assert all(line.count("|") - line.count("\\|") == 9 for line in table.splitlines() if line.startswith("|"))


@pytest.mark.parametrize("verdict", Verdict)
def test_junit_has_what_its_readers_want(verdict):
    """The attributes that Jenkins's schema requires, with the right counts; failures only where something is wrong."""
    result = Verification(verdict, (output(NASTY), output("z", passed=False)), EVERYTHING, reasons=(NASTY,))
    suites = ET.fromstring(junit(Compared(result, NASTY, NASTY).cases()))
    (suite,) = suites
    assert (suites.tag, suite.tag) == ("testsuites", "testsuite")
    for element in (suites, suite):
        assert element.get("name")
        assert int(element.get("tests")) == len(suite) == 3 + len(EVERYTHING)
        assert int(element.get("failures")) == len(suite.findall("testcase/failure"))
        assert element.get("errors") == "0"
    assert int(suite.get("skipped")) == len(suite.findall("testcase/skipped"))
    assert all(case.get("name") and case.get("classname") for case in suite)
    assert (suite.find("testcase[@classname='models']/failure") is None) == (verdict is Verdict.EQUIVALENT)


def test_layers_shows_every_operator():
    """Also of equal regions, before and after; then all of AFTER in graph order, with what both models share."""
    layers = (Layer("Relu 'r'", "r", is_shared=True), Layer("Conv 'y'", "y", is_shared=False))
    result = Verification(Verdict.EQUIVALENT, regions=(region(),) * 100, complete=True, layers=layers)
    short, long = (text(Compared(result, "", "", layers).page()).splitlines() for layers in (False, True))
    assert short == ["equivalent: 100 of 100 changed regions equal in float64"]
    assert long.count("      before  Conv 'y', BatchNormalization 'y'") == 100
    assert long.count("      after   Conv 'y'") == 100
    assert [line.split()[:3] for line in long[-3:-1]] == [["shared", "Relu", "'r'"], ["equal", "Conv", "'y'"]]
    assert long[-1].startswith("shared: 1 of 2 operators of AFTER")


def test_json_holds_everything():
    """Names come through as they are."""
    result = Verification(Verdict.EQUIVALENT, regions=(region(name=NASTY),))
    content = json.loads(render(Compared(result, "a", "b"), "verification", "json"))
    assert content["regions"][0]["value"] == NASTY
    assert content["regions"][0]["operators"] == [f"Conv {NASTY!r}", f"BatchNormalization {NASTY!r}"]
