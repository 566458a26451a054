"""Where an output goes: one answer for all that write a model."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO, TypeAlias

from bnfold.model_io.error import ModelError
from bnfold.model_io.forms import ModelLike
from bnfold.model_io.model import Model, load
from bnfold.model_io.output import check_output

_ARRAYS = (".npy", ".npz")
Output: TypeAlias = str | os.PathLike[str] | BinaryIO | None


def destination_of(
    model: ModelLike | Model,
    loaded: Model,
    output: Output,
    *,
    in_place: bool = False,
    suffix: str | None = None,
    overwrite: bool = False,
) -> tuple[Path | None, BinaryIO | None]:
    """The file or the stream to write to; neither if the result stays in memory.

    Args:
        model: as the user gave it.
        loaded: the same, loaded.
        output: where the user wants it; a file is replaced if it exists.
        in_place: over the model itself.
        suffix: of the file beside the model that is written if the user does not say where; None for no file.
        overwrite: such a file may be replaced if it exists.

    Raises:
        ModelError: nothing can, or shall, be written there.
    """
    source = loaded.path
    if source is not None and isinstance(model, str | os.PathLike):
        source = Path(model)
    elif model is not loaded:  # a stream, whatever it was read from
        source = None
    if in_place and (source is None or output is not None):
        raise ModelError("in place is where the model came from: it must be a file, and no output can be given")
    if in_place:
        target = source
    elif output is None:
        target = None if source is None or suffix is None else beside(source, suffix, overwrite=overwrite)
    elif isinstance(output, str | os.PathLike):
        target = Path(output)
    else:
        return None, output
    if target is not None:
        check_output(target, loaded.path, in_place=in_place, overwrite=True)
        refuse_data(target, loaded)
    return target, None


def refuse_data(out: Path, model: Model) -> None:
    """Refuses an output in the place of a data file of a model.

    Raises:
        ModelError: it is one.
    """
    if os.path.realpath(out) in model.data_files():
        raise ModelError(f"{out}: holds data of {model.path}")


def files_of(path: str) -> set[str]:
    """A file, and if it is a model with data files, those; with links followed."""
    found = {os.path.realpath(path)}
    if Path(path).is_file() and Path(path).suffix not in _ARRAYS:
        with suppress(ModelError):  # it is something else, or whoever reads it will say so
            found |= load(path).data_files()
    return found


def beside(source: Path, suffix: str, *, overwrite: bool) -> Path:
    """`NAME` and the suffix, beside `NAME.onnx`.

    Raises:
        ModelError: it exists, and may not be replaced; or the source is no file, but `.` or `/`.
    """
    if not source.name:
        raise ModelError(f"{source}: is a folder")
    target = source.with_suffix(suffix)
    if target.exists() and not overwrite:
        raise ModelError(
            f"{target}: already exists; --force (overwrite=True) replaces it, and -o OUT writes to another place"
        )
    return target
