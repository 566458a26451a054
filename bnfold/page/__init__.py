"""Reports as one plain value, and the forms that it takes. It knows no verb: results say themselves what there is."""

from bnfold.page.annotations import github
from bnfold.page.cases import Case, Demand, Level
from bnfold.page.forms import FORMS, Form, render
from bnfold.page.markup import html, html_document, html_table, markdown, markdown_table
from bnfold.page.page import Page, Row, Table, Tone, plural, some
from bnfold.page.progress import Progress
from bnfold.page.schema import document
from bnfold.page.screen import LOG, Screen
from bnfold.page.suites import junit
from bnfold.page.terminal import text

__all__ = [
    "FORMS",
    "LOG",
    "Case",
    "Demand",
    "Form",
    "Level",
    "Page",
    "Progress",
    "Row",
    "Screen",
    "Table",
    "Tone",
    "document",
    "github",
    "html",
    "html_document",
    "html_table",
    "junit",
    "markdown",
    "markdown_table",
    "plural",
    "render",
    "some",
    "text",
]
