"""What a result does with the model that it holds."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import onnx

from bnfold.model_io.destination import refuse_data
from bnfold.model_io.model import Model
from bnfold.model_io.output import check_output, staged
from bnfold.model_io.write import to_proto


class Holder:
    """A result with a model in it, to be had in every form that a model is taken in."""

    @property
    def _held(self) -> Model:
        raise NotImplementedError

    def proto(self) -> onnx.ModelProto:
        """The model in memory.

        Raises:
            ModelError: It is over 2 GiB, or the file that it was read from is damaged.
        """
        return to_proto(self._held)

    def to_ir(self) -> Any:  # an onnx_ir.Model, whose types are there only if it is
        """The model as an `onnx_ir.Model`.

        Raises:
            ImportError: onnx_ir is not installed; the extra `bnfold[ir]` brings it.
            ModelError: As for `proto`.
        """
        import onnx_ir  # noqa: PLC0415 -- nothing else here needs it

        return onnx_ir.from_proto(self.proto())

    def save(self, path: str | os.PathLike[str], *, overwrite: bool = False) -> None:
        """Writes the model, whole or not at all.

        Raises:
            ModelError: It cannot be written there, or ``path`` exists and ``overwrite`` is not set.
        """
        check_output(Path(path), self._held.path, in_place=False, overwrite=overwrite)
        refuse_data(Path(path), self._held)
        with staged(self._held, Path(path)):
            pass
