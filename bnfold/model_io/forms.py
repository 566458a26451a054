"""The forms in which people have a model: all verbs take all of them, by this one function."""

from __future__ import annotations

import io
import os
import sys
from typing import Any, Protocol

import onnx


class IrModel(Protocol):
    """An `onnx_ir.Model`, known by its looks: this package does without onnx_ir."""

    @property
    def opset_imports(self) -> dict[str, int]:
        """The operator sets by their domains."""


class HasProto(Protocol):
    """What makes a ModelProto itself, as torch's `ONNXProgram` does."""

    @property
    def model_proto(self) -> onnx.ModelProto:
        """The model."""


class Readable(Protocol):
    """A file that was opened for reading bytes, or what behaves like one."""

    def read(self) -> bytes:
        """All that is left in it."""


ModelLike = str | os.PathLike[str] | bytes | bytearray | memoryview | onnx.ModelProto | IrModel | HasProto | Readable
"""A path; a model in memory as onnx, onnx_ir or torch have it; its bytes, or a file to read them from."""

Plain = str | os.PathLike[str] | bytes | onnx.ModelProto


def plain(model: ModelLike) -> Plain:
    """A path, a ModelProto or bytes, whatever the model came as.

    Raises:
        TypeError: it is no model.
    """
    if isinstance(model, str | os.PathLike | bytes | onnx.ModelProto):
        return model
    if isinstance(model, bytearray | memoryview):
        return bytes(model)
    onnx_ir = sys.modules.get("onnx_ir")  # who has a model of it has imported it
    if onnx_ir is not None and isinstance(model, onnx_ir.Model):
        return _serialized(onnx_ir, model)
    if isinstance(proto := getattr(model, "model_proto", None), onnx.ModelProto):
        return proto
    if isinstance(model, io.TextIOBase):
        raise TypeError("the file was opened as text; open it with mode 'rb'")
    if callable(read := getattr(model, "read", None)) and isinstance(content := read(), bytes):
        return content
    raise TypeError(
        "expected a path, bytes, a file object, an onnx.ModelProto, an onnx_ir.Model or torch's ONNXProgram, "
        f"got {type(model).__name__}"
    )


def _serialized(onnx_ir: Any, model: Any) -> onnx.ModelProto:
    """The model with its data files' content inside: only onnx_ir knows which folder they are in."""
    tensors = (value.const_value for graph in model.graphs() for value in graph.initializers.values())
    if any(isinstance(tensor, onnx_ir.ExternalTensor) for tensor in tensors):
        model = onnx_ir.external_data.load_to_model(model.clone())  # a copy, as that works in place
    proto: onnx.ModelProto = onnx_ir.to_proto(model)
    return proto
