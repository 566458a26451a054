"""Which verb of the command line is meant, and which options are its own."""

from __future__ import annotations

from collections.abc import Sequence
from difflib import get_close_matches

_OF_THE_PROGRAM = ("--debug", "--version", "-h", "--help")
_ALIKE = {
    "compare": "verify",
    "convert": "optimize",
    "diff": "verify",
    "fold": "optimize",
    "lint": "check",
    "plan": "check",
    "simplify": "optimize",
}
"""What other tools, or the functions in Python, call them."""


def in_order(args: Sequence[str], verbs: Sequence[str]) -> list[str]:
    """The arguments with the verb before its options, and --debug before the verb, wherever they stood."""
    end = args.index("--") if "--" in args else len(args)
    debug = [arg for arg in args[:end] if arg == "--debug"]
    rest = [*(arg for arg in args[:end] if arg != "--debug"), *args[end:]]
    place = next((place for place, arg in enumerate(rest) if arg in verbs), 0)
    before = rest[:place]
    if not (before and before[0].startswith("-")) or "--" in before:
        return [*debug, *rest]
    own = [arg for arg in before if arg in _OF_THE_PROGRAM]
    moved = [arg for arg in before if arg not in _OF_THE_PROGRAM]
    return [*debug, *own, rest[place], *moved, *rest[place + 1 :]]


def suggestion(verb: str, verbs: Sequence[str]) -> str:
    """A sentence that names the verb that is meant, perhaps; empty if there is none like it."""
    near = _ALIKE.get(verb) or next(iter(get_close_matches(verb, verbs, 1)), "")
    return f"Did you mean '{near}'?" if near else f"There are {', '.join(verbs)}."
