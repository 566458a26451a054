"""Reports as one plain value, and the forms that it takes. It knows no verb: results say themselves what there is."""

from bnfold.page.forms import render
from bnfold.page.markup import html, markdown, markdown_table
from bnfold.page.page import Page, Row, Table, plural
from bnfold.page.progress import Progress
from bnfold.page.schema import document
from bnfold.page.terminal import text

__all__ = [
    "Page",
    "Progress",
    "Row",
    "Table",
    "document",
    "html",
    "markdown",
    "markdown_table",
    "plural",
    "render",
    "text",
]
