"""Text that may hold names out of a model, made fit for where it is shown.

A name is data: whoever made the model chose it. It must not move a cursor, hide or reorder other text, end a line,
speak to the CI system that reads the log, or become markup. Reports are escaped line by line, as the last thing
before they are printed, so that no one who writes a sentence with a name in it has to think of this. Only JSON has
names as they are.

Imports nothing: an error must not wait for onnx.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from html import escape

# What `str.isprintable` lets through, and nobody sees: joiners, fillers, variation selectors.
_UNSEEN = re.compile(
    "[\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180f\u2800\u3164\ufe00-\ufe0f\uffa0\U000e0100-\U000e01ef]"
)
# GitHub obeys `##[command]` wherever it stands, Azure `##vso[…]`, TeamCity `##teamcity[…]`; and GitHub `::command::`
# at the start of a line.
_COMMAND = re.compile(r"#(?=#[\w.]*\[)")
_MOST_OF_A_WORD = 200  # which a path seldom has
_MOST_OF_A_LINE = 4000
_LONG_WORD = re.compile(rf"\S{{{_MOST_OF_A_WORD + 1},}}")

_MARKUP = re.compile(r"([\\`*_|\[\]])")
# Words that GitHub or GitLab would link, mention or replace: inside `code` they do not.
_LIVE = re.compile(r"[@#$~&]|://|www\.|!\d|%\w|:[\w+-]+:|\bgh-\d|\b(?=\d*[a-f])[0-9a-f]{7,40}\b", re.IGNORECASE)
_LIST = re.compile(r"[-+=]+|\d+[.)]")  # a first word that would begin a list, a heading or a rule
_PART = re.compile(r"[|`<>]|[^|`<>]+")


def printable(text: str) -> str:
    r"""The text with all that is not seen as itself spelt out: `\x1b`, `\n`, `\u202e`."""
    if text.isascii() and text.isprintable():
        return text
    seen = (char if char.isprintable() else _spelt(char) for char in text)
    return _UNSEEN.sub(lambda found: _spelt(found[0]), "".join(seen))


def line(text: str, most: int = _MOST_OF_A_LINE) -> str:
    """A line for a terminal or a log, long names in it shortened in their middle, and then all of it."""
    text = _LONG_WORD.sub(lambda word: shortened(word[0], _MOST_OF_A_WORD), printable(text))
    return _command_broken(shortened(text, most))


def shortened(text: str, most: int) -> str:
    """The text without its middle, if it has more characters."""
    if len(text) <= most:
        return text
    half = (most - 1) // 2
    return f"{text[:half]}…{text[-half:]}"


def markdown(text: str) -> str:
    """A line, or a part of one, in which nothing is Markdown or HTML, nor anything that GitHub would link."""
    words = line(text).split()
    return " ".join(_code(word) if not at and _LIST.fullmatch(word) else _word(word) for at, word in enumerate(words))


def html(text: str) -> str:
    """A line as the content of an element, or the value of an attribute, of HTML or XML."""
    return escape(line(text))


def as_json(content: object, default: Callable[[object], object] | None = None) -> str:
    """A JSON document: names are exact, and written in ASCII without anything that a log's reader would obey."""
    text = json.dumps(content, indent=2, default=default)
    return text.replace("##", "#\\u0023")  # these stand in strings only


def _spelt(char: str) -> str:
    return char.encode("unicode_escape").decode()


def _command_broken(text: str) -> str:
    text = _COMMAND.sub(r"\\x23", text)
    indented = text.lstrip(" ")
    return text.removesuffix(indented) + r"\x3a" + indented[1:] if indented.startswith("::") else text


def _word(word: str) -> str:
    return "".join(_code(part) if _LIVE.search(part) else _quiet(part) for part in _PART.findall(word))


def _code(word: str) -> str:
    return f"`{word}`"


def _quiet(word: str) -> str:
    return _MARKUP.sub(r"\\\1", escape(word, quote=False))
