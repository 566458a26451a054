"""The weights of a model in one file, beside the programs that are made of its nodes.

Each program would hold a copy of its weights otherwise, and none could be over 2 GiB.
"""

from __future__ import annotations

from pathlib import Path

from bnfold.calibration.running.scratch import created
from bnfold.model_io import Model
from bnfold.model_io.tensors import all_tensors, is_external, is_packed
from bnfold.model_io.write import move_outside, write_data

_LEAST = 1 << 12
_FILE = "weights.data"


def with_shared_weights(model: Model, folder: Path) -> Model:
    """A copy of the model whose large initializers are in a new file in a folder, and everything else in the model.

    Raises:
        ModelError: a tensor cannot be read.
    """
    result = model.copy()
    payloads = ((tensor, result.payload(tensor)) for tensor in result.proto.graph.initializer)
    outside = [(t, payload) for t, payload in payloads if payload and payload.nbytes >= _LEAST and not is_packed(t)]
    for tensor in all_tensors(result.proto):
        if is_external(tensor) and (payload := result.payload(tensor)):
            result.attach(tensor, payload)
    result.has_data_files = False
    with created(folder / _FILE) as stream:
        offsets, _ = write_data([payload for _, payload in outside], stream)
    for (tensor, payload), offset in zip(outside, offsets, strict=True):
        move_outside(tensor, _FILE, offset, payload.nbytes)
    return result
