"""What folds for sizes that the user states, and for no others.

A model that leaves sizes open is first folded as it is, for all of them. Only then are the stated ones taken for known,
so that what folds from there on is what rests on them.
"""

from __future__ import annotations

from bnfold.folding.options import FoldOptions
from bnfold.graph import Shape
from bnfold.graph.ports import required_inputs
from bnfold.graph.sizes import sized
from bnfold.model_io import Model, ModelError


def stated_shapes(model: Model, options: FoldOptions) -> dict[str, Shape]:
    """The shapes of the inputs of which the options say more than the model does.

    Raises:
        ModelError: A shape or size belongs to nothing, or contradicts the model or another one.
    """
    if not (options.shapes or options.dims):
        return {}
    ports = required_inputs(model)
    try:
        known = sized(ports, options.shapes, options.dims)
    except ModelError as error:
        raise ModelError(f"{model.path or 'model'}: {error}") from error
    pairs = zip(ports, known, strict=True)
    return {now.name: now.shape for port, now in pairs if now.shape is not None and now.shape != port.shape}
