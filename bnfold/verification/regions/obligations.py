"""What has to be tried before two sides that were equal so far are equal: the table of docs/verification.md.

A row says which regions owe it, with which values trials meet it, and what the report says where none did. What a new
finding calls for is a row, and a case in the tests that fails without it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from bnfold.verification.regions import hints, untried
from bnfold.verification.regions.border import LARGE, Frame, Kind
from bnfold.verification.regions.side import Side
from bnfold.verification.regions.untried import Seen

_FEW = 10
_MOST_TEXTS = 32
_BESIDE = 1.0, -2.0  # numbers beside what is none

Wanted = Sequence[Any]


@dataclass(frozen=True)
class Obligation:
    """Something that two sides may do differently, though they were equal in every trial so far.

    Attributes:
        name: What it is about.
        owed: Which regions owe it.
        met: How trials meet it.
        kinds: The values for that, by the border and what is wanted.
        wants: What to look for, by the two sides; nothing if they do not owe it.
        lengths: How long inputs have to be for that; with True, how many samples there have to be.
        unmet: What no trial has shown, though it differs.
        says: What the report says of that.
        is_daring: Whether operators may fail on these values and take others.
    """

    name: str
    owed: str
    met: str
    kinds: Callable[[Frame, Wanted], Iterable[Kind]] = lambda frame, wanted: ()
    wants: Callable[[Side, Side], Wanted] = lambda left, right: (True,)
    lengths: Callable[[Side, Side, Seen], Iterable[tuple[int, bool]]] = lambda left, right, seen: ()
    unmet: Callable[[Side, Side, Seen], str] = lambda left, right, seen: ""
    says: str = ""
    is_daring: bool = True


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
    singles = [(k,) for k in wanted[-_FEW:]] if () in frame.integers else []  # the number of an iteration: each in turn
    return [Kind("normal", choices=some) for some in (wanted, *singles) if frame.integers]


def _levels(frame: Frame, wanted: Wanted) -> list[Kind]:
    singles = [Kind("normal", levels=(level,)) for level in wanted] if () in frame.shapes else []
    return [Kind("normal", levels=wanted), *singles]


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


OBLIGATIONS = (
    Obligation(
        "weights",
        "all",
        "normal numbers; large ones alike in all channels; large ones of channels that differ by up to three decades,"
        " so that no weight hides behind a larger one or behind the rounding of a bias",
        _usual,
        is_daring=False,
    ),
    Obligation(
        "samples",
        "operators that may bring together what is in different samples, as in attention over the first axis",
        "normal numbers alone",
        _alone,
        wants=hints.meeting,
        is_daring=False,
    ),
    Obligation(
        "shifts",
        "all",
        "zeros, so that what is left is the shift",
        lambda frame, _: [Kind("normal", 0.0)] * (not frame.has_still),
    ),
    Obligation(
        "integers",
        "integer inputs",
        "integers in their range and beyond it; of a single one, as the number of an iteration, each in turn",
        lambda frame, _: [*_integers(frame, range(_FEW)), *_integers(frame, range(-_FEW, 3))],
    ),
    Obligation(
        "rows",
        "tables that integers choose from; integers that integers are held against",
        "the rows that stand out against the other side's table; each integer and those beside it",
        _integers,
        wants=hints.choices,
    ),
    Obligation(
        "overflow",
        "a Cast of integers to a narrower type",
        "integers that it does not hold",
        _integers,
        wants=hints.extremes,
    ),
    Obligation(
        "ties",
        "operators that compare, round or choose",
        "whole numbers and halves",
        lambda *_: [Kind("coarse")],
        wants=hints.deciding,
    ),
    Obligation(
        "bounds",
        "numbers of 100 or more that data is held against: of a Clip, a Min, a Cast to integers, what is added",
        "numbers twice as large",
        lambda _, wanted: [Kind("normal", 2 * wanted[0])],
        wants=hints.reach,
    ),
    Obligation(
        "thresholds",
        "comparisons with a number that only one side has",
        "numbers below it, at it, beyond it, and between two of them",
        _levels,
        wants=hints.levels,
    ),
    Obligation(
        "no numbers",
        "IsNaN, IsInf",
        "NaN, both infinities, each among numbers",
        lambda _, wanted: [Kind("normal", levels=(number, *_BESIDE)) for number in wanted],
        wants=hints.odd,
    ),
    Obligation(
        "labels",
        "ArgMax, ArgMin and TopK, where tables differ",
        "each row that stands out is made the winner",
        _winners,
        wants=hints.winners,
    ),
    Obligation("texts", "dictionaries", "each of their texts", _texts, wants=hints.words),
    Obligation(
        "places",
        "a Slice that ends, or a mask that is made of positions held against one, at a place of one side only",
        "inputs that are longer, and as many samples, where the model leaves that open",
        lengths=lambda left, right, _: hints.lengths(left, right),
    ),
    Obligation(
        "constants",
        "constants that only one side has, where data decides whether they are read: a threshold, a row, a mask",
        "in some trial, a side with the other's constant (of a table, the rows that the rest do not explain) comes to"
        " something else; inputs as long as a table of which no trial has read what differs",
        lengths=lambda left, right, seen: [(len(rival.other), False) for rival in seen.idle if rival.other.ndim],
        unmet=lambda left, right, seen: ", ".join(sorted(set(map(str, seen.idle)))),
        says="{} differs, and nothing that was tried tells",
    ),
    Obligation(
        "what is taken",
        "all",
        "whatever BEFORE takes, AFTER takes too",
        unmet=lambda left, right, seen: seen.refused,
        says="AFTER does not take something that BEFORE takes: {}",
    ),
    Obligation(
        "conditions",
        "an If that has to be forced into a branch",
        "both sides go by the same",
        unmet=untried.odd_conditions,
        says="what If {} goes by is not the same, and nothing that was tried takes both branches",
    ),
    Obligation(
        "branches",
        "an If",
        "sixteen draws of all values; then both sides are forced into the branches that they have not taken",
        unmet=untried.untaken,
        says="nothing that was tried takes the {}",
    ),
    Obligation(
        "attributes",
        "operators that `onnx.reference` evaluates, where all else is alike",
        "an attribute by which they differ has an effect",
        unmet=untried.without_effect,
        says="{} differ, and had no effect on what was tried",
    ),
)
