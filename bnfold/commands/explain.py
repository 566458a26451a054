"""`bnfold explain`."""

from __future__ import annotations

from difflib import get_close_matches

import click
from click.shell_completion import CompletionItem

from bnfold.commands.show import screen_of
from bnfold.reasons import Reason


class _Reason(click.ParamType[Reason]):
    """The name of a reason, in letters of any size."""

    name = "reason"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> Reason:
        """The reason; for a name that there is not, names the one that is like it."""
        name = str(value).upper().replace("-", "_").replace(" ", "_")
        if name not in Reason.__members__:
            near = get_close_matches(name, Reason.__members__, 1, cutoff=0.5)
            hint = f"Did you mean {near[0]}?" if near else "`bnfold explain` lists all."
            self.fail(f"There is no reason {str(value)!r}. {hint}", param, ctx)
        return Reason[name]

    def shell_complete(
        self,
        ctx: click.Context,  # noqa: ARG002 -- as click calls it
        param: click.Parameter,  # noqa: ARG002
        incomplete: str,
    ) -> list[CompletionItem]:
        """Those that begin so."""
        return [CompletionItem(name) for name in Reason.__members__ if name.startswith(incomplete.upper())]


@click.command
@click.argument("reason", required=False, type=_Reason())
def explain(reason: Reason | None) -> None:
    """Tell what REASON means, such as SHIFT_MEETS_PADDING, and what can be done; or list all reasons.

    A reason says why a node stays, or why an operator stays in its place; `bnfold check` names them.
    """
    from bnfold.explanations import explanations  # noqa: PLC0415 -- what only this needs
    from bnfold.page import Page, Table, text  # noqa: PLC0415

    told = explanations()
    if reason is not None:
        page = Page(f"{reason.name}:", told[reason.name].paragraphs)
    else:
        rows = tuple((name, each.gist) for name, each in told.items())
        table = Table(("reason", "why"), rows, is_headed=False)
        page = Page(f"{len(rows)} reasons why a node stays:", table=table, notes=("bnfold explain REASON tells more",))
    click.echo(text(page, screen_of()))
