"""A verification as text, JSON, Markdown and JUnit XML."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from xml.etree import ElementTree as ET

from bnfold import __version__
from bnfold.verify.result import Outcome, OutputFigures, RegionResult, Verdict, Verification

SCHEMA = 1
_OUTPUT_COLUMNS = (
    *("output", "max abs", "max rel", "rms", "SNR dB", "ULPs", "cosine", "argmax", "NaN/Inf"),
    *("noise", "accepted"),
)
_REGION_COLUMNS = ("region", "operator", "ends at", "difference", "explained", "ratio", "channel")


def text(result: Verification, *, layers: bool = False) -> str:
    """Lines for a terminal or a log; the first says it all.

    Args:
        result: What was found.
        layers: Show every region, and not only those that are not equal.
    """
    lines = [str(result)]
    if (where := result.first_difference) is not None:
        lines += ["", *_place(where)]
    if result.outputs:
        lines += ["", *_table(_OUTPUT_COLUMNS, [_figures(output) for output in result.outputs])]
        lines.append(f"  a tolerance of {_short(result.passing_tolerance)} of max |y| would have passed; {result.how}")
    shown = [region for region in result.regions if layers or region.outcome is not Outcome.EQUAL]
    if shown:
        lines += ["", *_table(_REGION_COLUMNS, [_region(region) for region in shown])]
    rest = [reason for reason in result.reasons if reason not in {str(region) for region in result.regions}]
    return "\n".join([*lines, *(f"  {reason}" for reason in rest)])


def markdown(result: Verification, *, layers: bool = False) -> str:
    """The same for a pull request."""
    lines = [f"**{result.verdict.value}**: {str(result).partition(': ')[2]}"]
    if result.outputs:
        lines += ["", *_markdown(_OUTPUT_COLUMNS, [_figures(output) for output in result.outputs])]
    shown = [region for region in result.regions if layers or region.outcome is not Outcome.EQUAL]
    if shown:
        lines += ["", *_markdown(_REGION_COLUMNS, [_region(region) for region in shown])]
    return "\n".join([*lines, *(f"- {reason}" for reason in result.reasons)])


def as_json(result: Verification, before: str, after: str) -> str:
    """Everything that is known."""
    content = {"schema": SCHEMA, "bnfold": __version__, "before": before, "after": after, **result.to_dict()}
    return json.dumps(content, indent=2, ensure_ascii=False)


def junit(result: Verification, before: str, after: str) -> str:
    """A test suite for a CI server: a case for each output and for each region."""
    suite = ET.Element("testsuite", name=f"bnfold verify {before} {after}")
    for output in result.outputs:
        case = ET.SubElement(suite, "testcase", classname="outputs", name=output.name)
        if not output.passed:
            message = f"differs by {_short(output.max_rel)} of max |y|, accepted are {_short(output.tolerance)}"
            # regions have the last word; see Verification
            kind = "failure" if result.verdict is Verdict.DIFFERENT else "skipped"
            ET.SubElement(case, kind, message=message).text = " ".join(_figures(output))
    for region in result.regions:
        case = ET.SubElement(suite, "testcase", classname="regions", name=f"{region.suspect} -> {region.value}")
        if region.outcome in _NOT_PASSED:
            ET.SubElement(case, _NOT_PASSED[region.outcome], message=str(region)).text = "\n".join(_place(region))
    verdict = ET.SubElement(suite, "testcase", classname="models", name="verdict")
    if result.verdict is not Verdict.EQUIVALENT:
        ET.SubElement(verdict, "failure", message=_printable(str(result))).text = _printable("\n".join(result.reasons))
    for name in ("failure", "skipped"):
        suite.set({"failure": "failures"}.get(name, name), str(len(suite.findall(f"*/{name}"))))
    suite.set("tests", str(len(suite)))
    ET.indent(suite)
    return '<?xml version="1.0" encoding="UTF-8"?>\n' + ET.tostring(suite, encoding="unicode")


_NOT_PASSED = {Outcome.DIFFERENT: "failure", Outcome.NOT_EVALUATED: "skipped"}


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
    if region.outcome is Outcome.NOT_EVALUATED:
        return [region.outcome.value, region.suspect, region.value, "", "", "", region.detail]
    channel = "" if region.channel is None else str(region.channel)
    figures = [_short(region.difference), _short(region.bound), _short(region.error)]
    return [region.outcome.value, region.suspect, region.value, *figures, channel or region.detail]


def _table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    widths = [max(map(len, cells)) for cells in zip(columns, *rows, strict=True)]
    return [
        "  " + "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in [columns, *rows]
    ]


def _markdown(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    lines = [columns, ["---"] * len(columns), *([cell.replace("|", "\\|") for cell in row] for row in rows)]
    return [f"| {' | '.join(line)} |" for line in lines]


def _few(names: Sequence[str]) -> str:
    shown = ", ".join(names[:6])
    return f"{shown} and {len(names) - 6} more" if len(names) > 6 else shown or "nothing"


def _short(figure: float | None) -> str:
    return "" if figure is None else f"{figure:.2g}"


def _printable(line: str) -> str:
    """XML knows no control characters."""
    return "".join(char for char in line if char in "\n\t" or char >= " ")


FORMATS: dict[str, Callable[[Verification, str, str, bool], str]] = {
    "text": lambda result, before, after, layers: text(result, layers=layers),
    "markdown": lambda result, before, after, layers: markdown(result, layers=layers),
    "json": lambda result, before, after, layers: as_json(result, before, after),
    "junit": lambda result, before, after, layers: junit(result, before, after),
}
