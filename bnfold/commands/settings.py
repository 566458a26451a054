"""What a repository says of itself: the table [tool.bnfold] in its pyproject.toml, for `check` and `optimize`.

An option on the command line takes the place of one in the table. Only options that judge and that bound are taken, and
none that writes or runs anything: somebody else's repository is no place to take those from.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import click

from bnfold.commands.sections import Sectioned

SETTINGS = (
    "allow",
    "assume-constant",
    "fail-on",
    "fold-inside-patterns",
    "format",
    "keep",
    "leftover",
    "max-growth",
    "memory",
    "require-none",
    "timeout",
    "verify",
)
"""The options that may be in the table."""


class Settled(Sectioned):
    """A command whose options have their defaults from the table."""

    def make_context(
        self, info_name: str | None, args: list[str], parent: click.Context | None = None, **extra: Any
    ) -> click.Context:
        """Reads the table first."""
        if not extra.get("resilient_parsing"):  # a shell that completes a word wants no error
            extra["default_map"] = settings_for(self, Path.cwd())
        return super().make_context(info_name, args, parent, **extra)


def settings_for(command: click.Command, folder: Path) -> dict[str, Any]:
    """The table as defaults for a command: those of its options that it has.

    Raises:
        UsageError: The table makes no sense.
    """
    path, table = _table(folder)
    for key in table:
        if key not in SETTINGS:
            near = "".join(f"; did you mean {name}?" for name in get_close_matches(key, SETTINGS, 1))
            raise click.UsageError(f"{path}: [tool.bnfold] takes no {key!r}{near}")
    options = {flag.removeprefix("--"): param for param in command.params for flag in param.opts}
    return {str(options[key].name): _value(options[key], value) for key, value in table.items() if key in options}


def _table(folder: Path) -> tuple[Path, Mapping[str, Any]]:
    """The table of the nearest pyproject.toml that has one."""
    for place in (folder, *folder.parents):
        path = place / "pyproject.toml"
        try:
            text = path.read_bytes()
        except OSError:
            continue
        if b"bnfold" in text and (table := _parsed(path, text)) is not None:
            return path, table
    return folder, {}


def _parsed(path: Path, text: bytes) -> Mapping[str, Any] | None:
    try:
        table = tomllib.loads(text.decode()).get("tool", {}).get("bnfold")
    except (UnicodeDecodeError, tomllib.TOMLDecodeError, AttributeError) as error:
        raise click.UsageError(f"{path}: {error}") from error
    if table is not None and not isinstance(table, dict):
        raise click.UsageError(f"{path}: bnfold in [tool] is no table")
    return table


def _value(option: click.Parameter, value: Any) -> Any:
    """One text stands for a list of one; a list for what takes its parts with commas between."""
    if option.multiple or option.type.name == "list":
        return value if isinstance(value, list) else [value]
    return value
