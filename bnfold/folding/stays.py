"""Why a node stays, as a colleague would say it: what stands above it, what below, and what would have to change.

The kinds have an entry each in docs/what-stays.md. Where none fits, the reasons speak for themselves.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from bnfold.folding.record import Entry, Outcome
from bnfold.reasons import Reason, Refusal


@dataclass(frozen=True)
class Kind:
    """A case that is understood.

    Attributes:
        name: What it is called.
        remedy: What would have to change, or that nothing exact helps.
    """

    name: str
    remedy: str


CALIBRATE = Kind("not calibrated", "after that it folds")
IN_YOUR_HAND = Kind("in your hand", "an option or the export decides it")
DAMAGED = Kind("damaged", "its parameters have to be repaired first")
DATA_DEPENDENT = Kind("data-dependent", "what would have to change is computed from data; nothing exact removes it")
PRECISION = Kind("precision", "a wider type would hold it: fold before you convert")
QUANTIZED = Kind("quantized data", "fold before you quantize")
NO_BIAS = Kind("no bias", "its scale went into what it reads, which has no bias; one Add costs no more than that")
BEFORE_PADDING = Kind("before padding", "the zeros around an image do not get its shift; nothing exact removes it")
BEFORE_A_SUM = Kind("before a sum", "what is added to it would need its scale too; nothing exact removes it")
PRE_ACTIVATION = Kind("pre-activation", "others need its input as it is; nothing exact removes it")
BETWEEN_FUNCTIONS = Kind("between functions", "no affine passes either; nothing exact removes it")
AT_THE_INPUT = Kind("at the input", "apply it where the data is made")
AT_THE_OUTPUT = Kind("at the output", "apply it where the result is read")

KINDS = (
    CALIBRATE,
    IN_YOUR_HAND,
    DAMAGED,
    DATA_DEPENDENT,
    PRECISION,
    QUANTIZED,
    NO_BIAS,
    BEFORE_PADDING,
    BEFORE_A_SUM,
    PRE_ACTIVATION,
    BETWEEN_FUNCTIONS,
    AT_THE_INPUT,
    AT_THE_OUTPUT,
)

_BY_REASON = {
    CALIBRATE: {Reason.TRAINING_MODE, Reason.EXTRA_OUTPUTS},
    IN_YOUR_HAND: {
        Reason.KEPT_BY_NAME,
        Reason.FUSED_BY_RUNTIME,
        Reason.GROWTH,
        Reason.OVERRIDABLE,
        Reason.OUT_OF_TIME,
    },
    DAMAGED: {Reason.VARIANCE_NOT_POSITIVE, Reason.NOT_FINITE, Reason.WRONG_SIZE, Reason.MALFORMED},
    DATA_DEPENDENT: {Reason.NOT_CONSTANT},
    PRECISION: {Reason.OVERFLOW, Reason.UNDERFLOW},
}
"""Reasons that decide alone: in the node itself, or on both sides of it."""
_FUNCTION = {Reason.NO_RULE, Reason.SHIFT_NOT_ZERO, Reason.SCALE_NOT_POSITIVE, Reason.NOT_UNIFORM}
_SIDES = (("", ""), ("up", "above, "), ("down", "below, "))
_OTHERS = {Reason.BRANCHES, Reason.GRAPH_OUTPUT, Reason.OTHER_SCOPE}


def kind_of(entry: Entry) -> Kind | None:
    """The case that a node which stays is; None where it goes, or is none of those."""
    if entry.outcome in (Outcome.FOLDED, Outcome.MERGED, Outcome.CLEARED):
        return None
    above, below, itself = (_reasons(entry.refusals, side) for side in ("up", "down", ""))
    for kind, reasons in _BY_REASON.items():
        if itself & reasons or (above & reasons and below & reasons):
            return kind
    if Reason.QUANTIZED in above | itself and Reason.QUANTIZED in below | itself:
        return QUANTIZED
    if Reason.NO_GAIN in itself and entry.outcome is Outcome.REDUCED:
        return NO_BIAS
    return _kind_by_sides(above, below)


def _kind_by_sides(above: set[Reason], below: set[Reason]) -> Kind | None:
    """What stops it above counts first: upwards is where most go."""
    if not above or not below:
        return None
    if Reason.SHIFT_MEETS_PADDING in below:
        return AT_THE_INPUT if Reason.GRAPH_INPUT in above else BEFORE_PADDING
    if Reason.GRAPH_OUTPUT in below:
        return AT_THE_OUTPUT
    if Reason.SCALE_MEETS_SUM in below and above <= _FUNCTION | _OTHERS:
        return BEFORE_A_SUM
    if below <= _FUNCTION:
        if above <= _OTHERS:
            return PRE_ACTIVATION
        if above <= _FUNCTION:
            return BETWEEN_FUNCTIONS
        if Reason.GRAPH_INPUT in above:
            return AT_THE_INPUT
    return None


def _reasons(refusals: Sequence[Refusal], side: str) -> set[Reason]:
    return {refusal.reason for refusal in refusals if refusal.towards == side}


def sentence(kind: Kind, entries: Sequence[Entry]) -> str:
    """What is true of all these nodes, side by side, with an example where they differ in detail."""
    sides = [] if kind is NO_BIAS else [_obstacle(entries, *side) for side in _SIDES]
    told = "; ".join(filter(None, sides))
    remedy = f". {kind.remedy[0].upper()}{kind.remedy[1:]}" if told else kind.remedy
    return f"{kind.name}: {told}{remedy}"


def _obstacle(entries: Sequence[Entry], towards: str, words: str) -> str:
    """The first that is met on one side."""
    met = [next((r for r in entry.refusals if r.towards == towards), None) for entry in entries]
    if met[0] is None:
        return ""
    if len(entries) == 1:
        return f"{words}{met[0].text}"
    alike = all(other is not None and (other.reason, other.facts) == (met[0].reason, met[0].facts) for other in met)
    return f"{words}{'' if alike else 'e.g. '}{replace(met[0], node='').text}"
