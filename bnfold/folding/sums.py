"""Sums whose branches read the same value: what stands beside a Conv, Gemm or MatMul goes into it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import permutations

from bnfold.affine import Affine
from bnfold.folding.alone import HANDS_ON, hands_on, is_read_once, made_alone, passed_unchanged
from bnfold.folding.names import refuse_shadowed
from bnfold.folding.record import Ability
from bnfold.folding.representable import refuse_unrepresentable
from bnfold.folding.walk import Asked, Way, data_readers, malformed_is_refused
from bnfold.graph import Op, Use, Value
from bnfold.ops import Assign, Detach, Edit, Edits, Moved
from bnfold.ops.borders import BORDERS
from bnfold.ops.branches import absorb_map, conv_absorbs_beside
from bnfold.ops.linear import WEIGHT
from bnfold.ops.maps import MAPS, in_a_row, map_of, of_affine
from bnfold.ops.pointwise import arithmetic_affine
from bnfold.ops.quantized import requantized
from bnfold.ops.rule import refuse_spread
from bnfold.ops.weights import Exact
from bnfold.reasons import Reason, Refused

_MAX_BRANCHES = 64
_MOST_IN_A_ROW = 32
_HOSTS = ("Conv", "Gemm", "MatMul")
_IN_A_ROW = MAPS.keys() | BORDERS | HANDS_ON


@dataclass(frozen=True)
class Branch:
    """One addend of a sum, and the uses on its way to the sum's last Add, its own first."""

    value: Value
    path: tuple[Use, ...]

    @property
    def sign(self) -> int:
        """-1 where the sum subtracts it."""
        return -1 if sum(use.op.type == "Sub" and use.index == 1 for use in self.path) % 2 else 1

    @cached_property
    def bias(self) -> Op | None:
        """The Add of a constant that makes it, and no larger than without, which is how a MatMul has one."""
        op = made_alone(self.value, self.path[0].op.scope, ("Add",))
        if op is None:
            return None
        try:
            with malformed_is_refused(op):
                arithmetic_affine(op)
        except Refused:
            return None
        return op

    @cached_property
    def host(self) -> Op | None:
        """The Conv, Gemm or MatMul that makes it, if that stands in the graph of the sum and nothing else reads it."""
        scope, bias = self.path[0].op.scope, self.bias
        if bias is None:
            return made_alone(self.value, scope, _HOSTS)
        return made_alone(bias.data(1 - _constant_of(bias)), scope, ("MatMul",))

    @property
    def conv(self) -> Op | None:
        """The same, if it is a Conv."""
        return self.host if self.host is not None and self.host.type == "Conv" else None

    @property
    def is_read_once(self) -> bool:
        """Whether the sum is all that uses it."""
        return is_read_once(self.value)


def beside(op: Op, source: Value, affine: Affine) -> Way:
    """The way of an affine node into a Conv that reads the same value and is added to it.

    The node may also read what linear operators make of that value.

    Raises:
        Refused: there is no such Conv, or none that can take it in.
    """
    branches = branches_of(op.output)
    refused = Refused(Reason.NO_CONV_BESIDE, value=source.name)
    guest = next((branch for branch in branches if branch.value is op.output), None)
    try:
        if guest is not None and guest.is_read_once:
            for host in branches:
                row = None if host.conv is None else _row_from(host.conv.data(0), source, op)
                if host.conv is not None and row is not None:
                    try:
                        return _affine_into(host, host.conv, guest, row, affine)
                    except Refused as error:
                        refused = error
        raise refused
    finally:
        del refused  # see walk._answers_alone


def _affine_into(host: Branch, conv: Op, guest: Branch, row: Sequence[Op], affine: Affine) -> Way:
    signed = _signed(affine, host, guest)
    if not row:
        edits = conv_absorbs_beside(conv, signed)
        return _merge(host, guest, edits, (Ability.TOOK_BESIDE, conv_absorbs_beside, signed))
    whole = map_of(row)
    rule, edits = absorb_map(conv, in_a_row(whole, of_affine(conv, affine, whole)), host.sign * guest.sign)
    return _merge(host, guest, edits, (Ability.TOOK_BESIDE, rule, signed))


def mergers(add: Op) -> Iterator[tuple[Op, Way]]:
    """What goes into a Conv, Gemm or MatMul of the sum that ``add`` completes: what reads the same, or what it reads.

    Yields what goes (the Add, for the value itself) and its way. Each way is good for the graph as it is: take the
    first.
    """
    branches = branches_of(add.output, root=add)
    for host, guest in permutations(branches, 2):
        if host.host is None:
            continue
        try:
            with malformed_is_refused(host.host):
                merger = _merger(host, host.host, guest)
        except Refused:
            continue
        if merger is not None:
            yield merger


