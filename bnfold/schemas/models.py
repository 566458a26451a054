"""What became of models: `optimize` and `check`."""

from __future__ import annotations

from bnfold.schemas.calibration import MEASURED
from bnfold.schemas.parts import (
    COUNT,
    FLAG,
    NUMBER,
    TEXT,
    Keys,
    before_after,
    by_name,
    each,
    envelope,
    maybe,
    one_of,
    record,
)
from bnfold.schemas.verification import FOUND

_COUNTS = record(
    {
        "folded": ("all its operators are gone", COUNT),
        "reduced": ("a single Add or Mul is left", COUNT),
        "kept": ("it stays as it was", COUNT),
        "replaced": ("`--leftover` put others in its place", COUNT),
    }
)
_NORMS = record(
    {
        "cleared": ("it stays, with a scale of 1 and no bias", COUNT),
        "kept": ("it stays as it was", COUNT),
    }
)
_REASON = record(
    {
        "reason": ("its stable name", {"type": "string", "pattern": "^[A-Z][A-Z_]*$"}),
        "text": ("for people", TEXT),
        "facts": ("the numbers and names in that text", by_name({})),
        "node": ("where the way ended", TEXT),
        "towards": ("where it led; empty where the node itself is the obstacle", one_of("up", "down", "beside", "")),
    }
)
_LEFT = record(
    {"node": ("its name in the folded model, or that of its output", TEXT), "op_type": ("its operator", TEXT)}
)
ENTRY_KEYS: Keys = {
    "node": ("its name, or that of its first output, before the fold", TEXT),
    "op_type": ("its operator", TEXT),
    "outcome": ("what became of it", one_of("folded", "reduced", "cleared", "kept", "replaced", "merged")),
    "into": ("the nodes that took it in", each(TEXT)),
    "through": ("the nodes that it passed on its way", each(TEXT)),
    "left": ("what stands in its place in the folded model", each(_LEFT)),
    "stays": ("which known case a node that stays is, or null", maybe(TEXT)),
    "reasons": ("why each way that was tried to be rid of it ended", each(_REASON)),
    "renamed": ("values whose meaning changed: old name to new name", by_name(TEXT)),
    "copied": ("shared weights that had to be copied: name to bytes", by_name(COUNT)),
    "assumes": (
        "shapes of inputs for which alone it was done, by name; else null",
        maybe(by_name(each({"type": ["integer", "string", "null"]}))),
    ),
    "part_of": ("the first of the operators that spell a BatchNormalization out together, or null", maybe(TEXT)),
}
_PLANNED: Keys = {
    "model": ("the path as it was given; `model` for standard input", TEXT),
    "error": ("null; a text where the model could not be read, and then other keys are missing", {"type": "null"}),
    "status": ("what it comes to, in a word", {"type": "string", "pattern": "^[A-Z]+$"}),
    "batchnorms": ("how many met which fate, those that are spelt out among them", _COUNTS),
    "spelt_out": ("how many of them Mul and Add spell out", COUNT),
    "affines": ("the same of other operators that are an affine", _COUNTS),
    "norms": ("how many norms gave scale and bias away, and how many did not, with `--fold-norms`", _NORMS),
    "merged": ("branches of a sum that went into an operator beside them", COUNT),
    "nodes": ("how many there are", before_after(COUNT)),
    "entries": ("what became of each affine node and each merged branch", each(record(ENTRY_KEYS))),
    "operators": ("how many of each type there are", by_name(before_after(COUNT))),
    "parameters": ("numbers that the model stores", before_after(COUNT)),
    "macs": ("multiplications and additions of one run, null if a shape is not known", maybe(before_after(COUNT))),
}
_MEASURED = ("operators", "parameters", "macs")  # where they could be counted
_ASKED = record(
    {
        "node": ("the affine node that asked", TEXT),
        "way": ("what of it went where: `up`, `scale down`, …; empty for the node itself", TEXT),
        "operator": ("who was asked", TEXT),
        "op_type": ("its type", TEXT),
        "said": ("for people", TEXT),
        "equation": ("what that rests on; empty where there is none", TEXT),
    }
)
_CHECKED = record(
    {
        **_PLANNED,
        "ok": ("whether nothing is there that `--fail-on` says", FLAG),
        "stopped": ("the nodes for which it is not", each(TEXT)),
        "asked": ("with `--node`, every operator that these nodes came to; else null", maybe(each(_ASKED))),
    },
    optional=_MEASURED,
)
_DIFFERENCE = record(
    {
        "change": ("what became of it", one_of("removed", "changed", "added")),
        "node": ("its name, or that of its first output", TEXT),
        "op_type": ("its operator", TEXT),
        "details": ("for people", each(TEXT)),
    }
)
_OPTIMIZED = record(
    {
        **_PLANNED,
        "output": ("the file that was written, or null", maybe(TEXT)),
        "dry_run": ("whether nothing was to be written", FLAG),
        "diff": ("with `--diff`, every node that is different; else null", maybe(each(_DIFFERENCE))),
        "bytes": ("size, data files included", before_after(COUNT)),
        "verification": ("how the two compare; null if nothing was compared", maybe(FOUND)),
        "calibration": ("what was measured first; null if it was not asked for", maybe(MEASURED)),
        "seconds": ("of wall time; null if it was not measured", maybe(NUMBER)),
    },
    optional=_MEASURED,
)
_FAILED = record({"model": ("the path as it was given", TEXT), "error": ("why it could not be read", TEXT)})
MODELS = envelope(
    "models",
    "bnfold optimize --format json, bnfold check --format json",
    {
        "models": (
            "one for each model, in the order of the command line: checked, optimized, or failed",
            each({"anyOf": [_CHECKED, _OPTIMIZED, _FAILED]}),
        )
    },
)
