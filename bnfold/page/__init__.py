"""Reports as one plain value, and the forms that it takes. It knows no verb: results say themselves what there is."""

from bnfold.page.forms import render
from bnfold.page.markup import html, markdown, markdown_table
from bnfold.page.page import Page, Row, Table, Tone, plural
from bnfold.page.progress import Progress
from bnfold.page.schema import document
from bnfold.page.screen import LOG, Screen
from bnfold.page.terminal import text

__all__ = [
    "LOG",
    "Page",
    "Progress",
    "Row",
    "Screen",
    "Table",
    "Tone",
    "document",
    "html",
    "markdown",
    "markdown_table",
    "plural",
    "render",
    "text",
]
