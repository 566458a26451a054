"""What a verification found."""

from __future__ import annotations

from bnfold.schemas.parts import COUNT, FIGURE, FLAG, TEXT, Keys, each, envelope, maybe, one_of, record

_OUTPUT = record(
    {
        "scale": ("max |y| of BEFORE", FIGURE),
        "max_abs": ("largest absolute difference", FIGURE),
        "max_rel": ("the same, relative to max |y|", FIGURE),
        "max_elementwise": ("largest difference relative to the element itself", FIGURE),
        "rms": ("root of the mean square difference, relative to max |y|", FIGURE),
        "snr_db": ("signal to noise ratio in decibels", FIGURE),
        "ulps": ("largest difference in units in the last place of max |y|", FIGURE),
        "cosine": ("of the angle between the two outputs", FIGURE),
        "argmax_agreement": (
            "share of samples with the same largest entry; null if it is no list of classes",
            maybe(FIGURE),
        ),
        "misplaced": ("NaN or infinite entries that only one side has, or that differ", COUNT),
        "compared": ("entries that are finite on both sides", COUNT),
        "index": ("where the largest difference is", each(COUNT)),
        "name": ("the output", TEXT),
        "floor": ("noise floor, relative", FIGURE),
        "tolerance": ("the relative difference that is accepted", FIGURE),
        "inputs": ("which inputs gave the largest difference", TEXT),
        "passed": ("whether the output is accepted", FLAG),
    }
)
_REGION = record(
    {
        "value": ("the value at its end, by its name in BEFORE", TEXT),
        "operators": ("of the region in BEFORE, as `type name`", each(TEXT)),
        "replaced_by": ("the same in AFTER", each(TEXT)),
        "suspect": ("the operator of AFTER that the difference is laid to", TEXT),
        "outcome": (
            "what the comparison came to",
            one_of("equal", "different", "redefined", "not evaluated", "not exercised"),
        ),
        "error": ("the largest difference in units of `bound`", FIGURE),
        "difference": ("the largest difference, relative to max |y|", FIGURE),
        "bound": ("what one rounding of the changed weights explains", FIGURE),
        "channel": ("where along `axis` the largest difference is", maybe(COUNT)),
        "axis": ("the axis that tells channels apart", maybe(COUNT)),
        "detail": ("why it was not evaluated or exercised, or what else there is to say", TEXT),
        "tried": ("what trials were for: names of the table in docs/verification.md", each(TEXT)),
    }
)
_LAYER = record(
    {
        "operator": ("as `type name`", TEXT),
        "value": ("what it makes", TEXT),
        "is_shared": ("whether BEFORE has the same operator on equal inputs", FLAG),
    }
)
_KEYS: Keys = {
    "verdict": ("the answer", one_of("equivalent", "different", "not verified")),
    "ok": ("whether the verdict is `equivalent`", FLAG),
    "reasons": ("why it is not, what it does not rest on, and notes", each(TEXT)),
    "regions": ("every part of the graph that differs, evaluated alone", each(_REGION)),
    "complete": ("whether all of them were evaluated, and every known difference exercised", FLAG),
    "shared": ("how many operators of AFTER are in BEFORE, too, on equal inputs", COUNT),
    "layers": ("with `--layers`, every operator of AFTER", each(_LAYER)),
    "outputs": ("figures of each output from running both models", each(_OUTPUT)),
    "passing_tolerance": ("the relative tolerance that would have passed; null if nothing was run", maybe(FIGURE)),
    "how": ("how the models were run", TEXT),
    "seed": ("of the inputs", COUNT),
    "counterexample": ("the folder that one was written to; empty if none was", TEXT),
}
FOUND = record(_KEYS)
"""As part of another document."""
VERIFICATION = envelope(
    "verification",
    "bnfold verify --format json",
    {
        "before": ("the path as it was given", TEXT),
        "after": ("the path as it was given", TEXT),
        **_KEYS,
    },
)
