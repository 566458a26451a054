"""What operators said to one affine node: each that it came to on its way up and down, before anything was folded.

The plan keeps the ways that were gone, and of others where they ended. This asks once more, for a person who wants to
know the rest.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from fnmatch import fnmatchcase

from bnfold.affine import Affine
from bnfold.folding.affines import affine_of
from bnfold.folding.options import FoldOptions
from bnfold.folding.stated import stated_shapes
from bnfold.folding.walk import Blocked, Walk, Way, malformed_is_refused, refusal_of, refuse_if_shared
from bnfold.graph import Graph, Op, Value
from bnfold.limits import NEVER, Deadline
from bnfold.model_io import Model, ModelError
from bnfold.ops import RULES, OpRule
from bnfold.ops.rule import equation_of
from bnfold.page import Table
from bnfold.reasons import Refused


@dataclass(frozen=True)
class Reply:
    """What an operator said.

    Attributes:
        node: The affine node that asked.
        way: What of it went where: `up`, `down`, `scale up`, …
        operator: The name of the operator.
        op_type: Its type.
        said: What it said.
        equation: What that rests on; empty where it has no rule for it.
    """

    node: str
    way: str
    operator: str
    op_type: str
    said: str
    equation: str = ""


def asked(model: Model, pattern: str, options: FoldOptions, deadline: Deadline = NEVER) -> tuple[Reply, ...]:
    """The answers that the affine nodes of a name get.

    Args:
        model: Is not changed.
        pattern: The name of a node, or a glob of it.
        options: What may be folded.
        deadline: When to stop; what is not asked by then is left out.

    Raises:
        ModelError: No affine node is called so, or stated sizes do not fit the model.
    """
    graph = Graph(model, assume_constant=options.assume_constant)
    graph.assume(stated_shapes(model, options))
    affines = [op for op in graph.ops() if op.type in RULES and RULES[op.type].affine is not None]
    named = [op for op in affines if op.label == pattern or fnmatchcase(op.label, pattern)]
    if not named:
        raise ModelError(f"{model.path or 'model'}: no BatchNormalization or other affine node matches {pattern!r}")
    return tuple(reply for op in named if not deadline.is_over for reply in _of(op))


def _of(op: Op) -> Iterator[Reply]:
    try:
        source, affine = affine_of(op)
    except Refused as refused:
        yield Reply(op.label, "", op.label, op.type, refusal_of(refused, op).text)
        return
    yield Reply(op.label, "", op.label, op.type, "is an affine", _equation(RULES[op.type].affine, "down"))
    whole = [_Try(op, source, affine, way) for way in ("up", "down")]
    for each in whole:
        yield from each.replies()
    if any(each.ended is None for each in whole) or not (affine.has_scale and affine.has_shift):
        return
    for half, part in (("scale", affine.only_scale()), ("shift", affine.only_shift())):
        for way in ("up", "down"):
            yield from _Try(op, source, part, way, half).replies()


class _Try:
    """One way for an affine, or half of it: what it came to, and why it ended there if it did."""

    def __init__(self, op: Op, source: Value, affine: Affine, way: str, half: str = "") -> None:
        self._op, self._way, self._half = op, way, half
        self.ended: Refused | None = None
        self._walk = _Recorded(op)
        self._found = Way()
        try:
            if way == "up":
                refuse_if_shared(source, op, affine)
            with malformed_is_refused(op):
                self._found = self._walk.up(source, affine) if way == "up" else self._walk.down(op.output, affine)
        except Refused as refused:
            self.ended = refused

    def replies(self) -> Iterator[Reply]:
        """Of each operator; of the node itself, where that is where it ended."""
        rules = {op: rule for op, (_, rule, _) in self._found.answers}
        for op, refused in self._walk.met.items():
            said = "takes it in" if op in self._found.into else "lets it pass"
            rule = rules.get(op) or _rule(op, self._way, is_last=refused is not None)
            yield self._reply(op, said if refused is None else refusal_of(refused, op).text, _equation(rule, self._way))
        if self.ended is not None and not (isinstance(self.ended, Blocked) and self.ended.op in self._walk.met):
            yield self._reply(self._op, refusal_of(self.ended, self._op).text)

    def _reply(self, op: Op, said: str, equation: str = "") -> Reply:
        way = f"{self._half} {self._way}".strip()
        return Reply(self._op.label, way, op.label, op.type, said, equation)


class _Recorded(Walk):
    """A walk that remembers what it came to, and why it ended there."""

    def __init__(self, op: Op) -> None:
        super().__init__(op)
        self.met: dict[Op, Refused | None] = {}

    @contextmanager
    def _entered(self, op: Op) -> Iterator[OpRule]:
        self.met.setdefault(op, None)
        try:
            with super()._entered(op) as rule:
                yield rule
        except Blocked as blocked:
            if blocked.op is op:
                self.met[op] = blocked
            raise


def _rule(op: Op, way: str, *, is_last: bool) -> Callable[..., object] | None:
    """The rule that an operator was asked by on a way that ended: whether it takes it in where the way ended there."""
    rule = RULES.get(op.type, OpRule())
    absorbs, passes = (rule.absorb_output, rule.lift) if way == "up" else (rule.absorb_input, rule.sink)
    return (absorbs or passes) if is_last else (passes or absorbs)


def _equation(rule: Callable[..., object] | None, way: str) -> str:
    return "" if rule is None else equation_of(rule, upwards=way == "up")


def table(replies: Sequence[Reply]) -> Table:
    """A row for each answer; its equation stands below."""
    rows = tuple(
        (
            each.way,
            each.op_type,
            each.operator,
            (each.said, *([each.equation] if each.equation else [])),
        )
        for each in replies
    )
    return Table(("way", "operator", "name", "answer"), rows)
