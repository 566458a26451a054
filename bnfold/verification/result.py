"""What a verification found: plain data."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, replace
from enum import Enum
from typing import Any

from bnfold import escape


class Verdict(Enum):
    """The answer. Names are public."""

    EQUIVALENT = "equivalent"
    DIFFERENT = "different"
    NOT_VERIFIED = "not verified"  # nothing could evaluate them, or exercise a difference that is known


class Outcome(Enum):
    """What the comparison of a region came to. Names are public."""

    EQUAL = "equal"
    DIFFERENT = "different"
    REDEFINED = "redefined"  # the value means something else, and what reads it makes up for that
    NOT_EVALUATED = "not evaluated"  # running both models may tell
    NOT_EXERCISED = "not exercised"  # a difference is known, and nothing that was tried reaches it


@dataclass(frozen=True)
class RegionResult:
    """A part of the graph that was changed, from values that both models share to one that they should share.

    Attributes:
        value: The value at its end, by its name in BEFORE.
        operators: The operators of the region in BEFORE, as ``type name``.
        replaced_by: The same in AFTER.
        suspect: The operator of AFTER that the difference is laid to; of any region, the one that was changed.
        outcome: What the comparison came to.
        error: The largest difference between the two sides in float64, in units of ``bound``; at most 1 if equal.
        difference: That difference, relative to the largest magnitude of the value.
        bound: What one rounding of the changed weights explains at that place, on the same scale.
        channel: Where along ``axis`` the largest difference is, None if all channels are alike.
        axis: The axis of the value that tells channels apart.
        detail: Why it was not evaluated or exercised, or what else there is to say.
        tried: What trials were for: the names of the table in docs/verification.md.
    """

    value: str
    operators: tuple[str, ...]
    replaced_by: tuple[str, ...]
    suspect: str
    outcome: Outcome
    error: float = 0.0
    difference: float = 0.0
    bound: float = 0.0
    channel: int | None = None
    axis: int | None = None
    detail: str = ""
    tried: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        plain: dict[str, Any] = _plain(asdict(self))
        return plain

    @property
    def is_open(self) -> bool:
        """Whether nothing is known of it."""
        return self.outcome in (Outcome.NOT_EVALUATED, Outcome.NOT_EXERCISED)

    def __str__(self) -> str:
        """One line, in which names are escaped."""
        return escape.line(self._told())

    def _told(self) -> str:
        if self.is_open:
            return f"{self.suspect}: {self.outcome.value}: {self.detail}"
        place = f", channel {self.channel}" if self.channel is not None else ""
        figures = f"difference {self.difference:.2g} of max |y|, rounding explains {self.bound:.2g}"
        return f"{self.suspect}: {self.outcome.value} at {self.value!r}{place}: {figures}"


@dataclass(frozen=True)
class Layer:
    """An operator of AFTER.

    Attributes:
        operator: As ``type name``.
        value: What it makes.
        is_shared: Whether BEFORE has the same operator on equal inputs, so that there is nothing to compare. If not, it
            is in the `replaced_by` of a region.
    """

    operator: str
    value: str
    is_shared: bool


@dataclass(frozen=True)
class Figures:
    """How far two arrays are apart. Relative means: to max |y|.

    Attributes:
        scale: max |y| of BEFORE.
        max_abs: Largest absolute difference.
        max_rel: The same, relative.
        max_elementwise: Largest difference relative to the element itself; near zero this is large and means little.
        rms: Root of the mean square difference, relative.
        snr_db: Signal to noise ratio in decibels.
        ulps: Largest difference in units in the last place of max |y| in the type of the output.
        cosine: Cosine of the angle between the two outputs.
        argmax_agreement: Share of samples with the same largest entry; None where the output is no list of classes.
        misplaced: Number of NaN or infinite entries that only one side has, or that differ.
        compared: Number of entries that are finite on both sides.
        index: Where the largest difference is.
    """

    scale: float
    max_abs: float
    max_rel: float
    max_elementwise: float
    rms: float
    snr_db: float
    ulps: float
    cosine: float
    argmax_agreement: float | None
    misplaced: int
    compared: int
    index: tuple[int, ...]


@dataclass(frozen=True)
class OutputFigures(Figures):
    """How far one output of AFTER is from that of BEFORE, the worst of all runs, and what is accepted.

    Attributes:
        name: The output.
        floor: The noise floor, relative: what variations that change nothing do to BEFORE.
        tolerance: The relative difference that is accepted.
        inputs: Which inputs gave the largest difference.
        passed: Whether the output is accepted.
    """

    name: str
    floor: float
    tolerance: float
    inputs: str
    passed: bool


@dataclass(frozen=True)
class Verification:
    """The answer to "do these two models compute the same?", and what it rests on.

    Attributes:
        verdict: The answer.
        outputs: Figures for each output from running both models; empty if they were not run.
        regions: Every part of the graph that differs, evaluated alone.
        complete: Whether all differing regions were evaluated, so that equal regions make equal models.
        layers: Every operator of AFTER, in graph order.
        how: How the models were run.
        reasons: Why the verdict is not EQUIVALENT, or what it does not rest on.
        seed: Of the inputs.
        counterexample: The folder that a counterexample was written to, empty if none was.
    """

    verdict: Verdict
    outputs: tuple[OutputFigures, ...] = ()
    regions: tuple[RegionResult, ...] = ()
    complete: bool = False
    layers: tuple[Layer, ...] = ()
    how: str = ""
    reasons: tuple[str, ...] = ()
    seed: int = 0
    counterexample: str = ""

    @property
    def ok(self) -> bool:
        """Whether they were compared and found equivalent, which `bnfold verify` says with exit code 0."""
        return self.passed

    def __bool__(self) -> bool:
        return self.ok

    @property
    def is_different(self) -> bool:
        """Whether something speaks against the two being the same."""
        return self.verdict is Verdict.DIFFERENT

    @property
    def passed(self) -> bool:
        """Whether they were compared and found equivalent."""
        return self.verdict is Verdict.EQUIVALENT

    @property
    def first_difference(self) -> RegionResult | None:
        """The first region, in graph order, that its inputs do not explain."""
        return next((region for region in self.regions if region.outcome is Outcome.DIFFERENT), None)

    @property
    def passing_tolerance(self) -> float | None:
        """The relative tolerance that would have passed; None if nothing was run, infinite if none would."""
        if not self.outputs:
            return None
        return max(math.inf if output.misplaced else output.max_rel for output in self.outputs)

    def __str__(self) -> str:
        """One line, in which names are escaped."""
        return escape.line(self._told())

    def _told(self) -> str:
        if self.verdict is Verdict.NOT_VERIFIED:
            return f"not verified: {'; '.join(self.reasons)}"
        if self.verdict is Verdict.DIFFERENT:
            where = self.first_difference
            return f"different: {where}" if where else f"different: {'; '.join(self.reasons)}"
        parts = []
        if self.regions or self.complete:
            equal = sum(region.outcome in (Outcome.EQUAL, Outcome.REDEFINED) for region in self.regions)
            unknown = sum(region.is_open for region in self.regions)
            rest = f" ({unknown} left to the runs)" if unknown else ""
            changed = f"{len(self.regions)} changed region{'s' * (len(self.regions) != 1)}"
            parts.append(f"{equal} of {changed} equal in float64{rest}")
        if self.outputs:
            apart = f"{max(output.max_rel for output in self.outputs):.1e} of max |y|"
            passed = all(output.passed for output in self.outputs)
            parts.append(
                f"outputs within {apart} ({self.how})" if passed else f"rounding alone sets runs {apart} apart"
            )
        return f"equivalent: {', '.join(parts)}"

    @property
    def shared(self) -> int:
        """How many operators both models have, with equal inputs."""
        return sum(layer.is_shared for layer in self.layers)

    def to_dict(self, *, layers: bool = False) -> dict[str, Any]:
        """For JSON: numbers that JSON cannot hold become strings. ``layers`` are many, and left out by default."""
        plain: dict[str, Any] = _plain(asdict(self if layers else replace(self, layers=())))
        return plain | {
            "shared": self.shared,
            "ok": self.ok,
            "passing_tolerance": _plain(self.passing_tolerance),
        }


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(entry) for entry in value]
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    return value
