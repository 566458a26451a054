"""A report on a terminal: what is wrapped, cut short and coloured."""

import pytest

from bnfold import escape
from bnfold.page import Page, Screen, Table, Tone, text

NARROW = Screen(60)
LONG = "/model/backbone/stages.0/blocks.11/conv_mid/batchnorm_of_the_second_branch/BatchNormalization"
SENTENCE = "above, a has 2 readers; below, Relu passes a scale but no shift. Others need its input as it is"
PAGE = Page(
    "5 of 12 BatchNormalizations folded, verified",
    (f"said: {SENTENCE}",),
    Table(("outcome", "which", "why"), (("kept", LONG, ("into Conv", SENTENCE, LONG)),), is_headed=False),
    (f"noted: {SENTENCE}",),
    (f"beware: {SENTENCE}",),
    subject=f"models/{LONG}.onnx",
    word="PARTLY",
    tone=Tone.DOUBTFUL,
    summary=Table(("", "before", "after"), (("nodes", "29", "20"),), "lrr"),
)


def test_a_log_is_as_wide_as_it_is():
    """So that a pipe can be searched: every line is whole."""
    lines = text(PAGE).splitlines()
    assert lines[0] == f"PARTLY  {PAGE.subject}  {PAGE.headline}"
    assert f"  said: {SENTENCE}" in lines
    assert f"      {SENTENCE}" in lines
    assert f"noted: {SENTENCE}" in lines


@pytest.mark.parametrize("width", [40, 60, 80, 200])
def test_no_line_is_wider_than_the_terminal(width):
    """Whatever is in it; sentences have all their words."""
    told = text(PAGE, Screen(width))
    assert max(map(len, told.splitlines()[1:])) <= width
    assert " ".join(told.split()).count(SENTENCE) == 4


def test_the_first_line_fits():
    """The path gives way, and what it comes to does not."""
    first = text(PAGE, Screen(80)).splitlines()[0]
    assert len(first) in (79, 80)  # both halves of a name are equally long
    assert first.startswith("PARTLY  models/")
    assert first.endswith(".onnx  5 of 12 BatchNormalizations folded, verified")


def test_long_names_lose_their_middle():
    """As they do everywhere; figures and other columns stay."""
    row = next(line for line in text(PAGE, NARROW).splitlines() if line.startswith("  kept"))
    name = row.split()[1]
    assert name == escape.shortened(LONG, len(name))


def test_a_sentence_in_a_table_stays_in_its_column():
    """Or stands below its row, where there is too little room beside it."""
    table = Table(("a", "b"), (("kept", SENTENCE),), is_headed=False)
    assert text(Page("head", table=table), Screen(50)).splitlines() == [
        "head",
        "  kept  above, a has 2 readers; below, Relu passes",
        "          a scale but no shift. Others need its",
        "          input as it is",
    ]
    beside = Table(("a", "b"), (("x" * 20, SENTENCE),), is_headed=False)
    lines = text(Page("head", table=beside), Screen(40)).splitlines()
    assert lines[1].split() == [escape.shortened("x" * 20, 12)] or lines[2].startswith("    above,")


def test_columns_of_figures_never_give_way():
    """A figure without its middle would be another one."""
    table = Table(("name", "count"), ((LONG, "1,234,567,890"),), "lr")
    for line in text(Page("head", table=table), Screen(40)).splitlines()[2:]:
        assert line.endswith("  1,234,567,890")
        assert len(line) <= 40


def test_a_wrapped_line_is_no_command():
    """A word out of a model that comes to stand at the beginning of a line is still just shown."""
    for indent in range(30):
        told = text(Page("head", notes=(f"{'x' * (20 + indent)} ::error::stop",)), Screen(40))
        assert not any(line.lstrip().startswith("::") for line in told.splitlines())


class Terminal:
    """An output that a person looks at."""

    def isatty(self) -> bool:
        return True


class Pipe:
    """One that a program reads."""

    def isatty(self) -> bool:
        return False


def test_a_pipe_is_no_screen(monkeypatch):
    """Whatever the terminal beside it is like."""
    monkeypatch.setenv("COLUMNS", "50")
    assert Screen.of(Pipe()) == Screen(None, is_coloured=False)


def test_columns_is_honoured(monkeypatch):
    """As by every program; and too few of them are none at all."""
    monkeypatch.setenv("COLUMNS", "50")
    assert Screen.of(Terminal()).width == 50
    monkeypatch.setenv("COLUMNS", "3")
    assert Screen.of(Terminal()).width == 40


@pytest.mark.parametrize(
    ("variables", "is_coloured"),
    [({}, True), ({"NO_COLOR": "1"}, False), ({"NO_COLOR": ""}, True), ({"TERM": "dumb"}, False)],
)
def test_colours_can_be_refused(variables, is_coloured, monkeypatch):
    """By NO_COLOR that is not empty (no-color.org), and by a terminal that has none."""
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("TERM", "xterm")
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert Screen.of(Terminal()).is_coloured is is_coloured


@pytest.mark.parametrize(
    ("tone", "code"), [(Tone.GOOD, "32"), (Tone.DOUBTFUL, "33"), (Tone.BAD, "31"), (Tone.PLAIN, "")]
)
def test_the_word_has_a_colour(tone, code):
    """It alone, and the warnings; the line fits all the same."""
    page = Page("done", subject="a.onnx", word="OK", tone=tone, warnings=("beware",))
    word = f"\x1b[{code}mOK\x1b[0m" if code else "OK"
    assert text(page, Screen(80, is_coloured=True)).splitlines() == [
        f"{word}  a.onnx  done",
        "\x1b[33mwarning\x1b[0m: beware",
    ]
    assert "\x1b" not in text(page, Screen(80))


def test_what_is_spelt_out_is_measured():
    """A character that is not seen takes four columns."""
    told = text(Page("head", ("\x01 " * 15,)), Screen(40))
    assert max(map(len, told.splitlines())) <= 40
