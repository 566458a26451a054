"""Where an output goes: one answer for all that write a model."""

from __future__ import annotations

import os
from pathlib import Path
from typing import BinaryIO, TypeAlias

from bnfold.model_io.error import ModelError
from bnfold.model_io.forms import ModelLike
from bnfold.model_io.model import Model
from bnfold.model_io.output import check_output

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
    return target, None


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
