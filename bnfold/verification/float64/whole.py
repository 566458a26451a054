"""A whole model in float64."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from bnfold.graph import Graph, inlined
from bnfold.limits import NEVER, Deadline
from bnfold.model_io import load
from bnfold.verification.float64.evaluate import CannotEvaluate, Evaluator
from bnfold.verification.float64.kernel import Array, as_real


def evaluated(graph: Graph, feed: Mapping[str, Array], deadline: Deadline = NEVER) -> dict[str, Array]:
    """The tensors among the outputs of a model without functions.

    Args:
        graph: Its index.
        feed: Its inputs by name.
        deadline: When it has to have ended.

    Raises:
        CannotEvaluate: An operator is unknown, or does not fit its inputs.
    """
    real = {name: array.astype(as_real(array.dtype), copy=False) for name, array in feed.items()}
    return Evaluator(graph.model, deadline).outputs(graph, real)


class Whole:
    """A model in a file, to be run again and again."""

    def __init__(self, path: Path) -> None:
        self._graph = Graph(inlined(load(path), convert_version=True))
        self.names = [entry.name for entry in self._graph.model.proto.graph.output]

    def run(self, feed: Mapping[str, Array]) -> list[Array]:
        """Its outputs; see `evaluated`."""
        found = evaluated(self._graph, feed)
        if lacking := [name for name in self.names if name not in found]:
            raise CannotEvaluate(f"output {lacking[0]!r} is no tensor")
        return [found[name] for name in self.names]
