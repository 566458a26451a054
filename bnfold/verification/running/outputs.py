"""The outputs of two runs on the same inputs, held against each other."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from bnfold.verification.result import Figures, OutputFigures
from bnfold.verification.running.figures import figures
from bnfold.verification.running.inputs import Sample
from bnfold.verification.running.runner import Outputs

Array = npt.NDArray[Any]
Floors = Mapping[str, Mapping[str, float]]
"""The noise of each output, by the name of the sample that it was measured on."""

GROSS = 0.05  # of max |y|: more than is believed to be rounding without a good reason
_FLOORS = 10.0  # a correct fold is another rounding of the same function, a few times the noise at the most
_LEAST_EPSILONS = 16.0  # noise of an output whose variations happen to round alike
_LAST_DIGITS = 2.0  # of its range, by which an output is off that the runtime keeps within one
_NOTHING = np.empty((0, 0))  # stands for an entry of a sequence that one side does not have


@dataclass(frozen=True)
class Tolerance:
    """What the user accepts: ``atol + rtol * max |y|``; both None where the noise floor decides.

    Attributes:
        rtol: Relative to max |y|.
        atol: Absolute.
        ranges: Outputs that are kept within a range, with its size: its last digits are accepted.
    """

    rtol: float | None = None
    atol: float | None = None
    ranges: Mapping[str, float] = field(default_factory=dict)

    @property
    def is_given(self) -> bool:
        return self.rtol is not None or self.atol is not None

    def relative(self, scale: float) -> float:
        """The tolerance as a fraction of the scale of an output."""
        return (self.rtol or 0.0) + _over(self.atol or 0.0, scale)


@dataclass(frozen=True, eq=False)
class Dispute:
    """A run in which some outputs are further apart than is accepted.

    Attributes:
        sample: The inputs.
        before: The outputs of BEFORE by name.
        after: Those of AFTER, under the names of BEFORE.
        figures: What is known of the outputs in question.
    """

    sample: Sample
    before: dict[str, Array]
    after: dict[str, Array]
    figures: tuple[OutputFigures, ...]


@dataclass(frozen=True)
class Run:
    """What running both models came to.

    Attributes:
        outputs: Figures for each output, the worst of all samples.
        how: How they were run.
        problem: Why BEFORE could not be run; then nothing is known.
        failure: Why AFTER could not be run where BEFORE could.
        failed_on: The inputs that it could not be run on.
        disputes: The runs that were not accepted.
        is_final: Whether the user says what is accepted.
    """

    outputs: tuple[OutputFigures, ...] = ()
    how: str = ""
    problem: str = ""
    failure: str = ""
    failed_on: Sample | None = None
    disputes: tuple[Dispute, ...] = ()
    is_final: bool = False

    @property
    def was_run(self) -> bool:
        return not self.problem

    @property
    def passed(self) -> bool:
        return not self.failure and all(output.passed for output in self.outputs)


@dataclass(frozen=True, eq=False)
class Pair:
    """What both models made of a sample."""

    sample: Sample
    before: Outputs
    after: Outputs


def held_against(
    pairs: Sequence[Pair], names: Mapping[str, str], floors: Floors, tolerance: Tolerance, how: str
) -> Run:
    """The figures of every output, each of the sample where it is worst.

    Args:
        pairs: What was made of each sample.
        names: Each output of BEFORE with its name in AFTER.
        floors: The noise.
        tolerance: What the user accepts.
        how: How the models were run.
    """
    originals = {renamed: name for name, renamed in names.items()}
    # entries of sequences are not there in every run, nor on both sides
    every = dict.fromkeys(name for pair in pairs for name in pair.before.arrays)
    every |= dict.fromkeys(_renamed(name, originals) for pair in pairs for name in pair.after.arrays)
    outputs = [_worst(name, names, pairs, floors, tolerance) for name in every]
    disputes = tuple(_disputes(pairs, names, outputs))
    return Run(tuple(outputs), how, disputes=disputes, is_final=tolerance.is_given)


def _disputes(pairs: Sequence[Pair], names: Mapping[str, str], outputs: Sequence[OutputFigures]) -> Iterator[Dispute]:
    for pair in pairs:
        if beyond := tuple(output for output in outputs if not output.passed and output.inputs == pair.sample.name):
            ours, theirs = pair.before.arrays, pair.after.arrays
            theirs = {name: theirs.get(_renamed(name, names), _NOTHING) for name in ours}
            yield Dispute(pair.sample, ours, theirs, beyond)


def granted(noise: float, times: float) -> float:
    """What rounding may come to where it is known to come to ``noise`` of max |y| elsewhere: so many times as much.

    Where that would be much of the output, no more than twice: two roundings are not that unlike.
    """
    return max(min(times * noise, GROSS), 2 * noise)


def noise(before: Outputs, variants: Sequence[Outputs]) -> dict[str, float]:
    """By output, the largest difference that a variation made which changes nothing."""
    floors: dict[str, float] = {}
    for variant in variants:
        for name, array in before.arrays.items() if not variant.error else ():
            found = figures(array, variant.arrays.get(name, _NOTHING))
            if not found.misplaced:
                floors[name] = max(floors.get(name, 0.0), found.max_rel)
    return floors


def _worst(
    name: str,
    names: Mapping[str, str],
    pairs: Sequence[Pair],
    floors: Floors,
    tolerance: Tolerance,
) -> OutputFigures:
    judged = []
    for pair in pairs:
        left, right = pair.before.arrays.get(name, _NOTHING), pair.after.arrays.get(_renamed(name, names), _NOTHING)
        floor = floors.get(pair.sample.name, {}).get(name, 0.0)
        if left is not _NOTHING or right is not _NOTHING:
            judged.append((left, _judged(name, pair.sample, figures(left, right), left.dtype, floor, tolerance)))
    # what overflows by itself says nothing by where it does, as long as there is something else to go by
    sound = [found for left, found in judged if found.inputs != "large" or _is_finite(left)]
    return max(sound or [found for _, found in judged], key=lambda found: (not found.passed, found.max_rel))


def _renamed(name: str, names: Mapping[str, str]) -> str:
    """The name in AFTER; an entry of a sequence or map has that of its output and a key."""
    output, bracket, key = name.partition("[") if name not in names else (name, "", "")
    return names.get(output, output) + bracket + key


def _judged(
    name: str, sample: Sample, found: Figures, dtype: np.dtype[Any], floor: float, tolerance: Tolerance
) -> OutputFigures:
    absolute = 0.0
    if tolerance.is_given:
        accepted = tolerance.relative(found.scale)
    else:
        epsilon = _epsilon(dtype)
        absolute = _LAST_DIGITS * epsilon * tolerance.ranges.get(name, 0.0)
        of_noise = granted(floor, _FLOORS) if epsilon else _FLOORS * floor  # labels jump
        accepted = max(of_noise, _LEAST_EPSILONS * epsilon, _over(absolute, found.scale))
    passed = not found.misplaced and (found.max_rel <= accepted or found.max_abs <= absolute)
    return OutputFigures(name=name, floor=floor, tolerance=accepted, inputs=sample.name, passed=passed, **asdict(found))


def _over(absolute: float, scale: float) -> float:
    return absolute / scale if scale else 0.0


def _epsilon(dtype: np.dtype[Any]) -> float:
    if dtype.kind != "f":
        return 2.0**-8 if dtype.kind == "V" else 0.0
    return float(np.finfo(dtype).eps)


def _is_finite(array: Array) -> bool:
    return array.dtype.kind != "f" or bool(np.isfinite(array).all())
