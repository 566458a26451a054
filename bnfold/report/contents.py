"""What a report says of a result: the sections that it has, as values that the template lays out."""

from __future__ import annotations

from dataclasses import dataclass

from bnfold.calibration.drifted import Drift
from bnfold.calibration.drifted import Verdict as DriftVerdict
from bnfold.calibration.matched import Matched
from bnfold.calibration.result import Calibration
from bnfold.folding import Outcome, Plan
from bnfold.optimization.results import Checked, Optimized, sizes
from bnfold.page import Page
from bnfold.report.bounds import Bounded
from bnfold.report.folds import Kind, kinds
from bnfold.report.measured import Drifted, Measured, drifted, measured
from bnfold.report.spreads import Spreads, spreads
from bnfold.report.stays import Stays, stays
from bnfold.report.twins import Twins
from bnfold.report.verified import Verified, verified
from bnfold.verification.result import Verdict, Verification

Reported = Optimized | Checked | Verification | Calibration | Drift
"""What a report can be made of."""
_TONES = {Verdict.EQUIVALENT: "good", Verdict.DIFFERENT: "bad", Verdict.NOT_VERIFIED: "doubtful"}
_DRIFTS = {DriftVerdict.FINE: "good", DriftVerdict.RECALIBRATE: "bad"}


@dataclass(frozen=True)
class Tile:
    """A figure that stands at the top.

    Attributes:
        figure: What it is.
        label: Of what.
        tone: `good`, `bad`, `doubtful`, or empty where it is neither.
    """

    figure: str
    label: str
    tone: str = ""


@dataclass(frozen=True)
class Folded:
    """What a plan has done, or would do.

    Attributes:
        kinds: What was folded, by the way it went.
        stays: What was not.
        spreads: The weights before and after.
    """

    kinds: Bounded[Kind]
    stays: Stays
    spreads: Spreads

    @classmethod
    def of(cls, plan: Plan) -> Folded:
        """What is known of a plan."""
        twins = Twins(plan)
        return cls(kinds(plan, twins), stays(plan, twins), spreads(plan, twins))


@dataclass(frozen=True)
class Contents:
    """All of a report; what did not run has no section.

    Attributes:
        verb: What was done.
        source: To which model.
        tiles: What matters most, the answer first.
        page: The result as it prints; None where it has no page.
        folded: What went where, and what stays.
        verified: How the models compare.
        measured: What a calibration found.
        drifted: How far data is from the statistics.
    """

    verb: str
    source: str
    tiles: tuple[Tile, ...]
    page: Page | None = None
    folded: Folded | None = None
    verified: Verified | None = None
    measured: Measured | None = None
    drifted: Drifted | None = None


def contents(result: Reported, source: str = "") -> Contents:
    """What there is to say of a result.

    Args:
        result: What a verb has returned.
        source: What it is about, where the result does not say so itself.
    """
    match result:
        case Optimized():
            return _optimized(result)
        case Checked():
            page = result.page()
            return Contents("check", result.source, (_answer(page), *_tiles(result.plan)), page, Folded.of(result.plan))
        case Verification():
            tiles = (Tile(result.verdict.value, "answer", _TONES[result.verdict]), *_compared(result))
            return Contents("verify", source, tiles, verified=verified(result))
        case Calibration():
            what = "layers matched" if isinstance(result, Matched) else "BatchNormalizations calibrated"
            tile = Tile(str(len(result.layers)), what, "good")
            tiles = (tile, Tile(str(result.samples), "samples"), Tile(result.method.value, "method"))
            return Contents("calibrate", result.source, tiles, result.page(), measured=measured(result))
        case Drift():
            tile = Tile(result.verdict.value, "answer", _DRIFTS.get(result.verdict, "doubtful"))
            tiles = (tile, Tile(f"{result.score:.2g}", "score"), Tile(str(result.samples), "samples"))
            return Contents("drift", result.source, tiles, result.page(), drifted=drifted(result))
    raise TypeError(f"a report is made of what a verb returns, not of {type(result).__name__}")


def _optimized(result: Optimized) -> Contents:
    found, calibrated, page = result.verification, result.calibration, result.page()
    size = Tile(sizes(result.bytes_before, result.bytes_after), "size")
    compared = [Tile(found.verdict.value, "verification", _TONES[found.verdict])] if found is not None else []
    return Contents(
        "optimize",
        result.source,
        (_answer(page), *_tiles(result.plan), size, *compared),
        page,
        Folded.of(result.plan),
        verified(found) if found is not None else None,
        measured(calibrated) if calibrated is not None else None,
    )


def _answer(page: Page) -> Tile:
    return Tile(page.word, "result", page.tone.value)


def _tiles(plan: Plan) -> tuple[Tile, ...]:
    batchnorms = sum(entry.is_batchnorm for entry in plan.entries) + len(plan.spelt_out)
    nodes = f"{plan.nodes_before} → {plan.nodes_after}" if plan.changes else str(plan.nodes_after)
    folded = f"{plan.count_batchnorms(Outcome.FOLDED)} of {batchnorms}"
    return Tile(folded, "BatchNormalizations folded"), Tile(nodes, "nodes")


def _compared(result: Verification) -> tuple[Tile, ...]:
    made = [Tile(str(len(result.regions)), "regions compared")] if result.complete or result.regions else []
    if result.outputs:
        made.append(Tile(f"{max(output.max_rel for output in result.outputs):.1e}", "largest difference, of max |y|"))
    return tuple(made)
