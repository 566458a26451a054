"""`bnfold explain`."""

import tomllib
from pathlib import Path

import pytest
from networks import ROOT

from bnfold import explanations
from bnfold.reasons import Reason

PAGE = ROOT / "docs" / "reasons.md"


@pytest.mark.parametrize("name", ["GRAPH_INPUT", "graph_input", "graph-input", "Graph input"])
def test_a_reason_is_explained(name, run):
    """With what it means, an example and what to do, in plain text; its name may be written in any way."""
    result = run("explain", name)
    assert result.exit_code == 0
    head, meaning, example, advice = result.stdout.splitlines()
    assert head == "GRAPH_INPUT:"
    assert meaning.startswith("  The value comes from the caller")
    assert example.startswith("  Example: a BN on the image")
    assert advice.startswith("  What you can do: look at the other reason")


def test_links_are_their_text(run):
    """Nobody follows them in a terminal."""
    assert "add a rule or open an issue" in run("explain", "NO_RULE").stdout
    assert "](" not in "".join(run("explain", reason.name).stdout for reason in Reason)


@pytest.mark.parametrize("reason", Reason)
def test_every_reason_can_be_explained(reason, run):
    """In the words of docs/reasons.md, of which the code holds no copy."""
    lines = run("explain", reason.name).stdout.splitlines()
    assert [line.partition(":")[0] for line in lines] == [
        reason.name,
        lines[1].partition(":")[0],
        "  Example",
        "  What you can do",
    ]
    assert all(word in PAGE.read_text(encoding="utf-8") for word in lines[1].split() if word.isalpha())


def test_without_a_reason_all_are_listed(run):
    """A line for each, and how to see more."""
    head, *lines, last = run("explain").stdout.splitlines()
    assert head == f"{len(Reason)} reasons why a node stays:"
    assert [line.split()[0] for line in lines] == [reason.name for reason in Reason]
    assert all(line.endswith(".") and len(line.split()) > 3 for line in lines)
    assert last == "bnfold explain REASON tells more"


@pytest.mark.parametrize(
    ("name", "hint"), [("SHIFT_MEETS", "Did you mean SHIFT_MEETS_PADDING?"), ("xyz", "`bnfold explain` lists all.")]
)
def test_a_wrong_one(name, hint, run):
    """Is told what it is like; the exit code is that of a mistake."""
    result = run("explain", name)
    assert result.exit_code == 2
    assert f"There is no reason {name!r}. {hint}" in result.stderr


def test_a_wheel_holds_the_page():
    """Beside the module that reads it, where there is no docs/."""
    tool = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]
    included = tool["hatch"]["build"]["targets"]["wheel"]["force-include"]
    home = Path(explanations.__file__).parents[1]  # of the package: a checkout, or where it is installed
    assert {source: home / place for source, place in included.items()} == {"docs/reasons.md": explanations._PAGES[0]}
    assert explanations._PAGES[1] == home / PAGE.relative_to(ROOT)
