"""How many graphs, folds and refusals there were, and which rules they went through."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

from bnfold.folding import Outcome, Plan
from bnfold.ops import RULES, OpRule, quantized

# quantized ones only say no; the other has RMSNormalization's rules, and ONNX's reference implementation lacks it
_NOT_MADE = {*quantized.RULES, "SimplifiedLayerNormalization"}
ABILITIES = ("affine", "absorb_output", "absorb_input", "lift", "sink")


@dataclass
class Statistics:
    """Counts over many graphs."""

    graphs: int = 0
    discarded: int = 0
    changed: int = 0
    outcomes: Counter[tuple[str, str]] = field(default_factory=Counter)  # BN or affine, outcome
    refusals: Counter[str] = field(default_factory=Counter)  # of BatchNormalizations that stay
    used: Counter[tuple[str, str]] = field(default_factory=Counter)  # operator, ability: in folds that were done
    ops: Counter[str] = field(default_factory=Counter)
    opsets: Counter[int] = field(default_factory=Counter)

    def add(self, plan: Plan, answers: set[tuple[str, str, str]]) -> None:
        self.changed += plan.changes
        on_the_way = {name for entry in plan.entries for name in (*entry.into, *entry.through)}
        for entry in plan.entries:
            self.outcomes["BN" if entry.is_batchnorm else "affine", entry.outcome.value] += 1
            if entry.is_batchnorm and entry.outcome is Outcome.KEPT:
                self.refusals.update({refusal.reason.name for refusal in entry.refusals})
        self.used.update((op, ability) for label, op, ability in answers if label in on_the_way)

    def merge(self, other: Statistics) -> None:
        for name in ("graphs", "discarded", "changed"):
            setattr(self, name, getattr(self, name) + getattr(other, name))
        for name in ("outcomes", "refusals", "used", "ops", "opsets"):
            getattr(self, name).update(getattr(other, name))

    def abilities(self) -> dict[tuple[str, str], int]:
        """Every ability in the table of rules, and how often it was used."""
        return {
            (op, ability): self.used[op, ability]
            for op, rule in sorted(RULES.items())
            for ability in ABILITIES[1:]
            if getattr(rule, ability) is not None and op not in _NOT_MADE
        }

    def __str__(self) -> str:
        lines = [f"{self.graphs} graphs, {self.discarded} discarded, {self.changed} changed"]
        lines += [f"{kind:6} {outcome:8} {count}" for (kind, outcome), count in sorted(self.outcomes.items())]
        lines += ["", "BatchNormalizations that stay, by reason (each way that was tried counts):"]
        lines += [f"{count:7} {reason}" for reason, count in self.refusals.most_common()]
        lines += ["", "rules used: absorb output, absorb input, lift, sink (- has none)"]
        used = self.abilities()
        for op in sorted({op for op, _ in used}):
            counts = [used.get((op, ability), "-") for ability in ABILITIES[1:]]
            lines.append(f"{op:24}" + "".join(f"{count:>8}" for count in counts))
        return "\n".join(lines)


class Recorder:
    """Writes down which rules say yes, while it is installed."""

    def __init__(self) -> None:
        self.answers: set[tuple[str, str, str]] = set()
        self._original: dict[str, OpRule] = {}

    def __enter__(self) -> Recorder:
        self._original = dict(RULES)
        for op_type, rule in self._original.items():
            abilities = {name: function for name in ABILITIES if (function := getattr(rule, name))}
            watched: Any = {name: self._watched(op_type, name, function) for name, function in abilities.items()}
            RULES[op_type] = replace(rule, **watched)
        return self

    def __exit__(self, *_: object) -> None:
        RULES.update(self._original)

    def _watched(self, op_type: str, ability: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def watched(op: Any, *arguments: Any) -> Any:
            answer = function(op, *arguments)
            self.answers.add((op.label, op_type, ability))
            return answer

        return watched
