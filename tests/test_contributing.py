"""CONTRIBUTING.md shows the whole house, and docs/python.md all that is public."""

import re

import pytest
from networks import ROOT

import bnfold

PACKAGE = ROOT / "bnfold"
PAGES = [*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md"), *ROOT.glob("benchmarks/**/*.md"), ROOT / ".ci" / "long"]


def test_the_map_is_complete():
    """Every module of the package itself and every package in it has its place there, and nothing that is gone."""
    files = (path for path in PACKAGE.rglob("*.py") if path.parent == PACKAGE or path.name == "__init__.py")
    parts = {path.relative_to(PACKAGE).as_posix().removesuffix("__init__.py") for path in files}
    page = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    rows = [row for row in page.splitlines() if row.startswith("| `bnfold/")]
    named = [name for row in rows for name in re.findall(r"`([\w./]+)`", row.split("|")[1])]
    assert sorted(name.removeprefix("bnfold/") for name in named) == sorted(parts - {""})


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_paths_exist(page):
    """A page that names a test, a benchmark or a file of the package names one that is there."""
    text = page.read_text(encoding="utf-8")
    named = set(re.findall(r"(?<![\w./])(?:tests|benchmarks|bnfold)/[\w./-]*\w", text))
    assert sorted(path for path in named if not (ROOT / path).exists()) == []


@pytest.mark.parametrize("name", bnfold.__all__)
def test_every_public_name_is_documented(name):
    """It has a row of its own."""
    page = (ROOT / "docs" / "python.md").read_text(encoding="utf-8")
    assert re.search(rf"^\| `{name}[`(]", page, re.MULTILINE)
