"""What was measured on data: a calibration, one by a reference, and drift."""

from __future__ import annotations

from bnfold.schemas.parts import COUNT, FIGURE, NUMBER, TEXT, Keys, each, envelope, maybe, one_of, record

_SKIPPED = record({"name": ("of the node", TEXT), "why": ("it was left alone", TEXT)})
_ENDS: Keys = {
    "skipped": ("what was left alone", each(_SKIPPED)),
    "warnings": ("what the user should know, a line each", each(TEXT)),
}
_RUN: Keys = {
    "output": ("the file that was written, or null", maybe(TEXT)),
    "method": ("how statistics were found", TEXT),
    "samples": ("how many were measured", COUNT),
    "batch_size": ("samples in a batch", COUNT),
    "seconds": ("of wall time", NUMBER),
    "mean_error": ("the largest standard error of a mean, in standard deviations", maybe(NUMBER)),
    "residual": ("the largest difference of a measurement of the result; null if it was not checked", maybe(FIGURE)),
}
_LAYER: Keys = {
    "name": ("of the node", TEXT),
    "channels": ("how many it has", COUNT),
    "count": ("values measured per channel", COUNT),
    "mean_error": ("the largest standard error of a mean, in standard deviations", maybe(NUMBER)),
    "residual": ("the largest difference when measured again", maybe(FIGURE)),
}
_CALIBRATED = record(
    {
        **_LAYER,
        "mean_moved": ("how far a mean moved at the most, in standard deviations", maybe(NUMBER)),
        "var_error": ("the largest standard error of a variance, as a share", maybe(NUMBER)),
        "dead_channels": ("channels that hardly vary", each(COUNT)),
    }
)
_KEYS: Keys = {
    "model": ("the path as it was given", TEXT),
    **_RUN,
    "layers": ("the BatchNormalizations, in graph order", each(_CALIBRATED)),
    **_ENDS,
}
MEASURED = record(_KEYS)
"""As part of another document."""
CALIBRATION = envelope("calibration", "bnfold calibrate --format json", _KEYS)

_MATCHED = record(
    {
        **_LAYER,
        "twin": ("the layer of the float model", TEXT),
        "by": ("how they were paired", one_of("name", "order")),
        "mean_off_before": ("how far means were off, in the twin's standard deviations", maybe(FIGURE)),
        "spread_off_before": ("the same of standard deviations, as a share", maybe(FIGURE)),
        "spread_off": ("the same now", maybe(FIGURE)),
    }
)
REFERENCE = envelope(
    "reference",
    "bnfold calibrate --reference --format json",
    {
        "model": ("the path as it was given", TEXT),
        "reference": ("the path of the float model as it was given", TEXT),
        **_RUN,
        "mean_off_before": ("how far the means of layers were off before", maybe(FIGURE)),
        "layers": ("those that were matched, in graph order", each(_MATCHED)),
        **_ENDS,
    },
)

_DRIFTED = record(
    {
        "name": ("of the node", TEXT),
        "score": ("the mean divergence of its channels", FIGURE),
        "floor": ("what sampling alone adds to it", maybe(NUMBER)),
        "mean_shift": ("of means, in stored standard deviations", each(FIGURE)),
        "log_variance": ("|ln| of the ratio of variances", each(FIGURE)),
        "variance_ratio": ("of what was met to what is stored", each(FIGURE)),
        "divergence": ("symmetric KL divergence of the Gaussians", each(FIGURE)),
        "distance": ("Wasserstein-2 distance, in stored standard deviations", each(FIGURE)),
        "ranked_channels": ("the farthest first", each(COUNT)),
    }
)
DRIFT = envelope(
    "drift",
    "bnfold drift --format json",
    {
        "model": ("the path as it was given", TEXT),
        "verdict": ("what the score means", one_of("fine", "look", "recalibrate", "unknown")),
        "score": ("the mean score of the layers", FIGURE),
        "worst_score": ("the highest score of a layer", FIGURE),
        "floor": ("what sampling alone adds to the score, on average; null if that is not known", maybe(NUMBER)),
        "explained": ("what it adds in all but one of 200 cases; null if that is not known", maybe(NUMBER)),
        "excess": ("what sampling does not explain; `--fail-above` compares it", FIGURE),
        "samples": ("how many were measured", COUNT),
        "samples_needed": ("about how many can tell whether the data is fine", COUNT),
        "seconds": ("of wall time", NUMBER),
        "first": ("the first layer", TEXT),
        "fault": ("what may be wrong with the input; empty if nothing is known", TEXT),
        "layers": ("the BatchNormalizations that something reached, in graph order", each(_DRIFTED)),
        **_ENDS,
    },
)
