"""docs/operators.md speaks of every operator that has a rule."""

import re
from pathlib import Path

from bnfold.ops import RULES

PAGE = Path(__file__).parents[2] / "docs" / "operators.md"


def test_every_rule_has_a_row():
    """Each operator in the table of rules is named in a row of the page."""
    rows = "\n".join(line for line in PAGE.read_text(encoding="utf-8").splitlines() if line.startswith("|"))
    named = set(re.findall(r"[A-Za-z0-9]+", rows))
    assert {name.rpartition("::")[2] for name in RULES} <= named
