"""Constants by which two regions differ, and whether anything that was tried tells them apart.

A threshold, a row of a table or a mask is read only where the data says so. If a side comes to the same with the other
side's constant in the place of its own, the difference was not exercised, and that the sides are equal says nothing.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from onnx import NodeProto

from bnfold.graph import Op
from bnfold.verification.float64.carried import distance
from bnfold.verification.float64.evaluate import CannotEvaluate
from bnfold.verification.float64.kernel import Array
from bnfold.verification.float64.kernels import KERNELS
from bnfold.verification.regions.hiding import hides
from bnfold.verification.regions.hints import ROUNDED, UNIFORM, stray_rows
from bnfold.verification.regions.numbering import effective_attributes
from bnfold.verification.regions.side import COMPARING, LEARNT, Given, Read, Side, is_made_of_constants

_LOOKING_UP = frozenset({"Gather", "GatherElements", "GatherND"})
_LAST_DIGITS = 1e-12  # of a number, that are noise
_SEEKING = frozenset({"NegativeLogLikelihoodLoss", "SoftmaxCrossEntropyLoss", "NonMaxSuppression", "Unique"})
_SELECTIVE = _LOOKING_UP | COMPARING | {"Clip", "Max", "Min"}


@dataclass(frozen=True, eq=False)
class Rival:
    """A constant that only one side has.

    Attributes:
        side: That side.
        read: Where it reads it.
        other: What the other side has in its place.
    """

    side: Side
    read: Read
    other: Array

    @property
    def length(self) -> int:
        """How long it is, 0 if it is a single number."""
        return len(self.other) if self.other.ndim else 0

    def matters(self, given: Given) -> bool:
        """Whether the side comes to something else with what the other has, and to more than rounding explains."""
        side = self.side
        try:
            (made, error, _), _ = side.evaluate(given, side.rounded())
            swapped = self.exchanged(given)
        except CannotEvaluate:
            return True
        if made.dtype != swapped.dtype or made.dtype == np.object_:
            return made.dtype != swapped.dtype or not np.array_equal(made, swapped)
        if error is not None:
            error = error + _LAST_DIGITS * (error + np.where(np.isfinite(made), np.abs(made), 0))
        return bool((distance(made, swapped) > (0.0 if error is None else error)).any())

    def exchanged(self, given: Given) -> Array:
        """What the side comes to then."""
        side, region = self.side, self.side.region
        known = {**side.known(given), self.read.value: self.other}
        return side.evaluator.run(region.ops, known, region.target, side.how)

    def __str__(self) -> str:
        return str(self.read)


@dataclass(frozen=True, eq=False)
class Setting(Rival):
    """An attribute that is read only where the data says so: the table of an encoder, the thresholds of a tree.

    Attributes:
        twin: The operator with the attribute of the other side.
        name: What the attribute is called.
    """

    twin: Op
    name: str

    def exchanged(self, given: Given) -> Array:
        side, region = self.side, self.side.region
        ops = [self.twin if op is self.read.op else op for op in region.ops]
        return side.evaluator.run(ops, side.known(given), region.target, side.how)

    def __str__(self) -> str:
        return f"{self.name} of {self.read.op.type}"


def _settings(left: Side, right: Side) -> Iterator[Setting]:
    """Those by which operators of the same type differ; of several, the last ones. In a body, none has an effect."""
    ours, theirs = (
        {op.type: op for op in side.region.all_ops if op.node.domain == LEARNT or op.type in _SEEKING}
        for side in (left, right)
    )
    for op_type in ours.keys() & theirs.keys():
        old, new = ours[op_type], theirs[op_type]
        wanted, given = map(effective_attributes, (old, new))
        for name in sorted(wanted.keys() | given.keys()):
            if wanted.get(name) != given.get(name):
                node = NodeProto()
                node.CopyFrom(new.node)
                del node.attribute[:]
                node.attribute.extend(attribute for attribute in new.node.attribute if attribute.name != name)
                node.attribute.extend(attribute for attribute in old.node.attribute if attribute.name == name)
                yield Setting(right, Read(new, 0, new.data(0)), np.zeros(()), new.with_node(node), name)


def rivals(left: Side, right: Side) -> list[Rival]:
    """The constants that only one side has, as far as data decides whether they count."""
    theirs = list(_reads(right))
    found: list[Rival] = list(_settings(left, right))
    for read, array in _reads(left):
        if (same := next((entry for entry in theirs if _are_same(array, entry[1])), None)) is not None:
            theirs.remove(same)
            continue
        match = next((entry for entry in theirs if _are_counterparts((read, array), entry)), None)
        if match is not None:
            theirs.remove(match)
            found.append(Rival(left, read, _exchanged(read, array, match[1].reshape(array.shape))))
        else:
            found += _unmatched(left, read, array)
    return found + [rival for read, array in theirs for rival in _unmatched(right, read, array)]


def exchanged(left: Side, right: Side) -> str:
    """Bounds, thresholds and tables of which AFTER has others in the same places: only some data tells them apart."""
    sides = ([(read, side.weight(read.value)) for read in side.alone if _is_selective(read)] for side in (left, right))
    pairs = itertools.product(*sides)
    found = {
        str(ours[0]) for ours, theirs in pairs if _are_counterparts(ours, theirs) and not _are_same(ours[1], theirs[1])
    }
    return ", ".join(sorted(found))


def _is_selective(read: Read) -> bool:
    return read.op.type in _SELECTIVE and is_made_of_constants(read.value)


def _reads(side: Side) -> Iterator[tuple[Read, Array]]:
    for read in side.alone:
        is_bias = read.op.type in ("LSTM", "GRU", "RNN") and read.index == 3
        is_told = is_bias or ((read.op.type in UNIFORM or read.op.type in KERNELS) and not _is_hidden(read.op))
        if not is_told and is_made_of_constants(read.value):
            yield read, side.weight(read.value)


def _is_hidden(op: Op) -> bool:
    """Whether what it makes may be carried on to a later iteration, of which a step is all that is left."""
    return op.scope.parent is not None and any(map(hides, op.scope.live_ops()))


def _are_same(ours: Array, theirs: Array) -> bool:
    """Whether two constants differ by no more than rounding: they were computed in another way."""
    if ours.dtype != theirs.dtype or ours.size != theirs.size:
        return False
    theirs = theirs.reshape(ours.shape)
    if ours.dtype.kind != "f":
        return bool((ours == theirs).all())
    return bool(np.allclose(ours, theirs, rtol=ROUNDED, atol=0, equal_nan=True))


def _are_counterparts(ours: tuple[Read, Array], theirs: tuple[Read, Array]) -> bool:
    (read, array), (other, other_array) = ours, theirs
    is_same_place = (read.op.type, read.index) == (other.op.type, other.index)
    return is_same_place and array.size == other_array.size and array.dtype == other_array.dtype


def _exchanged(read: Read, old: Array, new: Array) -> Array:
    """The other's constant; of a table, the rows that its other rows do not explain."""
    rows: Sequence[int] = ()
    if read.index == 0 and (read.op.type in _LOOKING_UP or read.op.type == "Slice") and old.dtype.kind in "iuf":
        rows = stray_rows(old, new)
    if not len(rows):
        return new
    mixed = old.copy()
    mixed[rows] = new[rows]
    return mixed


def _unmatched(side: Side, read: Read, array: Array) -> list[Rival]:
    """Of a constant that has no counterpart, one that is off a little."""
    if read.op.type not in _LOOKING_UP | COMPARING or array.dtype.kind not in "iuf":
        return []
    step = np.asarray(1 if array.dtype.kind in "iu" else 0.1 * np.where(array == 0, 1.0, np.abs(array)))
    return [Rival(side, read, array + step.astype(array.dtype))]
