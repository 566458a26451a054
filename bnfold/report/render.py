"""A report as one HTML page. Every text that is put into it is escaped, as names are anywhere else."""

from __future__ import annotations

from functools import cache

from jinja2 import Environment, PackageLoader, StrictUndefined

from bnfold import escape
from bnfold.report.contents import Contents
from bnfold.report.figures import short
from bnfold.version import __version__


def rendered(contents: Contents) -> str:
    """The page."""
    return _templates().get_template("report.html").render(it=contents, version=__version__)


@cache
def _templates() -> Environment:
    made = Environment(
        loader=PackageLoader("bnfold.report"),
        autoescape=True,
        finalize=_shown,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters["short"] = short
    return made


def _shown(value: object) -> object:
    """What becomes markup is left; in all other text, what is not seen is spelt out, before it is escaped."""
    return escape.line(value) if isinstance(value, str) and not hasattr(value, "__html__") else value
