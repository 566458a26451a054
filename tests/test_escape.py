"""Names in text: what is shown is inert, and still tells what the name is."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bnfold import escape

TEXTS = st.text() | st.text(st.sampled_from("@#:/<>&|`*_[]()!$~\\.- +=w1aé\n\x1b\u202e\u200b\ud800"))


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        pytest.param("/layer1/conv::bn_0 [x]", "/layer1/conv::bn_0 [x]", id="ordinary"),
        pytest.param("größe→", "größe→", id="letters"),
        pytest.param("a\x1b[2J\x9b\x07", r"a\x1b[2J\x9b\x07", id="terminal"),
        pytest.param("a\r\n\u2028b\t", r"a\r\n\u2028b\t", id="line-ends"),
        pytest.param("a\u202eb\u2066\u200b\ufeff\ufe0f\u3164", r"a\u202eb\u2066\u200b\ufeff\ufe0f\u3164", id="unseen"),
        pytest.param("\udcff\ufffe\U000e0001", r"\udcff\ufffe\U000e0001", id="no-characters"),
        pytest.param("::error file=a::b", r"\x3a:error file=a::b", id="github"),
        pytest.param("  ::add-mask::e", r"  \x3a:add-mask::e", id="github-indented"),
        pytest.param("a ##[error]b ## c", r"a \x23#[error]b ## c", id="github-old"),
        pytest.param("##vso[task.setvariable]", r"\x23#vso[task.setvariable]", id="azure"),
        pytest.param("a" * 150 + "b" * 150, "a" * 99 + "…" + "b" * 99, id="long"),
    ],
)
def test_line(name, shown):
    """What is not seen as itself is spelt out, what a CI system would obey is broken; the rest stays."""
    assert escape.line(name) == shown


@given(TEXTS)
def test_a_line_is_inert(text):
    """Whatever the text, it is one line of what is seen, and no command."""
    line = escape.line(text)
    assert line.isprintable()
    assert not line.lstrip().startswith("::")
    assert "##[" not in line
    assert escape.line(line) == line


def test_a_line_is_bounded():
    """Of many words as of one."""
    assert len(escape.line("ab " * 100_000)) <= 4000
    assert len(escape.line("\x1b" * 100_000)) <= 200


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        pytest.param("conv1 (a/b): x", "conv1 (a/b): x", id="ordinary"),
        pytest.param("a_b*c*", r"a\_b\*c\*", id="emphasis"),
        pytest.param("@org/team", "`@org/team`", id="mention"),
        pytest.param("see https://example.invalid/x", "see `https://example.invalid/x`", id="link"),
        pytest.param("www.example.invalid a@b.c", "`www.example.invalid` `a@b.c`", id="links-of-gfm"),
        pytest.param("![i](x) [a](b)", r"!\[i\](x) \[a\](b)", id="image"),
        pytest.param("a|b", r"a\|b", id="table"),
        pytest.param("<b>&amp;<!-- x", "&lt;b&gt;`&amp;`&lt;!-- x", id="html"),
        pytest.param("#12 GH-12 !12 $x$ :tada: ~~x~~", "`#12` `GH-12` `!12` `$x$` `:tada:` `~~x~~`", id="references"),
        pytest.param("`@a`", r"\``@a`\`", id="code"),
        pytest.param("# heading", "`#` heading", id="heading"),
        pytest.param("- item", "`-` item", id="list"),
        pytest.param("1. item", "`1.` item", id="numbered"),
        pytest.param("    block", "block", id="indented"),
        pytest.param("0123abc 1048576 0x1f", "`0123abc` 1048576 0x1f", id="commit"),
        pytest.param("a\n\n# b", r"`a\n\n#` b", id="lines"),
    ],
)
def test_markdown(name, shown):
    """Nothing is markup, and what GitHub would link is code."""
    assert escape.markdown(name) == shown


@given(TEXTS)
def test_html_and_json(text):
    """Neither can be left; JSON has the text as it is, in printable ASCII."""
    assert not set(escape.html(text)) & set("<>\"'")
    document = escape.as_json({text: text})
    assert json.loads(document) == {text: text}
    assert document.isascii()
    assert "##[" not in document
    assert all(line.isprintable() for line in document.split("\n"))
