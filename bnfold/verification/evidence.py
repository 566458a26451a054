"""A difference that anybody can see again with other tools: inputs, what came of them, and a script that replays it.

Names out of a model are data: they stand in JSON and in ONNX files, never in the script or in the name of a file.
"""

from __future__ import annotations

import io
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from bnfold import escape
from bnfold.model_io import ModelError, temporary_folder

Array = npt.NDArray[Any]
_SCRIPT = Path(__file__).with_name("replay.py")
_NAMES = frozenset({"before.onnx", "after.onnx", "inputs.npz", "outputs.npz", "difference.json", "replay.py"})
_WRITTEN = "biufU"  # kinds of arrays that numpy's files know without pickling


@dataclass(frozen=True)
class Evidence:
    """Values that tell two models apart.

    Attributes:
        inputs: By name.
        outputs: Of each output its name in BEFORE, its name in AFTER, and what each of them gave, if it is known.
        facts: What else is known of the difference.
        models: The two sides of a region as models of their own; None where it takes the whole models.
    """

    inputs: Mapping[str, Array]
    outputs: Sequence[tuple[str, str, Array | None, Array | None]]
    facts: Mapping[str, Any] = field(default_factory=dict)
    models: tuple[bytes, bytes] | None = None

    def files(self) -> dict[str, bytes]:
        """What to write, by file name."""
        names = {"inputs": list(self.inputs), "outputs": [entry[:2] for entry in self.outputs]}
        given = {f"input_{number}": array for number, array in enumerate(self.inputs.values())}
        made = {
            f"{side}_{number}": array
            for number, (_, _, *arrays) in enumerate(self.outputs)
            for side, array in zip(("before", "after"), arrays, strict=True)
            if array is not None
        }
        models = zip(("before.onnx", "after.onnx"), self.models or (), strict=False)
        return {
            **dict(models),
            "inputs.npz": _npz(given),
            "outputs.npz": _npz(made),
            "difference.json": escape.as_json({"schema": 1, "names": names, **self.facts}).encode() + b"\n",
            "replay.py": _SCRIPT.read_bytes(),
        }


def is_written(arrays: Mapping[str, Array]) -> bool:
    """Whether numpy's files know the types of all arrays."""
    return all(array.dtype.kind in _WRITTEN for array in arrays.values())


def refuse_occupied(folder: Path, *, overwrite: bool) -> None:
    """Refuses a folder that cannot become that of a counterexample, before any work is done.

    Args:
        folder: Where it is to go.
        overwrite: Whether it may take the place of another counterexample; of nothing else.

    Raises:
        ModelError: It is none of ours, or not empty, or cannot be made.
    """
    target = Path(os.path.realpath(folder))
    if not target.parent.is_dir():
        raise ModelError(f"{folder}: there is no folder {target.parent}")
    if not os.access(target.parent, os.W_OK | os.X_OK):
        raise ModelError(f"{folder}: the folder {target.parent} is not writable")
    if not target.exists():
        return
    if not target.is_dir():
        raise ModelError(f"{folder}: is no folder")
    found = sorted(os.listdir(target))
    if foreign := [name for name in found if name not in _NAMES]:
        raise ModelError(f"{folder}: holds {foreign[0]!r}, which is no part of a counterexample")
    if found and not overwrite:
        raise ModelError(f"{folder}: holds a counterexample already; --force replaces it")


def write(evidence: Evidence, folder: Path, *, overwrite: bool) -> None:
    """Writes a counterexample: a folder that is there as a whole, or not at all.

    Raises:
        ModelError: It cannot be written; see also `refuse_occupied`.
    """
    target = Path(os.path.realpath(folder))
    files = evidence.files()
    try:
        with temporary_folder(target.parent) as work:
            (work / "new").mkdir()
            for name, content in files.items():
                _write_file(work / "new" / name, content)
            refuse_occupied(folder, overwrite=overwrite)
            if target.exists() and os.listdir(target):
                os.rename(target, work / "old")
            os.rename(work / "new", target)
    except OSError as error:
        raise ModelError(f"{folder}: cannot be written: {error.strerror}") from error


def _write_file(path: Path, content: bytes) -> None:
    with open(path, "xb") as stream:
        stream.write(content)
        stream.flush()
        os.fsync(stream.fileno())


def _npz(arrays: Mapping[str, Array]) -> bytes:
    stream = io.BytesIO()
    plain: Any = arrays
    np.savez(stream, **plain)
    return stream.getvalue()
