"""Model-local functions, written out where they are called.

Exporters that keep one function for each module pass the weights in as arguments, so nothing is constant inside.
"""

from __future__ import annotations

from collections.abc import Sequence

import onnx.inliner

from bnfold.graph import Graph
from bnfold.model_io import Model


def with_functions_inlined(model: Model, but: Sequence[tuple[str, str]]) -> Model | None:
    """A copy of the model without functions; None where ONNX's inliner cannot do it, or would say what a name means.

    Args:
        model: The model.
        but: Domains and names of functions that stay, and are called where they were.
    """
    if any(op.shadowed for op in Graph(model).ops()):
        return None
    copy = model.copy()
    try:
        # the markers that stand for large weights are copied along with the nodes that hold them
        copy.proto = onnx.inliner.inline_selected_functions(copy.proto, list(but), exclude=True)
    except Exception:  # it has many, for each way in which a model can be invalid
        return None
    return copy
