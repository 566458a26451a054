"""Models to read and write."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from bnfold.model_io import load

ModelOf = Callable[..., onnx.ModelProto]


@pytest.fixture(scope="session")
def model_of() -> ModelOf:
    """A function: arrays by name -> a model that appends them all to its input."""

    def build(**arrays: np.ndarray) -> onnx.ModelProto:
        value, nodes = "x", []
        for name in arrays:
            nodes.append(helper.make_node("Concat", [value, name], [f"{name}_out"], axis=0))
            value = f"{name}_out"
        graph = helper.make_graph(
            nodes or [helper.make_node("Identity", ["x"], ["y"])],
            "graph",
            [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n"])],
            [helper.make_tensor_value_info(value if nodes else "y", TensorProto.FLOAT, ["m"])],
            [numpy_helper.from_array(array, name) for name, array in arrays.items()],
        )
        return helper.make_model(graph, ir_version=9, opset_imports=[helper.make_opsetid("", 17)])

    return build


@dataclass
class Data:
    """A payload that is held in memory, or calls something in the middle."""

    data: bytes
    midway: Callable[[], object] = lambda: None

    @property
    def nbytes(self) -> int:
        return len(self.data)

    def chunks(self) -> Iterator[bytes]:
        yield self.data[: len(self.data) // 2]
        self.midway()
        yield self.data[len(self.data) // 2 :]


@pytest.fixture(scope="session")
def data() -> type[Data]:
    """A payload: `data(bytes)`, or `data(bytes, midway)` with a function that is called half way through."""
    return Data


@dataclass
class Hole:
    """A payload that is never read."""

    nbytes: int

    def chunks(self) -> Iterator[bytes]:
        raise AssertionError("who writes the model leaves a hole here")


@pytest.fixture
def hollow(tmp_path: Path, model_of: ModelOf) -> Callable[[int], Path]:
    """A function: size in bytes -> a model file with one inline tensor of that many zeros, which takes no disk."""

    def build(nbytes: int) -> Path:
        model = load(model_of(w=np.zeros(1, np.float32)))
        tensor = model.proto.graph.initializer[0]
        tensor.dims[:] = [nbytes // 4]

        model.attach(tensor, Hole(nbytes))
        path = tmp_path / "hollow.onnx"
        with open(path, "wb") as stream:
            for piece in model.pieces():
                if isinstance(piece, Hole):
                    stream.seek(piece.nbytes, 1)
                else:
                    assert isinstance(piece, bytes)
                    stream.write(piece)
        return path

    return build


def write_external(path: Path, proto: onnx.ModelProto, **where: Mapping[str, str | int]) -> Path:
    """Saves the model with the initializers that are named in data files, as `external_data` entries say."""
    for tensor in proto.graph.initializer:
        entries = where.get(tensor.name)
        if entries is None:
            continue
        file, offset = path.parent / str(entries["location"]), int(entries.get("offset", 0))
        file.parent.mkdir(parents=True, exist_ok=True)
        file.touch()
        with open(file, "r+b") as stream:
            stream.seek(offset)
            stream.write(tensor.raw_data)
        tensor.ClearField("raw_data")
        tensor.data_location = TensorProto.EXTERNAL
        for key, value in entries.items():
            tensor.external_data.add(key=key, value=str(value))
    path.write_bytes(proto.SerializeToString())  # onnx.save would look at the data
    return path


@pytest.fixture(scope="session")
def external() -> Callable[..., Path]:
    """`write_external`."""
    return write_external
