"""The options of a command's help under headings, since there are up to forty."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import click


class Sectioned(click.Command):
    """A command whose help has headings."""

    def __init__(self, *args: Any, sections: Mapping[str, str], **kwargs: Any) -> None:
        """Takes the heading that stands before an option, by the option's name; others follow under the same."""
        super().__init__(*args, **kwargs)
        self.sections = sections

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Writes a list under each heading."""
        heading, rows = "Options", dict[str, list[tuple[str, str]]]()
        for param in self.get_params(ctx):
            heading = self.sections.get(param.name or "", heading)
            if isinstance(param, click.Option) and (row := param.get_help_record(ctx)) is not None:
                rows.setdefault(heading, []).append(row)
        for heading, listed in rows.items():
            with formatter.section(heading):
                formatter.write_dl(listed)
