"""A whole model in float64."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import onnx.inliner

from bnfold.graph import Graph
from bnfold.model_io import Model, load
from bnfold.verify.float64.evaluate import Array, CannotEvaluate, Evaluator
from bnfold.verify.float64.kernel import as_real


def inlined(model: Model) -> Model:
    """The model with the nodes of its functions where they are called; as it is where that is not possible."""
    if not model.proto.functions:
        return model
    copy = model.copy()
    try:
        copy.proto = onnx.inliner.inline_local_functions(copy.proto, convert_version=True)
    except Exception:  # it has many, for each way in which a model can be invalid
        return model
    return copy


def evaluated(graph: Graph, feed: Mapping[str, Array]) -> dict[str, Array]:
    """The tensors among the outputs of a model without functions.

    Args:
        graph: Its index.
        feed: Its inputs by name.

    Raises:
        CannotEvaluate: An operator is unknown, or does not fit its inputs.
    """
    real = {name: array.astype(as_real(array.dtype), copy=False) for name, array in feed.items()}
    return Evaluator(graph.model).outputs(graph, real)


class Whole:
    """A model in a file, to be run again and again."""

    def __init__(self, path: Path) -> None:
        self._graph = Graph(inlined(load(path)))
        self.names = [entry.name for entry in self._graph.model.proto.graph.output]

    def run(self, feed: Mapping[str, Array]) -> list[Array]:
        """Its outputs; see `evaluated`."""
        found = evaluated(self._graph, feed)
        if lacking := [name for name in self.names if name not in found]:
            raise CannotEvaluate(f"output {lacking[0]!r} is no tensor")
        return [found[name] for name in self.names]
