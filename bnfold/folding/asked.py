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
from bnfold.folding.options import FoldOptions
from bnfold.folding.planning import affine_of
from bnfold.folding.walk import Blocked, Walk, Way, malformed_is_refused, refusal_of, refuse_if_shared
from bnfold.graph import Graph, Op, Value
from bnfold.limits import NEVER, Deadline
from bnfold.model_io import Model, ModelError
from bnfold.ops import RULES, OpRule
from bnfold.page import Table
from bnfold.reasons import Refused


@dataclass(frozen=True)
class Answer:
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


def asked(model: Model, pattern: str, options: FoldOptions, deadline: Deadline = NEVER) -> tuple[Answer, ...]:
    """The answers that the affine nodes of a name get.

    Args:
        model: Is not changed.
        pattern: The name of a node, or a glob of it.
        options: What may be folded.
        deadline: When to stop; what is not asked by then is left out.

    Raises:
        ModelError: No affine node is called so.
    """
    graph = Graph(model, assume_constant=options.assume_constant)
    affines = [op for op in graph.ops() if op.type in RULES and RULES[op.type].affine is not None]
    named = [op for op in affines if op.label == pattern or fnmatchcase(op.label, pattern)]
    if not named:
        raise ModelError(f"{model.path or 'model'}: no BatchNormalization or other affine node matches {pattern!r}")
    return tuple(answer for op in named if not deadline.is_over for answer in _of(op))


def _of(op: Op) -> Iterator[Answer]:
    try:
        source, affine = affine_of(op)
    except Refused as refused:
        yield Answer(op.label, "", op.label, op.type, refusal_of(refused, op).text)
        return
    yield Answer(op.label, "", op.label, op.type, "is an affine", _equation(RULES[op.type].affine))
    whole = [_Try(op, source, affine, way) for way in ("up", "down")]
    for each in whole:
        yield from each.answers()
    if any(each.ended is None for each in whole) or not (affine.has_scale and affine.has_shift):
        return
    for half, part in (("scale", affine.only_scale()), ("shift", affine.only_shift())):
        for way in ("up", "down"):
            yield from _Try(op, source, part, way, half).answers()


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

    def answers(self) -> Iterator[Answer]:
        """Of each operator; of the node itself, where that is where it ended."""
        rules = {op: rule for op, (_, rule, _) in self._found.answers}
        for op, refused in self._walk.met.items():
            said = "takes it in" if op in self._found.into else "lets it pass"
            rule = rules.get(op) or _rule(op, self._way, is_last=refused is not None)
            yield self._answer(op, said if refused is None else refusal_of(refused, op).text, _equation(rule))
        if self.ended is not None and not (isinstance(self.ended, Blocked) and self.ended.op in self._walk.met):
            yield self._answer(self._op, refusal_of(self.ended, self._op).text)

    def _answer(self, op: Op, said: str, equation: str = "") -> Answer:
        way = f"{self._half} {self._way}".strip()
        return Answer(self._op.label, way, op.label, op.type, said, equation)


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


def _equation(rule: Callable[..., object] | None) -> str:
    first = (getattr(rule, "__doc__", "") or "").strip().partition("\n")[0]
    return first if "=" in first else ""


def table(answers: Sequence[Answer]) -> Table:
    """A row for each answer; its equation stands below."""
    rows = tuple(
        (
            each.node,
            each.way,
            f"{each.op_type} {each.operator}",
            (each.said, *([each.equation] if each.equation else [])),
        )
        for each in answers
    )
    return Table(("node", "way", "operator asked", "answer"), rows)
