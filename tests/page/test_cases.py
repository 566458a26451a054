"""What was judged, in the forms that CI servers read."""

import json
import os
import re
from xml.etree import ElementTree as ET

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bnfold.page.annotations import github
from bnfold.page.cases import Case, Demand, Level
from bnfold.page.findings import sarif
from bnfold.page.suites import junit

FOLDABLE = Demand("foldable", "BatchNormalizations that could fold")
TRAINING = Demand("training", "BatchNormalizations in training mode")
CASES = (
    Case("a b.onnx", FOLDABLE, "bn1", Level.ERROR, "could fold into Conv", ("detail",)),
    Case("a b.onnx", TRAINING, "bn2", Level.PASSED),
    Case("a b.onnx", TRAINING, "bn3", Level.NOTE, "kept on purpose"),
    Case("c.onnx", TRAINING, "bn4", Level.WARNING, "could not be told"),
)
TEXTS = st.text() | st.text(st.sampled_from("%:,[]{}()\\<>&\"'\r\n\x00\x1b\u2028\ud800#@a"))


def is_a_path(text: str) -> bool:
    try:
        return bool(os.fsencode(text))
    except UnicodeEncodeError:
        return False


def test_github_annotates_what_somebody_has_to_look_at():
    """Below the lines that tell of everything; one line each."""
    assert github(["a b.onnx: fine", "c.onnx: fine"], CASES).splitlines() == [
        "a b.onnx: fine",
        "c.onnx: fine",
        "::error file=a b.onnx,title=bnfold%3A foldable::a b.onnx: bn1: could fold into Conv",
        "::warning file=c.onnx,title=bnfold%3A training::c.onnx: bn4: could not be told",
    ]


def test_github_has_one_annotation_for_what_is_alike():
    """It shows no more than ten of a level."""
    cases = [Case("m.onnx", FOLDABLE, f"bn{number}", Level.ERROR, "could fold") for number in range(50)]
    assert github([], cases) == (
        "::error file=m.onnx,title=bnfold%3A foldable::"
        "m.onnx: 50 BatchNormalizations that could fold: bn0, bn1, bn2 and 47 more"
    )
    assert github([], cases[:2]).endswith("::m.onnx: 2 BatchNormalizations that could fold: bn0, bn1")


@given(TEXTS, TEXTS)
def test_github_obeys_no_name(file, name):
    """A name neither ends the annotation nor adds a property to it, and is no command of its own."""
    told = github([name], [Case(file, FOLDABLE, name, Level.ERROR, name)])
    headline, annotation = told.split("\n")
    assert not headline.lstrip().startswith("::")
    assert re.fullmatch(r"::error file=[^:,\r\n]*,title=bnfold%3A foldable::[^\r\n]*", annotation)
    assert "##[" not in annotation
    assert annotation.isprintable()


def test_junit_counts():
    """A suite for each file, a failure for an error, and what is open is skipped."""
    suites = ET.fromstring(junit(CASES))
    assert [(suite.get("name"), suite.get("tests")) for suite in suites] == [("a b.onnx", "3"), ("c.onnx", "1")]
    assert {name: suites.get(name) for name in ("tests", "failures", "errors", "skipped")} == {
        "tests": "4",
        "failures": "1",
        "errors": "0",
        "skipped": "1",
    }
    failure = suites.find("testsuite/testcase[@classname='foldable']/failure")
    assert (failure.get("message"), failure.text) == ("could fold into Conv", "detail")
    assert suites.find("testsuite/testcase[@name='bn3']/system-out").text == "kept on purpose"
    assert list(suites.find("testsuite/testcase[@name='bn2']")) == []


@given(TEXTS, TEXTS)
def test_junit_is_xml_whatever_the_names(file, name):
    """Control characters and halves of characters have no place in XML."""
    for level in Level:
        (suite,) = ET.fromstring(junit([Case(file, Demand(name, name), name, level, name, (name, name))]))
        assert len(suite) == 1


def test_sarif_has_what_somebody_has_to_look_at():
    """A result each, which refers to its rule, and says where by URI."""
    content = json.loads(sarif(CASES))
    (run,) = content["runs"]
    assert content["version"] == "2.1.0"
    assert [rule["id"] for rule in run["tool"]["driver"]["rules"]] == ["foldable", "training"]
    assert [(result["ruleId"], result["ruleIndex"], result["level"]) for result in run["results"]] == [
        ("foldable", 0, "error"),
        ("training", 1, "warning"),
    ]
    first = run["results"][0]
    assert first["message"]["text"] == "bn1: could fold into Conv; detail"
    place = first["locations"][0]
    assert place["physicalLocation"]["artifactLocation"]["uri"] == "a%20b.onnx"
    assert place["logicalLocations"] == [{"name": "bn1"}]


def test_sarif_knows_a_finding_again():
    """By file, demand and name, whatever else has changed; and no other one."""
    marks = {
        json.loads(sarif([case]))["runs"][0]["results"][0]["partialFingerprints"]["primaryLocationLineHash"]
        for case in (
            CASES[0],
            Case("a b.onnx", FOLDABLE, "bn1", Level.WARNING, "another message"),
            Case("a b.onnx", FOLDABLE, "bn2", Level.ERROR),
            Case("a b.onnx", TRAINING, "bn1", Level.ERROR),
            Case("a.onnx", FOLDABLE, "bn1", Level.ERROR),
        )
    }
    assert len(marks) == 4


@pytest.mark.parametrize(
    ("name", "told"),
    [
        pytest.param("[a](https://b)", r"\[a\](https://b): ", id="link"),
        pytest.param("{0}", "{{0}}: ", id="placeholder"),
        pytest.param("a\x1b[2J", r"a\\x1b\[2J: ", id="control"),
    ],
)
def test_sarif_has_no_markup(name, told):
    """A name in a message is neither a link nor a placeholder."""
    (result,) = json.loads(sarif([Case("m.onnx", FOLDABLE, name, Level.ERROR)]))["runs"][0]["results"]
    assert result["message"]["text"] == told


@given(TEXTS.map(lambda text: text.replace("\ud800", "\udcff")).filter(is_a_path), TEXTS)
def test_sarif_is_json_whatever_the_names(file, name):
    """With a URI that is one."""
    (result,) = json.loads(sarif([Case(file, FOLDABLE, name, Level.ERROR, name)]))["runs"][0]["results"]
    uri = result["locations"][0]["physicalLocation"]["artifactLocation"]["uri"]
    assert re.fullmatch(r"[\w.~/%:-]*", uri, re.ASCII)


def test_one_annotation_for_each_file():
    """Cases of different files are not put together."""
    cases = [Case(file, FOLDABLE, "bn", Level.ERROR, "why") for file in ("a.onnx", "b.onnx")]
    assert [line.partition(",")[0] for line in github([], cases).splitlines()] == [
        f"::error file={file}" for file in ("a.onnx", "b.onnx")
    ]


def test_three_names_are_all():
    """There is no more."""
    cases = [Case("a.onnx", FOLDABLE, name, Level.ERROR) for name in "bcd"]
    assert github([], cases).endswith("3 BatchNormalizations that could fold: b, c, d")


def test_levels_are_apart():
    """A warning does not hide among errors."""
    cases = [Case("a.onnx", FOLDABLE, "b", Level.WARNING), Case("a.onnx", FOLDABLE, "c", Level.ERROR)]
    assert [line.split()[0] for line in github([], cases).splitlines()] == ["::warning", "::error"]
