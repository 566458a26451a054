"""The user's data as inputs of a model, checked before anything runs."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx

from bnfold.data import DataError, Feed, open_data
from bnfold.data.sources import usable
from bnfold.graph.ports import Port
from bnfold.verification.running.inputs import Sample

Data = str | Path | Sequence[str | Path] | Iterable[Mapping[str, npt.ArrayLike]]
"""Paths of data, or batches of it."""

_BATCH = 8  # samples, where the model leaves it open
_MOST = 256


def given(data: Data, ports: Sequence[Port]) -> list[Sample]:
    """The data in batches that the model takes.

    Args:
        data: What ``open_data`` takes, or the batches themselves.
        ports: The inputs of the model, with the sizes that the user gave.

    Raises:
        DataError: It cannot be read, or does not fit the inputs.
    """
    if not ports:
        raise DataError("data: the models take no inputs")
    entries = [data] if isinstance(data, str | Path) else list(data)
    if all(isinstance(entry, str | Path) for entry in entries):
        fixed = [port.shape[0] for port in ports if port.shape and isinstance(port.shape[0], int)]
        dataset = open_data([str(entry) for entry in entries], [port.name for port in ports])
        # of a script, which may never end, the first ones
        most = {"max_samples": _MOST} if dataset.knows_length else {"stop": _MOST}
        feeds = list(dataset.batches(fixed[0] if fixed else _BATCH, **most))
        if fixed and len(feeds) > 1 and _rows(feeds[-1]) < fixed[0]:
            feeds.pop()  # what is left over fills no batch
    else:
        feeds = list(_arrays(entries, ports))
    if not feeds:
        raise DataError("data: there is none")
    for feed in feeds:
        for port in ports:
            _check(port, feed[port.name])
    return [Sample(f"data, batch {number}", feed) for number, feed in enumerate(feeds)]


def _arrays(entries: Iterable[Any], ports: Sequence[Port]) -> Iterator[Feed]:
    for entry in entries:
        if not isinstance(entry, Mapping):
            raise DataError(f"data: expected paths, or arrays by input name, got {type(entry).__name__}")
        if missing := [port.name for port in ports if port.name not in entry]:
            raise DataError(f"data: a batch has nothing for input {missing[0]!r}")
        yield {port.name: usable(np.asarray(entry[port.name]), "data") for port in ports}


def _rows(feed: Feed) -> int:
    return next((array.shape[0] for array in feed.values() if array.ndim), 1)


def _check(port: Port, array: npt.NDArray[Any]) -> None:
    if array.dtype.kind == "U":
        elem_type = int(onnx.TensorProto.STRING)
    else:
        elem_type = int(onnx.helper.np_dtype_to_tensor_dtype(array.dtype))
    if not port.accepts(Port(port.name, "tensor", elem_type, array.shape)):
        kind = onnx.TensorProto.DataType.Name(elem_type).lower()
        raise DataError(f"data: input {port} does not take {kind}[{','.join(map(str, array.shape))}]")
