"""What has to be tried before two sides that were equal so far are equal.

A row says with which values trials meet it, and what the report says where none did; which regions owe it stands in the
table of docs/verification.md. What a new finding calls for is a row, and a case in the tests that fails without it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from bnfold.verification.regions import hints, sizes, untried
from bnfold.verification.regions.border import LARGE, STILL, Frame, Kind
from bnfold.verification.regions.scenes import SHORT
from bnfold.verification.regions.side import Side
from bnfold.verification.regions.untried import Seen

_FEW = 10
_MOST_TEXTS = 32
_MOST_ALONE = 8  # values at a border
_LONG = 512, 1024, 2048
_BESIDE = 1.0, -2.0  # numbers beside what is none

Wanted = Sequence[Any]
Lengths = Callable[[Side, Side], Sequence[tuple[int, bool]]]


@dataclass(frozen=True)
class Obligation:
    """Something that two sides may do differently, though they were equal in every trial so far.

    Attributes:
        name: What it is about.
        kinds: The values that meet it, by the border and what is wanted.
        wants: What to look for, by the two sides; nothing if they do not owe it.
        is_daring: Whether operators may fail on these values and take others.
        lengths: How long inputs have to be to meet it; with True, how many samples there have to be.
        unmet: What no trial has shown, though it differs.
        says: What the report says of that.
    """

    name: str
    kinds: Callable[[Frame, Wanted], Iterable[Kind]] = lambda frame, wanted: ()
    wants: Callable[[Side, Side], Wanted] = lambda left, right: (True,)
    is_daring: bool = True
    lengths: Callable[[Side, Side, Seen], Iterable[tuple[int, bool]]] = lambda left, right, seen: ()
    unmet: Callable[[Side, Side, Seen], str] = lambda left, right, seen: ""
    says: str = ""


def wanted(left: Side, right: Side) -> dict[Obligation, Wanted]:
    """What two sides owe, with what to look for."""
    return {row: found for row in OBLIGATIONS if (found := tuple(row.wants(left, right)))}


def kinds(owed: Mapping[Obligation, Wanted], frame: Frame) -> list[Kind]:
    """The values that meet it at a border."""
    made = ((row, kind) for row, found in owed.items() for kind in row.kinds(frame, found))
    return [replace(kind, aim=row.name, is_daring=row.is_daring) for row, kind in made]


def lengths(left: Side, right: Side, seen: Seen) -> list[tuple[int, bool]]:
    """How long inputs have to be to meet it, and with True how many samples there have to be."""
    return [length for row in OBLIGATIONS for length in row.lengths(left, right, seen)]


def unmet(left: Side, right: Side, seen: Seen) -> str:
    """Why nothing can be said of two sides that were equal in all trials; empty if nothing was left out."""
    found = (row.says.format(what) for row in OBLIGATIONS if (what := row.unmet(left, right, seen)))
    return next(found, "")


def _usual(frame: Frame, _: Wanted) -> list[Kind]:
    return [Kind("mixed")] if frame.rows > 1 else [Kind("normal"), Kind("large")]


def _alone(frame: Frame, wanted: Wanted) -> list[Kind]:
    # where samples meet, large ones hide what the normal one has to say, as those of a sum behind a Tanh do
    meet = wanted[0] or any(len(shape) < 3 for shape in frame.shapes)
    return [Kind("normal")] * (frame.rows > 1 and meet)


def _integers(frame: Frame, wanted: Wanted) -> list[Kind]:
    # each in turn of the number of an iteration, and where they are few: one that is no index must not hide another
    singles = [(k,) for k in wanted[-_FEW:]] if () in frame.integers or len(wanted) < _FEW else []
    return [Kind("normal", choices=some) for some in (wanted, *singles) if frame.integers]


def _in_range(frame: Frame, _: Wanted) -> list[Kind]:
    """And beyond it; a mask may hide all there is, or nothing."""
    alike = [Kind("normal", choices=(k,)) for k in (0, 1) if frame.integers]
    return [*_integers(frame, range(_FEW)), *_integers(frame, range(-_FEW, 3)), *alike]


def _ties(frame: Frame, _: Wanted) -> list[Kind]:
    """Here and there; everywhere; and of each value with nothing at all. Loops are run once then."""
    count = len(frame.shapes)
    alone = range(min(count, _MOST_ALONE) if count > 1 else 0)
    still = [Kind("normal", levels=(0.0,), only=only, choices=(1,)) for only in alone]
    return [Kind("coarse"), *still, *[Kind("normal", levels=(1.0,), choices=(1,))] * (count > 1)]


def _levels(frame: Frame, wanted: Wanted) -> Iterator[Kind]:
    """Of all values at once, and of each beside others: what is chosen by a number must not be equal to it."""
    count = len(frame.shapes)
    for only in (None, *range(min(count, _MOST_ALONE) if count > 1 else 0)):
        yield Kind("normal", levels=wanted, only=only)
        shapes = frame.shapes if only is None else frame.shapes[only : only + 1]
        if min(map(math.prod, shapes), default=0) < len(wanted):
            yield from (Kind("normal", levels=(level,), only=only) for level in wanted)


def _winners(frame: Frame, wanted: Wanted) -> Iterator[Kind]:
    for sign, places in wanted:
        for some in _in_turn(places, frame):
            yield Kind("normal", peak=sign * LARGE, places=some)


def _texts(frame: Frame, wanted: Wanted) -> list[Kind]:
    has_texts = np.dtype(np.object_) in frame.dtypes
    return [Kind("normal", words=some) for some in _in_turn(wanted[:_MOST_TEXTS], frame) if has_texts]


def _in_turn(things: Wanted, frame: Frame) -> Iterator[Wanted]:
    """As many at a time as there are samples."""
    step = max(1, frame.rows)
    return (things[k : k + step] for k in range(0, len(things), step))


def _far(name: str, asked: Lengths, needed: Lengths) -> Obligation:
    """A row that is met by inputs of some length; and, where these are needed, by nothing else."""

    def unmet(left: Side, right: Side, seen: Seen) -> str:
        far = seen.beyond.intersection(needed(left, right)) if seen.beyond else ()
        return str(min(length for length, _ in far)) if far else ""

    says = "something is held against a number that calls for inputs of {}, and these are too large to be tried"
    return Obligation(name, lengths=lambda left, right, _: asked(left, right), unmet=unmet, says=says)


OBLIGATIONS = (
    Obligation("weights", _usual, is_daring=False),
    Obligation("samples", _alone, hints.meeting, is_daring=False),
    Obligation("shifts", lambda frame, _: [Kind("normal", 0.0)] * (frame.rows < STILL)),
    Obligation("integers", _in_range),
    Obligation("rows", _integers, hints.choices),
    Obligation("overflow", _integers, hints.extremes),
    Obligation("ties", _ties, hints.deciding),
    Obligation("bounds", lambda _, wanted: [Kind("normal", 2 * wanted[0])], hints.reach),
    Obligation("epsilons", lambda _, wanted: [Kind("normal", wanted[0] / LARGE)], hints.epsilon),
    Obligation("thresholds", _levels, hints.levels),
    Obligation("no numbers", lambda _, wanted: [Kind("normal", levels=(k, *_BESIDE)) for k in wanted], hints.odd),
    Obligation("labels", _winners, hints.winners),
    Obligation("texts", _texts, hints.words),
    _far("sizes", sizes.compared_sizes, sizes.telling_sizes),
    _far("places", sizes.lengths, sizes.telling_lengths),
    Obligation(
        "iterations",
        _integers,
        sizes.turns,
        unmet=untried.unturned,
        says="the number of an iteration is held against {}, and no Loop that was tried came so far",
    ),
    Obligation(
        "elements",
        lengths=lambda left, right, seen: ((size, False) for size in _LONG if untried.unfilled(left, right, seen)),
        unmet=untried.unfilled,
        says="nothing that was tried has any elements in {}",
    ),
    Obligation(
        "constants",
        lengths=lambda left, right, seen: [
            (max(rival.length, SHORT + 1), False) for rival in seen.idle if rival.length
        ],
        unmet=lambda left, right, seen: ", ".join(sorted(set(map(str, seen.idle)))),
        says="{} differs, and nothing that was tried tells",
    ),
    Obligation(
        "what is taken",
        unmet=lambda left, right, seen: seen.refused,
        says="AFTER does not take something that BEFORE takes: {}",
    ),
    Obligation(
        "conditions",
        unmet=untried.odd_conditions,
        says="what If {} goes by is not the same, and nothing that was tried takes both branches",
    ),
    Obligation("branches", unmet=untried.untaken, says="nothing that was tried takes the {}"),
    Obligation("comparisons", unmet=untried.untied, says="nothing that was tried is just at the threshold of {}"),
    Obligation("attributes", unmet=untried.without_effect, says="{} differ, and had no effect on what was tried"),
)
