"""A verification as a page: the place of a difference, and a row for each output, region and operator."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from bnfold.page import Case, Page, Row, Table
from bnfold.verification.cases import cases
from bnfold.verification.result import Outcome, OutputFigures, RegionResult, Verification

_OUTPUT_COLUMNS = (
    *("output", "max abs", "max rel", "rms", "SNR dB", "ULPs", "cosine", "argmax", "NaN/Inf"),
    *("noise", "accepted"),
)
_LAYER_COLUMNS = ("state", "operator", "makes", "difference", "ratio", "channel")
_REGION_COLUMNS = ("region", "operator", "ends at", "difference", "explained", "ratio", "channel")


@dataclass(frozen=True)
class Compared:
    """A verification of two models that have names.

    Attributes:
        result: What was found.
        before: The path of BEFORE.
        after: The path of AFTER.
        layers: Tell of every operator, and not only of regions that are not equal.
    """

    result: Verification
    before: str
    after: str
    layers: bool = False

    def page(self, *, verbose: bool = False) -> Page:  # noqa: ARG002 -- layers are asked for by another name
        """What there is to say; the first line says it all."""
        result = self.result
        where = result.first_difference
        known = {str(region) for region in result.regions}
        return Page(
            str(result),
            (*(_place(where) if where is not None else ()), *_passing(result)),
            self._regions(),
            (
                *([_alike(result)] if self.layers else ()),
                *(reason for reason in result.reasons if reason not in known),
                *([f"a counterexample is in {result.counterexample}: run its replay.py"] * bool(result.counterexample)),
            ),
            summary=Table(
                _OUTPUT_COLUMNS, tuple(map(_figures, result.outputs)), "l" + "r" * (len(_OUTPUT_COLUMNS) - 1)
            ),
            appendix=Table(_LAYER_COLUMNS, tuple(_layers(result)) if self.layers else ()),
        )

    def _regions(self) -> Table:
        if not self.layers:
            shown = (region for region in self.result.regions if region.outcome is not Outcome.EQUAL)
            return Table(_REGION_COLUMNS, tuple(map(_region, shown)))
        return Table(
            (*_REGION_COLUMNS, "operators"),
            tuple((*_region(region), _operators(region)) for region in self.result.regions),
        )

    def to_dict(self) -> dict[str, object]:
        """The same for programs."""
        return {"before": self.before, "after": self.after, **self.result.to_dict(layers=self.layers)}

    def cases(self) -> tuple[Case, ...]:
        """The same as answers, one by one."""
        return tuple(cases(self.result, self.after))


def _passing(result: Verification) -> Iterator[str]:
    if result.outputs:
        yield f"a tolerance of {_short(result.passing_tolerance)} of max |y| would have passed; {result.how}"


def _operators(region: RegionResult) -> tuple[str, ...]:
    """All of them, before and after, and what was tried on them."""
    sides = (("before", region.operators), ("after", region.replaced_by), ("tried", region.tried))
    return tuple(f"{side:<6}  {', '.join(names) or 'nothing'}" for side, names in sides)


def _alike(result: Verification) -> str:
    return f"shared: {result.shared} of {len(result.layers)} operators of AFTER are in BEFORE, too, on equal inputs"


def _layers(result: Verification) -> Iterator[Row]:
    """A row for each operator; those in a region have its outcome, and its figures where it ends."""
    regions = {operator: region for region in reversed(result.regions) for operator in region.replaced_by}
    ends = {region.value: region for region in result.regions}
    for layer in result.layers:
        region = ends.get(layer.value) or regions.get(layer.operator)
        if layer.is_shared:
            yield "shared", layer.operator, layer.value, "0", "", ""
        elif region is None:  # what is computed from constants, or nothing reads
            yield "", layer.operator, layer.value, "", "", ""
        else:
            ending = region.value == layer.value and not region.is_open
            figures = [_short(figure) for figure in (region.difference, region.error)] if ending else ["", ""]
            channel = str(region.channel) if ending and region.channel is not None else ""
            yield region.outcome.value, layer.operator, layer.value, *figures, channel


def _place(region: RegionResult) -> tuple[str, ...]:
    """The place of a difference, as somebody who has to find it needs it."""
    channel = "" if region.channel is None else f", channel {region.channel} of axis {region.axis}"
    factor = f", {_short(region.error)} times as much" if math.isfinite(region.error) else ""
    return (
        f"first operator at fault: {region.suspect}",
        f"at value {region.value!r}{channel}: off by {_short(region.difference)} of max |y|; "
        f"rounding explains {_short(region.bound)}{factor}",
        *([region.detail] if region.detail else []),
        f"before: {_few(region.operators)}",
        f"after:  {_few(region.replaced_by)}",
    )


def _figures(output: OutputFigures) -> tuple[str, ...]:
    agreement = "" if output.argmax_agreement is None else f"{output.argmax_agreement:.0%}"
    return (
        output.name,
        *(_short(figure) for figure in (output.max_abs, output.max_rel, output.rms)),
        f"{output.snr_db:.0f}",
        _short(output.ulps),
        f"{output.cosine:.9g}",
        agreement,
        str(output.misplaced),
        _short(output.floor),
        _short(output.tolerance),
    )


def _region(region: RegionResult) -> tuple[str, ...]:
    if region.is_open:
        return region.outcome.value, region.suspect, region.value, "", "", "", region.detail
    channel = "" if region.channel is None else str(region.channel)
    figures = [_short(region.difference), _short(region.bound), _short(region.error)]
    return region.outcome.value, region.suspect, region.value, *figures, channel or region.detail


def _few(names: Sequence[str]) -> str:
    shown = ", ".join(names[:6])
    return f"{shown} and {len(names) - 6} more" if len(names) > 6 else shown or "nothing"


def _short(figure: float | None) -> str:
    return "" if figure is None else f"{figure:.2g}"
