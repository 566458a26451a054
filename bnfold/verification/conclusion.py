"""From what was found to a verdict: regions decide where they can, running decides where they cannot.

A difference that is known and that nothing exercised is no matter of a few runs: it leaves the verdict open.
A tolerance of the user overrides both: then it is the outputs that decide.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from bnfold.verification.regions.alignment import Comparison
from bnfold.verification.result import Outcome, OutputFigures, Verdict, Verification
from bnfold.verification.running.outputs import GROSS, Run
from bnfold.verification.running.referee import Ruling

_DROWNED = 0.5  # of max |y|: noise beside which an output tells nothing


def conclusion(
    found: Comparison, ran: Run, rulings: Sequence[Ruling] | None, notes: Sequence[str], seed: int, late: str = ""
) -> Verification:
    """The verdict, and what it rests on.

    Args:
        found: The regions.
        ran: Both models as a whole.
        rulings: What float64 has to say of the runs that were not accepted; None if it was not asked, or had none.
        notes: What else a reader should know.
        seed: Of the inputs.
        late: Why float64 had nothing to say, if that was for want of time or memory.
    """
    different, unknown = found.having(Outcome.DIFFERENT), [region for region in found.regions if region.is_open]
    complete = not found.problem and not unknown
    beyond = [output for output in ran.outputs if not output.passed]
    nothing = [output for output in ran.outputs if output.tolerance > _DROWNED or not output.compared]
    is_off = beyond and (ran.is_final or not _is_rounding(beyond, rulings, complete=complete))
    is_open = bool(is_off) and not any(output.misplaced for output in beyond) and _is_unclear(beyond, rulings, late)
    is_wrong = different and not ran.is_final
    if ran.failure or (is_off and not is_open) or is_wrong:
        verdict = Verdict.DIFFERENT
    elif is_open:
        verdict = Verdict.NOT_VERIFIED
    elif complete or (ran.was_run and not nothing and (ran.is_final or not found.having(Outcome.NOT_EXERCISED))):
        verdict = Verdict.EQUIVALENT
    else:
        verdict = Verdict.NOT_VERIFIED
    reasons = [str(region) for region in different]
    reasons += _of_the_run(ran, beyond, rulings, verdict)
    reasons += [f"not told from rounding: {late or 'neither run is near to float64'}"] * is_open
    reasons += [f"not compared region by region: {found.problem}"] * bool(found.problem)
    reasons += [str(region) for region in unknown]
    reasons += [*map(_silent, nothing), *notes]
    return Verification(
        verdict=verdict,
        outputs=ran.outputs,
        regions=tuple(found.regions),
        complete=complete,
        layers=tuple(found.layers),
        how=ran.how,
        reasons=tuple(reasons),
        seed=seed,
    )


def _is_rounding(beyond: Sequence[OutputFigures], rulings: Sequence[Ruling] | None, *, complete: bool) -> bool:
    """Whether what is beyond its tolerance is rounding nevertheless."""
    if any(output.misplaced for output in beyond):
        return False
    if rulings is None:
        return complete and all(output.max_rel <= GROSS for output in beyond)
    return all(ruling.is_rounding for ruling in rulings)


def _is_unclear(beyond: Sequence[OutputFigures], rulings: Sequence[Ruling] | None, late: str) -> bool:
    """Whether float64 has not told, though what is beyond its tolerance may be rounding."""
    if rulings is None:
        return bool(late) and all(output.max_rel <= GROSS for output in beyond)
    return all(ruling.may_be_rounding for ruling in rulings)


def _of_the_run(
    ran: Run, beyond: Sequence[OutputFigures], rulings: Sequence[Ruling] | None, verdict: Verdict
) -> Iterator[str]:
    if ran.failure:
        yield f"AFTER does not run: {ran.failure}"
    yield from map(_beyond, beyond)
    yield from map(str, rulings or ())
    if not ran.was_run:
        yield f"not run: {ran.problem}"
    elif beyond and verdict is Verdict.EQUIVALENT:
        yield "the difference between the runs is rounding"


def _beyond(output: OutputFigures) -> str:
    if output.misplaced:
        return f"output {output.name!r}: {output.misplaced} entries are NaN or infinite on one side only, or not alike"
    accepted = f"accepted are {output.tolerance:.2g}"
    return f"output {output.name!r} differs by {output.max_rel:.2g} of max |y|, {accepted}"


def _silent(output: OutputFigures) -> str:
    why = "its noise is as large as itself" if output.compared else "nothing in it is finite on both sides"
    return f"output {output.name!r} tells nothing: {why}"
