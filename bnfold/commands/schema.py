"""`bnfold schema`."""

from __future__ import annotations

import click

from bnfold.escape import as_json
from bnfold.schemas import SCHEMAS


@click.command
@click.argument("kind", type=click.Choice(list(SCHEMAS)), required=False)
def schema(kind: str | None) -> None:
    """Print the JSON Schema of a KIND of document, or say which kinds there are."""
    if kind is None:
        for name, content in SCHEMAS.items():
            click.echo(f"{name:<13} {content['title']}")
    else:
        click.echo(as_json(SCHEMAS[kind]))