def _merger(host: Branch, op: Op, guest: Branch) -> tuple[Op, Way] | None:
    identity = Affine.identity(len(op.shape(WEIGHT)))
    signed = _signed(identity, host, guest)
    if op.type == "Conv" and op.input(0) is guest.value:
        edits = conv_absorbs_beside(op, signed)
        return guest.path[0].op, _merge(host, guest, edits, (Ability.TOOK_BESIDE, conv_absorbs_beside, signed))
    linear = guest.value if guest.bias is None else guest.bias.data(1 - _constant_of(guest.bias))
    row = _row_from(op.data(0), linear, guest.path[0].op)
    if not row:
        return None
    rule, edits = absorb_map(op, map_of(row), host.sign * guest.sign)
    if guest.bias is not None:
        edits = [*edits, _sum_of_biases(host, guest.bias, host.sign * guest.sign)]
    return row[-1], _merge(host, guest, edits, (Ability.TOOK_BESIDE, rule, signed))


def _sum_of_biases(host: Branch, other: Op, sign: int) -> Edit:
    if host.bias is None:
        raise Refused(Reason.UNSUPPORTED, op_type=other.type, detail="no bias beside it")
    index = _constant_of(host.bias)
    own, added = host.bias.constant(index), other.constant(_constant_of(other))
    refuse_spread(host.bias.type, own.shape, added.shape)
    return Assign(host.bias, index, Exact(own.float64() + sign * added.float64(), own.dtype))


def _constant_of(add: Op) -> int:
    """Which operand of an Add is constant."""
    return 0 if add.graph.constant(add.data(1)) is None else 1


def _row_from(source: Value, value: Value, reader: Op) -> list[Op] | None:
    """The linear operators that make of one value another, for one reader alone; the first of them first."""
    row: list[Op] = []
    source = passed_unchanged(source)
    for _ in range(_MOST_IN_A_ROW):
        if passed_unchanged(value) is source:
            return [op for op in row if not hands_on(op)]
        op = made_alone(value, reader.scope, _IN_A_ROW)
        if op is None:
            break
        row.insert(0, op)
        value = op.data(0)
    return None


def completes_sum(op: Op) -> bool:
    """Whether an op is the last Add (or Sub) of a sum of computed values."""
    return _is_sum(op) and _next_use(op.output) is None


def branches_of(value: Value, root: Op | None = None) -> list[Branch]:
    """All addends of the largest sum that a value is part of."""
    while (use := _next_use(value)) is not None:
        root, value = use.op, use.op.output
    if root is None:
        return []
    branches: list[Branch] = []
    pending: list[tuple[Op, tuple[Use, ...]]] = [(root, ())]
    while pending and len(branches) < _MAX_BRANCHES:
        add, path = pending.pop()
        for index in (0, 1):
            operand, here = add.data(index), (Use(add, index), *path)
            if operand.producer is not None and _is_sum(operand.producer) and _next_use(operand) is not None:
                pending.append((operand.producer, here))
            else:
                branches.append(Branch(operand, here))
    return branches


def _is_sum(op: Op) -> bool:
    return (
        op.type in ("Add", "Sub")
        and op.opset >= 7
        and len(op.inputs) == 2
        and all(value is not None and op.graph.constant(value) is None for value in op.inputs)
        and op.outputs[0] is not None
    )


def _refuse_unless_alike(add: Op, addend: Value) -> None:
    """What stands for a partial sum must have its shape; a smaller addend was broadcast to it."""
    shape = add.graph.shape(addend)
    if shape is None or None in shape or shape != add.graph.shape(add.output):
        raise Refused(Reason.EXPANDS, value=addend.name)


def _signed(affine: Affine, host: Branch, guest: Branch) -> Affine:
    """The guest's affine as it counts on the host's side of the sum."""
    sign = host.sign * guest.sign
    return Affine(sign * affine.scale, sign * affine.shift)


def _next_use(value: Value) -> Use | None:
    """The one place that reads a value, if that is an Add of two computed values in the same scope."""
    readers = data_readers(value)
    if value.is_output or len(readers) != 1:
        return None
    use = readers[0]
    return use if use.op.scope is value.scope and _is_sum(use.op) else None


def _merge(host: Branch, guest: Branch, edits: Edits, answer: Asked) -> Way:
    """The guest leaves its Add; every partial sum between it or the host and the Add where they meet changes."""
    guests = [use.op for use in guest.path]
    meets = next(place for place, use in enumerate(host.path) if use.op in guests)
    meeting = host.path[meets].op
    left = guest.path[0]
    if left.op.is_kept:
        raise Refused(Reason.KEPT_BY_NAME)
    if left.op.type == "Sub" and left.index == 0:
        raise Refused(Reason.UNSUPPORTED, op_type="Sub", detail="its first operand cannot leave")
    if left.op is not meeting:
        _refuse_unless_alike(left.op, left.op.data(1 - left.index))
    assert host.host is not None
    changed = list(dict.fromkeys([host.host.output, host.value, *(use.op.output for use in host.path[:meets])]))
    changed += [op.output for op in guests[1 : guests.index(meeting)]]
    detach = Detach(left.op, stays=1 - left.index, keeps_name=left.op is meeting)
    all_edits: list[Edit] = [*requantized(edits), *map(Moved, changed), detach]
    refuse_shadowed(all_edits)
    refuse_unrepresentable(all_edits)
    return Way(all_edits, into=[host.host], answers=[(host.host, answer)])
