"""A verification as text, JSON, Markdown, HTML, annotations and JUnit XML."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from bnfold import escape
from bnfold.page import Page, Table, document, github, html_document, html_table, junit, markdown_table
from bnfold.page import html as page_html
from bnfold.page.terminal import table
from bnfold.verification.cases import cases
from bnfold.verification.result import Outcome, OutputFigures, RegionResult, Verification

_OUTPUT_COLUMNS = (
    *("output", "max abs", "max rel", "rms", "SNR dB", "ULPs", "cosine", "argmax", "NaN/Inf"),
    *("noise", "accepted"),
)
_LAYER_COLUMNS = ("state", "operator", "makes", "difference", "ratio", "channel")
_REGION_COLUMNS = ("region", "operator", "ends at", "difference", "explained", "ratio", "channel")


def text(result: Verification, *, layers: bool = False) -> str:
    """Lines for a terminal or a log; the first says it all.

    Args:
        result: What was found.
        layers: Show every region with its operators, and not only those that are not equal.
    """
    lines = [str(result)]
    if (where := result.first_difference) is not None:
        lines += ["", *_place(where)]
    if result.outputs:
        lines += ["", *_table(_OUTPUT_COLUMNS, [_figures(output) for output in result.outputs])]
        lines.append(f"  a tolerance of {_short(result.passing_tolerance)} of max |y| would have passed; {result.how}")
    shown = _shown(result, layers=layers)
    if shown:
        head, *rows = _table(_REGION_COLUMNS, [_region(region) for region in shown])
        below = [_operators(region) if layers else [] for region in shown]
        lines += ["", head, *(line for row, more in zip(rows, below, strict=True) for line in (row, *more))]
    if layers:
        lines += ["", *_table(_LAYER_COLUMNS, _layers(result)), f"  {_alike(result)}"]
    rest = [reason for reason in result.reasons if reason not in {str(region) for region in result.regions}]
    rest += _shows(result)
    return "\n".join(map(escape.line, [*lines, *(f"  {reason}" for reason in rest)]))


def markdown(result: Verification, *, layers: bool = False) -> str:
    """The same for a pull request."""
    lines = [f"**{result.verdict.value}**: {escape.markdown(str(result).partition(': ')[2])}"]
    if result.outputs:
        lines += ["", *_markdown(_OUTPUT_COLUMNS, [_figures(output) for output in result.outputs])]
    shown = _shown(result, layers=layers)
    if shown and layers:
        rows = [[*_region(region), *map(", ".join, (region.operators, region.replaced_by))] for region in shown]
        lines += ["", *_markdown((*_REGION_COLUMNS, "before", "after"), rows)]
    elif shown:
        lines += ["", *_markdown(_REGION_COLUMNS, [_region(region) for region in shown])]
    if layers:
        lines += ["", *_markdown(_LAYER_COLUMNS, _layers(result))]
    notes = [*([_alike(result)] if layers else []), *result.reasons, *_shows(result)]
    return "\n".join([*lines, *([""] if notes else []), *(f"- {escape.markdown(note)}" for note in notes)])


def as_json(result: Verification, before: str, after: str, *, layers: bool = False) -> str:
    """Everything that is known."""
    paths = {"before": before, "after": after}
    return document("verification", {**paths, **result.to_dict(layers=layers)})


def html(result: Verification, *, layers: bool = False) -> str:
    """The same as a page for a browser."""
    tables = [Table(_OUTPUT_COLUMNS, tuple(tuple(_figures(output)) for output in result.outputs))]
    tables.append(Table(_REGION_COLUMNS, tuple(tuple(_region(region)) for region in _shown(result, layers=layers))))
    if layers:
        tables.append(Table(_LAYER_COLUMNS, tuple(map(tuple, _layers(result)))))
    notes = [*([_alike(result)] if layers else []), *result.reasons, *_shows(result)]
    told = page_html(Page(str(result), notes=tuple(notes)))
    return html_document([told + "".join(map(html_table, tables))])


def _shown(result: Verification, *, layers: bool) -> list[RegionResult]:
    return [region for region in result.regions if layers or region.outcome is not Outcome.EQUAL]


def _operators(region: RegionResult) -> list[str]:
    """All of them, before and after."""
    sides = (("before", region.operators), ("after", region.replaced_by))
    return [f"    {side:<6}  {', '.join(names) or 'nothing'}" for side, names in sides]


def _shows(result: Verification) -> list[str]:
    return [f"a counterexample is in {result.counterexample}: run its replay.py"] if result.counterexample else []


def _alike(result: Verification) -> str:
    return f"shared: {result.shared} of {len(result.layers)} operators of AFTER are in BEFORE, too, on equal inputs"


def _layers(result: Verification) -> list[list[str]]:
    """A row for each operator; those in a region have its outcome, and its figures where it ends."""
    regions = {operator: region for region in reversed(result.regions) for operator in region.replaced_by}
    ends = {region.value: region for region in result.regions}
    rows = []
    for layer in result.layers:
        region = ends.get(layer.value) or regions.get(layer.operator)
        if layer.is_shared:
            rows.append(["shared", layer.operator, layer.value, "0", "", ""])
        elif region is None:  # what is computed from constants, or nothing reads
            rows.append(["", layer.operator, layer.value, "", "", ""])
        else:
            ending = region.value == layer.value and not region.is_open
            figures = [_short(figure) for figure in (region.difference, region.error)] if ending else ["", ""]
            channel = str(region.channel) if ending and region.channel is not None else ""
            rows.append([region.outcome.value, layer.operator, layer.value, *figures, channel])
    return rows


def _place(region: RegionResult) -> list[str]:
    """The place of a difference, as somebody who has to find it needs it."""
    channel = "" if region.channel is None else f", channel {region.channel} of axis {region.axis}"
    factor = f", {_short(region.error)} times as much" if math.isfinite(region.error) else ""
    return [
        f"  first operator at fault: {region.suspect}",
        f"  at value {region.value!r}{channel}: off by {_short(region.difference)} of max |y|; "
        f"rounding explains {_short(region.bound)}{factor}",
        *([f"  {region.detail}"] if region.detail else []),
        f"  before: {_few(region.operators)}",
        f"  after:  {_few(region.replaced_by)}",
    ]


def _figures(output: OutputFigures) -> list[str]:
    agreement = "" if output.argmax_agreement is None else f"{output.argmax_agreement:.0%}"
    return [
        output.name,
        *(_short(figure) for figure in (output.max_abs, output.max_rel, output.rms)),
        f"{output.snr_db:.0f}",
        _short(output.ulps),
        f"{output.cosine:.9f}",
        agreement,
        str(output.misplaced),
        _short(output.floor),
        _short(output.tolerance),
    ]


def _region(region: RegionResult) -> list[str]:
    if region.is_open:
        return [region.outcome.value, region.suspect, region.value, "", "", "", region.detail]
    channel = "" if region.channel is None else str(region.channel)
    figures = [_short(region.difference), _short(region.bound), _short(region.error)]
    return [region.outcome.value, region.suspect, region.value, *figures, channel or region.detail]


def _table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    return [f"  {line}" for line in table(Table(tuple(columns), tuple(map(tuple, rows))))]


def _markdown(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    return list(markdown_table(Table(tuple(columns), tuple(map(tuple, rows)))))


def _few(names: Sequence[str]) -> str:
    shown = ", ".join(names[:6])
    return f"{shown} and {len(names) - 6} more" if len(names) > 6 else shown or "nothing"


def _short(figure: float | None) -> str:
    return "" if figure is None else f"{figure:.2g}"


FORMATS: dict[str, Callable[[Verification, str, str, bool], str]] = {
    "text": lambda result, before, after, layers: text(result, layers=layers),
    "markdown": lambda result, before, after, layers: markdown(result, layers=layers),
    "json": lambda result, before, after, layers: as_json(result, before, after, layers=layers),
    "html": lambda result, before, after, layers: html(result, layers=layers),
    "github": lambda result, before, after, layers: github([f"{before} {after}: {result}"], cases(result, after)),
    "junit": lambda result, before, after, layers: junit(cases(result, after)),
}
