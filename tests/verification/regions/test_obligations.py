"""What two sides owe before they are equal stands in docs/verification.md."""

import re
from pathlib import Path

from bnfold.verification.regions.obligations import OBLIGATIONS

PAGE = (Path(__file__).parents[3] / "docs" / "verification.md").read_text(encoding="utf-8")


def test_the_page_has_a_row_for_each():
    """In their order, with what the report says where nothing met it."""
    table = PAGE.partition("| what | owed by | met by | else the report says |\n")[2].partition("\n\n")[0]
    rows = re.findall(r"^\| ([a-z ]+) \| [^|]+ \| [^|]+ \| ([^|]*?) ?\|$", table, re.MULTILINE)
    assert rows == [(row.name, row.says.replace("{}", "…")) for row in OBLIGATIONS]
