"""CONTRIBUTING.md shows the whole house, and docs/python.md all that is public."""

import re

import pytest
from networks import ROOT

import bnfold

PACKAGE = ROOT / "bnfold"
PARTS = sorted(
    path.relative_to(ROOT).as_posix()
    for path in PACKAGE.rglob("*.py")
    if path.parent == PACKAGE or path.name == "__init__.py"
)


@pytest.mark.parametrize("part", PARTS)
def test_every_part_has_its_place_on_the_map(part):
    """Every module of the package itself, and every package in it."""
    page = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    rows = [row for row in page.splitlines() if row.startswith("| `bnfold/")]
    named = {name for row in rows for name in re.findall(r"`([\w./]+)`", row.split("|")[1])}
    places = {
        "bnfold/__init__.py": "bnfold/optimization/",  # hands out what others hold
    }
    place = places.get(part, part.removesuffix("__init__.py"))
    assert place in named or place.removeprefix("bnfold/") in named


@pytest.mark.parametrize("name", bnfold.__all__)
def test_every_public_name_is_documented(name):
    """It has a row of its own."""
    page = (ROOT / "docs" / "python.md").read_text(encoding="utf-8")
    assert re.search(rf"^\| `{name}[`(]", page, re.MULTILINE)
