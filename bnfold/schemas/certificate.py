"""A certificate: the record that `optimize --certificate` writes, and what checking one came to."""

from __future__ import annotations

from bnfold.schemas.models import ENTRY_KEYS
from bnfold.schemas.parts import (
    COUNT,
    FIGURE,
    FLAG,
    NUMBER,
    TEXT,
    WHOLE,
    by_name,
    document,
    each,
    envelope,
    maybe,
    record,
)
from bnfold.schemas.verification import FOUND

CERTIFICATE = envelope(
    "certificate",
    "bnfold verify --certificate FILE --format json",
    {
        "holds": ("whether everything agrees with the record", FLAG),
        "findings": ("what does not", each(TEXT)),
        "parameters": ("how many folded parameters were computed anew", COUNT),
        "largest_ulp": ("their largest error, in units in the last place", NUMBER),
        "verification": ("what verifying again found; null with `--static`", maybe(FOUND)),
    },
)

_FILE = record(
    {
        "path": ("relative to the folder of the certificate", TEXT),
        "sha256": ("of its content", {"type": "string", "pattern": "^[0-9a-f]{64}$"}),
        "nbytes": ("its size", COUNT),
    }
)
_SEEN = record({"file": ("of the model", _FILE), "data": ("its data files", each(_FILE))})
_STATIC = record(
    {
        "exact": ("whether every parameter is within its limit", FLAG),
        "parameters": ("how many were written", COUNT),
        "largest_ulp": ("the largest error of any", NUMBER),
    }
)
_PARAMETER = record(
    {
        "name": ("in AFTER", TEXT),
        "dtype": ("the type it is stored in", TEXT),
        "shape": ("its shape", each(COUNT)),
        "ulp": ("the largest distance from the exact number, in units in the last place", NUMBER),
        "limit": ("how much that may be", NUMBER),
    }
)
_OPTIONS = record(
    {
        "keep": ("as `--keep`", each(TEXT)),
        "assume_constant": ("as `--assume-constant`", FLAG),
        "leftover": ("as `--leftover`", TEXT),
        "max_growth": ("as `--max-growth`", {"type": ["integer", "string", "null"]}),
        "inside_patterns": ("as `--fold-inside-patterns`", FLAG),
        "fold_norms": ("as `--fold-norms`", FLAG),
        "shapes": ("as `--shape`", by_name(each(COUNT))),
        "dims": ("as `--dim`", by_name(COUNT)),
        "seed": ("of the verification", COUNT),
    }
)
_CONDITION = record(
    {
        "node": ("the operator that was asked", TEXT),
        "op_type": ("its type", TEXT),
        "ability": ("what it did with the affine", TEXT),
        "rule": ("the function that says so, or null", maybe(TEXT)),
        "equation": ("what makes it true", TEXT),
        "axes": ("along which the affine varies", each(WHOLE)),
        "scale": ("its smallest and largest scale", each(FIGURE)),
        "shift": ("its smallest and largest shift", each(FIGURE)),
    }
)
_ENTRY = record(
    {
        **ENTRY_KEYS,
        "parameters": ("constants that were made for it and are still there", each(TEXT)),
        "conditions": ("the answers that it rests on", each(_CONDITION)),
    }
)
RECORD = document(
    "record-1",
    "bnfold optimize --certificate FILE",
    {
        "kind": ("what this is", {"const": "bnfold certificate"}),
        "schema": ("version of this format", {"const": 1}),
        "static": ("a summary of `parameters`", _STATIC),
        "before": ("the model", _SEEN),
        "after": ("the folded model", _SEEN),
        "versions": ("of the packages that did it", by_name(TEXT)),
        "options": ("what they were asked for", _OPTIONS),
        "entries": ("what became of each affine node, and what that rests on", each(_ENTRY)),
        "parameters": ("every constant that was written", each(_PARAMETER)),
        "verification": ("what the verification found; null if there was none", maybe(FOUND)),
    },
)
