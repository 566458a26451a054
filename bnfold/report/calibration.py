"""What `calibrate` and `drift` found, as text, Markdown, HTML, JSON and a picture."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from bnfold import escape
from bnfold.calibration.result import Calibration, Layer
from bnfold.calibration.shift import BANDS, Drift, LayerDrift, Verdict
from bnfold.report.summary import plural
from bnfold.version import __version__

SCHEMA = 1
_WORST_CHANNELS = 5
_WRONG_SCALE = 0.4  # of a logarithm of variances: values that spread a fifth more or less
_MEANING = {
    Verdict.FINE: "the data looks like what the statistics were made from",
    Verdict.LOOK: "the data differs; look at the layers with the highest scores",
    Verdict.RECALIBRATE: "the data differs so much that accuracy is likely to suffer: recalibrate, or mend the input",
    Verdict.UNKNOWN: "so few samples cannot tell",
}


@dataclass(frozen=True)
class Report:
    """Lines, a table and more lines.

    Attributes:
        headline: says it all.
        lines: below it.
        columns: heads of the table.
        rows: of the table; its first cell is a name.
        notes: warnings, below the table.
    """

    headline: str
    lines: tuple[str, ...]
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    notes: tuple[str, ...]

    def text(self) -> str:
        """For a terminal."""
        return "\n".join(self.lines_of_text())

    def lines_of_text(self) -> tuple[str, ...]:
        """The lines of `text`."""
        table = [self.columns, *(tuple(map(escape.line, row)) for row in self.rows)] if self.rows else []
        widths = [max(map(len, column)) for column in zip(*table, strict=True)]
        aligned = (
            "  ".join([row[0].ljust(widths[0]), *(c.rjust(w) for c, w in zip(row[1:], widths[1:], strict=True))])
            for row in table
        )
        notes = (f"warning: {note}" for note in self.notes)
        below = (f"  {line}" for line in (*self.lines, *aligned))
        return tuple(map(escape.line, [self.headline, *below, *notes]))

    def markdown(self) -> str:
        """For a pull request."""
        lines = [f"**{escape.markdown(self.headline)}**", "", *(f"- {escape.markdown(line)}" for line in self.lines)]
        if self.rows:
            rule = ["---", *["---:"] * (len(self.columns) - 1)]
            rows = (self.columns, rule, *(map(escape.markdown, row) for row in self.rows))
            lines += ["", *(f"| {' | '.join(row)} |" for row in rows)]
        return "\n".join([*lines, *(f"\n> {escape.markdown(note)}" for note in self.notes)])

    def html(self) -> str:
        """For a notebook."""
        head = "".join(f"<th>{escape.html(column)}</th>" for column in self.columns)
        body = "".join(f"<tr>{''.join(f'<td>{escape.html(cell)}</td>' for cell in row)}</tr>" for row in self.rows)
        lines = "".join(f"<p>{escape.html(line)}</p>" for line in (*self.lines, *self.notes))
        return f"<p><b>{escape.html(self.headline)}</b></p>{lines}<table><tr>{head}</tr>{body}</table>"


def render(result: Calibration | Drift, form: str, *, verbose: bool = False) -> str:
    """The result in a form: text, markdown or json."""
    if form == "json":
        data = calibration_dict(result) if isinstance(result, Calibration) else drift_dict(result)
        return escape.as_json({"schema": SCHEMA, "bnfold": __version__, **data})
    if isinstance(result, Calibration):
        report = calibration_report(result, verbose=verbose or form == "markdown")
    else:
        report = drift_report(result, verbose=verbose or form == "markdown")
    return report.markdown() if form == "markdown" else report.text()


# --- calibration -------------------------------------------------------------------------------------------


def calibration_report(result: Calibration, *, verbose: bool = False) -> Report:
    """The calibration; if verbose, with a row for each layer."""
    count = len(result.layers)
    return Report(
        f"{result.source}: {plural(count, 'BatchNormalization')} calibrated on {plural(result.samples, 'sample')} "
        f"({result.method.value}, batch size {result.batch_size})",
        (*_calibration_lines(result), *_written(result)),
        ("BatchNormalization", "channels", "mean moved", "var x", "mean error", "var error", "residual"),
        tuple(map(_layer_row, result.layers)) if verbose else (),
        (*_skipped(result), *result.warnings),
    )


def _calibration_lines(result: Calibration) -> Iterator[str]:
    if kept := sum(entry.is_asked for entry in result.skipped):
        yield f"{kept} {'keeps its' if kept == 1 else 'keep their'} statistics, as asked"
    farthest = max(result.layers, key=lambda layer: layer.moved)
    yield f"means moved by up to {_number(farthest.moved)} standard deviations ({farthest.name})"
    errors = [layer.error for layer in result.layers], [layer.var_error for layer in result.layers]
    if all(map(math.isfinite, errors[0])):
        mean, var = map(max, errors)
        yield f"standard errors: means within {_number(mean)} standard deviations, variances within {_percent(var)}"
    if result.residual is not None:
        yield f"measured again on the calibrated model: the largest residual is {result.residual:.1e}"


def _written(result: Calibration) -> tuple[str, ...]:
    return (f"written to {result.output}",) if result.output else ()


def _layer_row(layer: Layer) -> tuple[str, ...]:
    ratio = max((layer.var + layer.epsilon) / (layer.old_var + layer.epsilon), key=lambda r: abs(math.log(r)))
    return (
        layer.name,
        str(layer.channels),
        _number(layer.moved),
        _number(float(ratio)),
        _number(layer.error),
        _percent(layer.var_error),
        "" if layer.residual is None else f"{layer.residual:.1e}",
    )


def calibration_dict(result: Calibration) -> dict[str, object]:
    """The calibration as plain data."""
    return {
        "model": result.source,
        "output": str(result.output) if result.output else None,
        "method": result.method.value,
        "samples": result.samples,
        "batch_size": result.batch_size,
        "seconds": round(result.seconds, 3),
        "mean_error": _json(result.error),
        "residual": result.residual,
        "layers": [
            {
                "name": layer.name,
                "channels": layer.channels,
                "count": layer.measured.count,
                "mean_moved": _json(layer.moved),
                "mean_error": _json(layer.error),
                "var_error": _json(layer.var_error),
                "dead_channels": list(layer.dead),
                "residual": layer.residual,
            }
            for layer in result.layers
        ],
        "skipped": [{"name": entry.name, "why": entry.why} for entry in result.skipped],
        "warnings": list(result.warnings),
    }


# --- drift -------------------------------------------------------------------------------------------------


def drift_report(result: Drift, *, verbose: bool = False) -> Report:
    """The drift; if verbose, with a row for each layer, else for the worst few."""
    ranked = sorted(result.layers, key=lambda layer: -layer.score)
    return Report(
        f"{result.source}: {result.verdict.value} "
        f"(score {_number(result.score)} on {plural(result.samples, 'sample')})",
        tuple(_drift_lines(result)),
        ("BatchNormalization", "score", "mean shift", "log var", "distance", "worst channels"),
        tuple(map(_drift_row, result.layers if verbose else ranked[:_WORST_CHANNELS])),
        (*_skipped(result), *result.warnings),
    )


def _drift_lines(result: Drift) -> Iterator[str]:
    unknown = result.verdict is Verdict.UNKNOWN
    yield _MEANING[result.verdict] + (f": take {result.samples_needed} or more" if unknown else "")
    look, recalibrate = BANDS
    yield f"score: fine under {look:g}, look under {recalibrate:g}; sampling alone explains {_number(result.floor)}"
    first = result.first
    yield (
        f"first layer ({first.name}): means off by up to {_number(float(first.mean_shift.max()))} standard deviations, "
        f"variances {_ratio(first)}"
    )
    if result.fault:
        yield f"the input: {result.fault}"
    elif result.verdict in (Verdict.LOOK, Verdict.RECALIBRATE):
        yield from _hint(first)
    if result.verdict in (Verdict.LOOK, Verdict.RECALIBRATE):
        yield f"next: {'mend the input, or ' * bool(result.fault)}bnfold calibrate {_path(result)} --data DATA"


def _path(result: Drift) -> str:
    return result.source if result.source != "the model" else "MODEL"


def _ratio(layer: LayerDrift) -> str:
    """By how much variances are off: the channel that is farthest."""
    return f"by up to a factor of {_number(float(layer.variance_ratio[layer.log_variance.argmax()]))}"


def _hint(first: LayerDrift) -> Iterator[str]:
    """What the first layer says of the input where no known mistake explains it."""
    logs = np.log(first.variance_ratio)
    common = float(np.median(logs))
    if abs(common) > _WRONG_SCALE and float(np.abs(logs - common).max()) < abs(common) / 2:
        yield (
            f"the input: values spread {_number(math.exp(common / 2))} times as far in every channel: is the standard "
            "deviation (or the scale) that of training?"
        )
    elif first.mean_shift.max() > 1:
        yield "the input: is it scaled and normalised as in training?"


def _drift_row(layer: LayerDrift) -> tuple[str, ...]:
    channels = " ".join(map(str, layer.ranked()[:_WORST_CHANNELS]))
    values = (layer.score, layer.mean_shift.mean(), layer.log_variance.mean(), layer.distance.mean())
    return (layer.name, *(_number(float(value)) for value in values), channels)


def drift_dict(result: Drift) -> dict[str, object]:
    """The drift as plain data."""
    return {
        "model": result.source,
        "verdict": result.verdict.value,
        "score": result.score,
        "worst_score": result.worst.score,
        "floor": _json(result.floor),
        "excess": result.excess,
        "samples": result.samples,
        "samples_needed": result.samples_needed,
        "seconds": round(result.seconds, 3),
        "first": result.first.name,
        "fault": result.fault,
        "layers": [
            {
                "name": layer.name,
                "score": layer.score,
                "floor": _json(float(layer.floor.mean())),
                "mean_shift": layer.mean_shift.tolist(),
                "log_variance": layer.log_variance.tolist(),
                "variance_ratio": layer.variance_ratio.tolist(),
                "divergence": layer.divergence.tolist(),
                "distance": layer.distance.tolist(),
                "ranked_channels": layer.ranked(),
            }
            for layer in result.layers
        ],
        "skipped": [{"name": entry.name, "why": entry.why} for entry in result.skipped],
        "warnings": list(result.warnings),
    }


# --- small matters -----------------------------------------------------------------------------------------


def _skipped(result: Calibration | Drift) -> Iterator[str]:
    yield from (f"{entry.name} {entry.why}; it is left as it is" for entry in result.skipped if not entry.is_asked)


def _number(value: float) -> str:
    if not math.isfinite(value):
        return "?"
    return f"{value:.2g}" if abs(value) < 1e4 else f"{value:.1e}"


def _percent(value: float) -> str:
    return f"{100 * value:.2g} %" if math.isfinite(value) else "?"


def _json(value: float) -> float | None:
    return value if math.isfinite(value) else None
