"""A report in its forms: what is aligned, and that names cannot break it."""

import json

import numpy as np

from bnfold.page import Page, Table, document, html, markdown, text
from bnfold.page.markup import html_table
from bnfold.page.schema import SCHEMA

COLUMNS = ("outcome", "which", "operator", "how or why")
TRICKY = Page(
    "a|b <i>c</i>",
    ("said of *it*",),
    Table(COLUMNS, (("kept", "1", "Relu", ("x_y_ `z` [w](v)", "second")),)),
    ("note *star*",),
    ("warned of <b>",),
)


def test_text_is_aligned():
    """One note stands in the row, several below it."""
    table = Table(
        COLUMNS,
        (("folded", "12", "Conv", ("into Conv",)), ("kept", "1", "BatchNormalization", ("A", "B"))),
        "lrll",
        is_headed=False,
    )
    assert text(Page("head", ("said",), table, ("tail",), ("beware",))).splitlines() == [
        "head",
        "  said",
        "  folded  12  Conv                into Conv",
        "  kept     1  BatchNormalization",
        "      A",
        "      B",
        "tail",
        "warning: beware",
    ]


def test_names_cannot_break_markdown():
    """A bar or a star in a node's name is just that."""
    assert markdown(TRICKY).splitlines() == [
        r"**a\|b &lt;i&gt;c&lt;/i&gt;**",
        "",
        r"- said of \*it\*",
        "",
        "| outcome | which | operator | how or why |",
        "| --- | --- | --- | --- |",
        r"| kept | 1 | Relu | x\_y\_ \`z\` \[w\](v)<br>second |",
        "",
        r"note \*star\*",
        "",
        r"> warned of &lt;b&gt;",
    ]


def test_names_cannot_break_html():
    """Nor can a tag."""
    assert "<i>" not in html(TRICKY)
    assert "warned of &lt;b&gt;" in html(TRICKY)
    assert "x_y_ `z` [w](v)<br>second" in html(TRICKY)


def test_figures_stand_right():
    """Where a column is of figures, in a terminal and in Markdown; heads as their column."""
    page = Page("head", table=Table(("layer", "moved"), (("a_long_name", "1"), ("b", "22")), "lr"))
    assert text(page).splitlines() == ["head", "  layer        moved", "  a_long_name      1", "  b               22"]
    assert markdown(page).splitlines()[3] == "| --- | ---: |"


def test_names_are_aligned_as_they_are_shown():
    """What stands for a character is longer than it."""
    shown = text(Page("head", table=Table(("a", "b"), (("x\ny", "1"), ("long_name", "2")), is_headed=False)))
    assert shown.splitlines() == ["head", r"  x\ny       1", "  long_name  2"]


def test_a_table_without_rows_is_none():
    """Not even its heads."""
    page = Page("head", table=Table(COLUMNS))
    assert (text(page), markdown(page), html(page)) == ("head", "**head**", "<p><b>head</b></p>")


def test_schemas_have_their_numbers():
    """What reads them relies on these: raise one here, too, and say in docs/json.md what has changed."""
    assert SCHEMA == {"models": 3, "verification": 3, "calibration": 1, "reference": 1, "drift": 1, "certificate": 1}


def test_a_document_says_its_schema():
    """And holds what numpy counts with."""
    content = json.loads(document("verification", {"a": np.int64(3), "b": np.ones(2), "c": {2, 1}}))
    assert content["schema"] == SCHEMA["verification"]
    assert (content["a"], content["b"], content["c"]) == (3, [1.0, 1.0], [1, 2])


def test_cells_are_escaped():
    """A line of several is, too."""
    assert "<b>" not in html_table(Table(("a",), (("<b>",), (("<b>", "<b>"),))))
