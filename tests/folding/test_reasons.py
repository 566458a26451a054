"""docs/reasons.md has a section for each reason, and each reason says what it means."""

import re
from pathlib import Path
from string import Formatter

import pytest

from bnfold.reasons import Reason, Refusal, Refused

PAGE = (Path(__file__).parents[2] / "docs" / "reasons.md").read_text(encoding="utf-8")
SECTIONS = dict(zip(*[iter(re.split(r"^### (\w+)\n", PAGE, flags=re.MULTILINE)[1:])] * 2, strict=True))
CASES = Path(__file__).parents[1] / "cases"


def test_every_member_has_a_section_and_every_section_a_member():
    """In the order in which they are declared."""
    assert sorted(SECTIONS) == sorted(reason.name for reason in Reason)
    assert len(re.findall(r"^### ", PAGE, re.MULTILINE)) == len(SECTIONS)


@pytest.mark.parametrize("name", SECTIONS)
def test_a_section_has_its_three_parts(name):
    """What it means, an example, and what the user can do."""
    meaning, example, advice = SECTIONS[name].partition("\n## ")[0].strip().split("\n\n")
    assert meaning[0].isupper() or meaning.startswith("`")
    assert example.startswith("*Example:* ")
    assert advice.startswith("*What you can do:* ")


@pytest.mark.parametrize("reason", Reason)
def test_the_wording_takes_its_facts(reason):
    """A refusal reads as a sentence with its facts filled in, and names the node where it has one."""
    facts = {field: f"<{field}>" for _, field, _, _ in Formatter().parse(reason.value) if field}
    text = str(Refusal(reason, facts))
    assert all(fact in text for fact in facts.values())
    assert str(Refusal(reason, facts, "conv1")) == f"{text} (conv1)"


def test_a_refused_carries_its_reason_and_facts():
    """What a rule raises is what the report tells."""
    refused = Refused(Reason.SCALE_NOT_POSITIVE, count=2, channels=3)
    assert refused.reason is Reason.SCALE_NOT_POSITIVE
    assert refused.facts == {"count": 2, "channels": 3}


# Reasons that no small model in tests/cases/ can show: others' tests do.
ELSEWHERE = {"GROWTH", "KEPT_BY_NAME", "MALFORMED", "NOT_FLOAT", "QUANTIZED", "TOO_FAR"}
ELSEWHERE |= {"NOT_INLINED", "OUT_OF_TIME", "TOO_LARGE"}


def test_every_reason_is_shown_by_a_case():
    """Some case in tests/cases/ ends in it."""
    shown = {
        name
        for path in CASES.glob("*/*.txt")
        for line in path.read_text(encoding="utf-8").splitlines()
        if line.startswith("# expect:")
        for name in re.findall(r"\b[A-Z_]{6,}\b", line)
    }
    assert {reason.name for reason in Reason} - shown <= ELSEWHERE
