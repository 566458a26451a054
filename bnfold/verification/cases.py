"""What was compared, case by case: outputs, regions, and the verdict."""

from __future__ import annotations

from collections.abc import Iterator

from bnfold.page import Case, Demand, Level
from bnfold.verification.result import Outcome, OutputFigures, RegionResult, Verdict, Verification

_OUTPUTS = Demand("outputs", "outputs that differ")
_REGIONS = Demand("regions", "parts of the graph that differ")
_MODELS = Demand("models", "models that are not equivalent")


def cases(result: Verification, after: str) -> Iterator[Case]:
    """All of AFTER. What speaks against a part of it counts only as far as the verdict, which has the last word."""
    undecided = Level.NOTE if result.passed else Level.WARNING
    against = Level.ERROR if result.is_different else undecided
    for output in result.outputs:
        message = "" if output.passed else _differs(output)
        yield Case(after, _OUTPUTS, output.name, Level.PASSED if output.passed else against, message)
    for region in result.regions:
        yield _of_region(region, after, undecided)
    level = {Verdict.EQUIVALENT: Level.PASSED, Verdict.DIFFERENT: Level.ERROR, Verdict.NOT_VERIFIED: Level.ERROR}
    yield Case(after, _MODELS, "verdict", level[result.verdict], str(result), result.reasons)


def _of_region(region: RegionResult, after: str, undecided: Level) -> Case:
    name = f"{region.suspect} -> {region.value}"
    operators = f"before: {', '.join(region.operators)}", f"after: {', '.join(region.replaced_by)}"
    if region.outcome is Outcome.DIFFERENT:
        return Case(after, _REGIONS, name, Level.ERROR, str(region), operators)
    if region.is_open:
        return Case(after, _REGIONS, name, undecided, str(region), operators)
    return Case(after, _REGIONS, name, Level.PASSED)


def _differs(output: OutputFigures) -> str:
    return f"differs by {output.max_rel:.2g} of max |y|, accepted are {output.tolerance:.2g}"
