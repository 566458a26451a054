"""How two models compare, beside what rounding explains."""

from __future__ import annotations

from dataclasses import dataclass

from bnfold.report.bounds import Bounded, bounded
from bnfold.report.figures import Scale
from bnfold.verification.result import Outcome, OutputFigures, RegionResult, Verification

_ORDER = (Outcome.DIFFERENT, Outcome.NOT_EXERCISED, Outcome.NOT_EVALUATED, Outcome.REDEFINED, Outcome.EQUAL)


@dataclass(frozen=True)
class Verified:
    """A verification.

    Attributes:
        told: The answer as a sentence.
        how: How the models were run.
        reasons: What else there is to say.
        outputs: Figures for each output.
        scale: For differences of outputs.
        regions: What was compared alone, what is not equal first and then what comes nearest to its limit.
        ratios: A scale for how much of its limit a region has used.
        shared: How many operators both models have alike.
    """

    told: str
    how: str
    reasons: tuple[str, ...]
    outputs: Bounded[OutputFigures]
    scale: Scale
    regions: Bounded[RegionResult]
    ratios: Scale
    shared: int


def verified(result: Verification) -> Verified:
    """The figures of a verification."""
    known = {str(region) for region in result.regions}
    figures = [figure for output in result.outputs for figure in (output.max_rel, output.floor, output.tolerance)]
    regions = sorted(result.regions, key=lambda region: (_ORDER.index(region.outcome), -region.error))
    return Verified(
        str(result),
        result.how,
        tuple(reason for reason in result.reasons if reason not in known),
        bounded(result.outputs),
        Scale.of(figures),
        bounded(regions),
        Scale.of([1.0, *(region.error for region in regions)]),
        result.shared,
    )
