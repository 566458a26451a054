"""What `calibrate` is asked for, checked before anything is read."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from bnfold.calibration.error import CalibrationError
from bnfold.calibration.measuring.targets import Selection
from bnfold.calibration.place import RunArguments
from bnfold.calibration.statistics.methods import MATCHING, Method

MOMENTUM = 0.9
"""Of `ema`, where nothing else is asked for."""


@dataclass(frozen=True)
class Options:
    """How statistics are found and blended; see `calibrate`."""

    method: Method
    momentum: float
    unbiased: bool
    prior: float
    reset: bool
    check: bool


class CalibrationArguments(RunArguments, total=False):
    """Keyword arguments of `calibrate` beside the reference; for the types of what it gives back."""

    in_place: bool
    method: Method | str | None
    momentum: float
    unbiased: bool
    prior: float
    reset: bool
    only: Sequence[str]
    keep: Sequence[str]
    check: bool
    cache_memory: int | None
    cache_disk: int | None


def method_of(method: Method | str | None, *, of_reference: bool) -> Method:
    """The method, by default `mean` with a reference and `sequential` without.

    Raises:
        CalibrationError: there is none of that name, or it is for the other case.
    """
    default = Method.MEAN if of_reference else Method.SEQUENTIAL
    try:
        chosen = default if method is None else Method(method)
    except ValueError:
        names = ", ".join(known.value for known in Method)
        raise CalibrationError(f"there is no method {method!r}; the methods are {names}") from None
    if of_reference != (chosen in MATCHING):
        what = "for BatchNormalizations" if of_reference else "for layers that have a twin in a --reference"
        raise CalibrationError(f"the method {chosen.value} is {what}")
    return chosen


def options_of(chosen: Method, momentum: float, *, unbiased: bool, prior: float, reset: bool, check: bool) -> Options:
    """The options, as they are; a CalibrationError if they make no sense."""
    if not 0 <= momentum < 1:
        raise CalibrationError(f"a momentum of {momentum} makes no average: it has to be in [0, 1)")
    if prior < 0 or not math.isfinite(prior):
        raise CalibrationError(f"a prior of {prior} samples makes no sense")
    if prior and reset:
        raise CalibrationError("a prior keeps some of the stored statistics, reset forgets them: give one of the two")
    if prior and chosen is Method.EMA:
        raise CalibrationError("ema starts from the stored statistics, so it has no use for a prior")
    return Options(chosen, momentum, unbiased, prior, reset, check)


def selection_of(only: Sequence[str], keep: Sequence[str]) -> Selection:
    """Which BatchNormalizations; a CalibrationError if one of the two is a text."""
    if isinstance(only, str) or isinstance(keep, str):
        raise CalibrationError("only and keep are lists of patterns: a text would be taken for its letters")
    return Selection(tuple(only), tuple(keep))


def refuse_pointless(momentum: float, *, unbiased: bool, prior: float, reset: bool, in_place: bool) -> None:
    """Raises a CalibrationError for what says nothing where a reference does."""
    given = {"momentum": momentum != MOMENTUM, "unbiased": unbiased, "prior": prior, "reset": reset}
    if wrong := [name for name, is_given in given.items() if is_given]:
        raise CalibrationError(f"{wrong[0]} is for BatchNormalizations: it says nothing where there is a reference")
    if in_place:
        raise CalibrationError("with a reference, the result is a new file: give an output")
