"""A model that is rewritten, once rightly and once wrongly, as text."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import numpy_helper

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class Rewriting:
    """A model with a part that is written in three ways.

    Attributes:
        what: What is rewritten; names the test.
        model: The model as ONNX text. ``@`` stands for the part, and ``~`` begins names that AFTER has others for.
        before: The part as it was.
        wrong: The part so that it computes something else.
        right: The part in another way that computes the same.
        opset: Of ONNX.
        tensors: Initializers, for those of the three that mention them.
    """

    what: str
    model: str
    before: str
    wrong: str
    right: str
    opset: int = 17
    tensors: Mapping[str, Array] = field(default_factory=dict)

    def wrongly(self) -> tuple[onnx.ModelProto, onnx.ModelProto]:
        return self._written(self.before, "a_"), self._written(self.wrong, "b_")

    def rightly(self) -> tuple[onnx.ModelProto, onnx.ModelProto]:
        return self._written(self.before, "a_"), self._written(self.right, "b_")

    def __str__(self) -> str:
        return self.what

    def _written(self, part: str, prefix: str) -> onnx.ModelProto:
        return parsed(self.model.replace("@", part).replace("~", prefix), self.opset, self.tensors)


def parsed(body: str, opset: int = 17, tensors: Mapping[str, Array] | None = None) -> onnx.ModelProto:
    """A model from ONNX text, with those of the tensors that it mentions."""
    domains = f'"": {opset}, "com.microsoft": 1, "ai.onnx.ml": 3, "my": 1'
    model = onnx.parser.parse_model(f"<ir_version: 10, opset_import: [{domains}]>\n{body}")
    used = {name: array for name, array in (tensors or {}).items() if re.search(rf"\b{name}\b", body)}
    model.graph.initializer.extend(numpy_helper.from_array(np.asarray(array), name) for name, array in used.items())
    return model
