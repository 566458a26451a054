"""What two sides owe before they are equal.

    python tests/verification/regions/test_obligations.py

writes the table of docs/verification.md anew.
"""

import re
from collections.abc import Iterator
from pathlib import Path

from bnfold.verification.regions.obligations import OBLIGATIONS

PAGE = Path(__file__).parents[3] / "docs" / "verification.md"
TABLE = re.compile(r"^\| what \| owed by \|.*\n(?:\|.*\n)*", re.MULTILINE)


def table() -> str:
    return "\n".join(["| what | owed by | met by | else the report says |", "| --- | --- | --- | --- |", *_rows(), ""])


def _rows() -> Iterator[str]:
    for row in OBLIGATIONS:
        says = row.says.format("…") if row.says else ""
        yield f"| {row.name} | {row.owed} | {row.met} | {says} |"


def test_the_page_has_the_table():
    """Row by row."""
    assert TABLE.findall(PAGE.read_text(encoding="utf-8")) == [table()]


if __name__ == "__main__":
    PAGE.write_text(TABLE.sub(lambda _: table(), PAGE.read_text(encoding="utf-8")), encoding="utf-8")
