"""A small model that folds, and the command line in process."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from click.testing import CliRunner, Result
from onnx import numpy_helper

from bnfold.commands import program

CHANNELS = 3

Run = Callable[..., Result]


def conv_bn() -> onnx.ModelProto:
    """A model relu(bn(conv(x))), whose BatchNormalization folds."""
    model = onnx.parser.parse_model(f"""
        <ir_version: 8, opset_import: ["": 17]>
        net (float[1, 2, 6, 6] x) => (float[1, {CHANNELS}, 6, 6] y) {{
            c = Conv <pads = [1, 1, 1, 1]> (x, w)
            b = BatchNormalization (c, scale, bias, mean, var)
            y = Relu (b)
        }}
    """)
    random = np.random.default_rng(0)
    shapes = {"w": (CHANNELS, 2, 3, 3), **dict.fromkeys(("scale", "bias", "mean", "var"), (CHANNELS,))}
    for name, shape in shapes.items():
        values = random.uniform(0.5, 2, shape).astype(np.float32)
        model.graph.initializer.append(numpy_helper.from_array(values, name))
    for node in model.graph.node:
        node.name = f"the_{node.op_type}"
    return model


@pytest.fixture
def model(tmp_path: Path) -> Path:
    path = tmp_path / "net.onnx"
    onnx.save(conv_bn(), path)
    return path


@pytest.fixture
def run() -> Run:
    """Runs `bnfold ARGS…`."""

    def invoke(*args: str | Path, stdin: bytes | None = None) -> Result:
        return CliRunner().invoke(program, [str(arg) for arg in args], input=stdin, prog_name="bnfold")

    return invoke


@pytest.fixture
def batchnorms() -> Callable[[Path | bytes], int]:
    """How many BatchNormalizations a model has."""

    def count(model: Path | bytes) -> int:
        proto = onnx.load_from_string(model) if isinstance(model, bytes) else onnx.load(model)
        return sum(node.op_type == "BatchNormalization" for node in proto.graph.node)

    return count
