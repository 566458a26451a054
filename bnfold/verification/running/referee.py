"""Whose rounding is it, where a run differs by more than it should? Both models in float64, on the inputs of that run.

A run in float32 is off from what its model says by the rounding of the runtime, and the two models are apart by the
rounding of the weights. So there is nothing to complain of if the models are as near to each other in float64 as
rounding their weights explains, and AFTER's run is not further from its own model than BEFORE's is from its.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from bnfold.graph import Graph
from bnfold.limits import Deadline
from bnfold.verification.float64.evaluate import CannotEvaluate
from bnfold.verification.float64.kernel import Array
from bnfold.verification.float64.whole import evaluated
from bnfold.verification.running.figures import figures
from bnfold.verification.running.outputs import GROSS, Dispute, granted

_TIMES = 4.0  # a rounding of the same weights, or of the same operators in another order, is not twice the same
_LOST = 0.25  # of max |y|: where a run is no nearer to it, float64 may be what is wrong


@dataclass(frozen=True)
class Ruling:
    """What float64 has to say of an output. All distances are relative to max |y|.

    Attributes:
        name: The output.
        apart: The two models from each other.
        explained: What rounding the changed weights of AFTER does to it.
        before: The run of BEFORE from its model.
        after: The run of AFTER from its model.
        accepted: What is accepted without any of this.
    """

    name: str
    apart: float
    explained: float
    before: float
    after: float
    accepted: float

    @property
    def may_be_rounding(self) -> bool:
        """Whether the models are the same in float64, and AFTER's run is no worse than BEFORE's."""
        are_near = self.apart <= max(min(self.accepted, GROSS), granted(self.explained, _TIMES))
        return are_near and self.after <= self.accepted + granted(self.before, _TIMES)

    @property
    def is_rounding(self) -> bool:
        """Whether the difference between the runs is rounding: both are near to what float64 makes of the models."""
        return self.may_be_rounding and max(self.before, self.after) <= _LOST

    def __str__(self) -> str:
        return (
            f"output {self.name!r} in float64: the models are {self.apart:.2g} of max |y| apart, rounding the weights "
            f"explains {self.explained:.2g}; BEFORE's run is off by {self.before:.2g}, AFTER's by {self.after:.2g}"
        )


class Referee:
    """Rules on the runs of two models.

    Args:
        before: A model, without functions.
        after: The model made from it, without functions.
        moved: Makes ``after`` with its changed weights moved by rounding.
        names: Each output of ``before`` with its name in ``after``.
        deadline: When it has to have ended.
    """

    def __init__(
        self, before: Graph, after: Graph, moved: Callable[[], Graph], names: Mapping[str, str], deadline: Deadline
    ) -> None:
        self._deadline = deadline
        self._before, self._after = before, after
        self._make_moved = moved
        self._names = names

    @cached_property
    def _moved(self) -> Graph:
        return self._make_moved()

    def rulings(self, dispute: Dispute) -> list[Ruling]:
        """One for each output in question.

        Raises:
            CannotEvaluate: A model cannot be evaluated in float64.
        """
        models = self._before, self._after, self._moved
        before, after, moved = (evaluated(graph, dispute.sample.feed, self._deadline) for graph in models)
        rulings = []
        for output in dispute.figures:
            name, renamed = output.name, self._names.get(output.name, "")
            if name not in before or renamed not in after:
                raise CannotEvaluate(f"output {name!r} is no tensor")
            rulings.append(
                Ruling(
                    name,
                    apart=_distance(before[name], after[renamed]),
                    explained=_distance(after[renamed], moved[renamed]),
                    before=_distance(before[name], dispute.before[name]),
                    after=_distance(after[renamed], dispute.after[name]),
                    accepted=output.tolerance,
                )
            )
        return rulings


def _distance(truth: Array, other: npt.ArrayLike) -> float:
    found = figures(truth, np.asarray(other).astype(truth.dtype))
    return np.inf if found.misplaced else found.max_rel
