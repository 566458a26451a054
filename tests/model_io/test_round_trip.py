"""A model that was not edited comes out as the same bytes, and its tensors never come into memory."""

import io
import os
import tracemalloc
from pathlib import Path

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import helper, numpy_helper

from bnfold.model_io import ModelError, load, staged, to_proto, write_stream

SHIPPED = sorted((Path(onnx.__file__).parent / "backend" / "test" / "data").rglob("*.onnx"))


def written(model) -> bytes:
    stream = io.BytesIO()
    write_stream(model, stream)
    return stream.getvalue()


@pytest.mark.skipif(not SHIPPED, reason="this onnx ships no models")
def test_models_that_ship_with_onnx(tmp_path):
    """Every one of them is written as it was read, by each way of writing."""
    for number, path in enumerate(SHIPPED):
        model = load(path)
        assert written(model) == path.read_bytes(), path
        if number % 10 == 0:
            with staged(model, tmp_path / "out.onnx") as out:
                assert out.read_bytes() == path.read_bytes(), path
    assert len(SHIPPED) > 100


lengths = st.sampled_from([0, 1, 30, 1020, 1024, 1025, 5000])


@st.composite
def tensors(draw) -> onnx.TensorProto:
    """A tensor that is or is not long enough to be cut out, raw or not."""
    values = np.full(draw(lengths), draw(st.integers(-1, 1)), np.float32)
    if draw(st.booleans()):
        return numpy_helper.from_array(values, "t")
    return helper.make_tensor("t", onnx.TensorProto.FLOAT, values.shape, values)


@st.composite
def graphs(draw, depth: int = 2) -> onnx.GraphProto:
    """A graph whose attributes hold tensors, lists of tensors, sparse tensors and graphs."""
    graph = onnx.GraphProto(name=draw(st.text(max_size=5)))
    for number, tensor in enumerate(draw(st.lists(tensors(), max_size=2))):
        tensor.name = f"w{number}"
        graph.initializer.append(tensor)
    for number in range(draw(st.integers(0, 2))):
        attribute = graph.node.add(op_type="Loop", output=[f"v{number}"]).attribute.add(name="a", doc_string="x" * 3000)
        kind = draw(st.sampled_from(["t", "tensors", "sparse_tensor", "g", "graphs"]))
        if kind == "t":
            attribute.t.CopyFrom(draw(tensors()))
        elif kind == "tensors":
            attribute.tensors.extend(draw(st.lists(tensors(), max_size=2)))
        elif kind == "sparse_tensor":
            attribute.sparse_tensor.values.CopyFrom(draw(tensors()))
            attribute.sparse_tensor.indices.CopyFrom(draw(tensors()))
        elif depth:
            inner = [draw(graphs(depth - 1))]
            attribute.graphs.extend(inner) if kind == "graphs" else attribute.g.CopyFrom(inner[0])
    return graph


@given(graph=graphs(), training=graphs(depth=0), default=tensors())
@settings(deadline=None, derandomize=True, max_examples=150)
def test_tensors_anywhere(graph, training, default):
    """Wherever tensors are and however deep, the bytes are those of protobuf."""
    proto = onnx.ModelProto(ir_version=9, graph=graph)
    proto.training_info.add(algorithm=training)
    function = proto.functions.add(name="f")
    function.attribute_proto.add(name="d", t=default)
    data = proto.SerializeToString()
    assert written(load(data)) == data
    assert to_proto(load(data)) == proto


@given(st.lists(st.tuples(lengths, lengths), min_size=1, max_size=5), st.data())
@settings(deadline=None, derandomize=True, max_examples=60)
def test_some_tensors_replaced(model_of, data, sizes, choices):
    """The result of attaching bytes is the same as of setting `raw_data` in a proto that holds everything."""
    names = [f"w{number}" for number in range(len(sizes))]
    proto = model_of(**{name: np.zeros(old, np.float32) for name, (old, _) in zip(names, sizes, strict=True)})
    model = load(proto)
    for number, (_, new) in enumerate(sizes):
        if choices.draw(st.booleans()):
            raw = bytes([number + 1]) * 4 * new
            for tensor in (model.proto.graph.initializer[number], proto.graph.initializer[number]):
                tensor.dims[:] = [new]
            model.attach(model.proto.graph.initializer[number], data(raw))
            proto.graph.initializer[number].raw_data = raw
    assert to_proto(model) == proto
    assert written(model) == proto.SerializeToString()


def test_hollow_files_are_models(hollow):
    """What the tests below take for a large model is one, in small."""
    path = hollow(8000)
    assert numpy_helper.to_array(onnx.load(path).graph.initializer[0]).shape == (2000,)
    assert written(load(path)) == path.read_bytes()


def test_memory_is_bounded(hollow, tmp_path):
    """Reading and writing an untouched model takes far less memory than its tensors, file to file and as a stream."""
    path = hollow(64 << 20)
    tracemalloc.start()
    model = load(path)
    with staged(model, tmp_path / "out.onnx"):
        pass
    with open(tmp_path / "stream.onnx", "wb") as stream:
        write_stream(model, stream)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 4 << 20
    assert (tmp_path / "out.onnx").stat().st_size == (tmp_path / "stream.onnx").stat().st_size == path.stat().st_size


def test_beyond_two_gibibytes(hollow):
    """Such a file is read, and refused only as a proto in memory."""
    model = load(hollow(2200 << 20))
    assert model.payload(model.proto.graph.initializer[0]).nbytes == 2200 << 20
    with pytest.raises(ModelError, match="2 GiB"):
        to_proto(model)


def test_beyond_two_gibibytes_is_written(hollow, tmp_path, data):
    """An inline model of more than protobuf can hold is written as it was, and can be edited."""
    path = hollow(2200 << 20)
    with staged(load(path), tmp_path / "same.onnx") as out, open(out, "rb") as new, open(path, "rb") as old:
        while chunk := old.read(1 << 24):
            assert new.read(len(chunk)) == chunk
        assert not new.read()
    (tmp_path / "same.onnx").unlink()
    model = load(path)
    tensor = model.proto.graph.initializer.add(name="more", data_type=onnx.TensorProto.UINT8, dims=[5000])
    model.attach(tensor, data(b"m" * 5000))
    with staged(model, tmp_path / "more.onnx"):
        pass
    again = load(tmp_path / "more.onnx")
    assert [again.payload(tensor).nbytes for tensor in again.proto.graph.initializer] == [2200 << 20, 5000]
    assert bytes(again.array(again.proto.graph.initializer[1])) == b"m" * 5000


def test_a_file_cut_short_after_loading(hollow):
    """Is an error when its bytes are asked for; it does not kill the process."""
    path = hollow(1 << 20)
    model = load(path)
    os.truncate(path, 1000)
    with pytest.raises(ModelError, match="cut short"):
        model.array(model.proto.graph.initializer[0])
