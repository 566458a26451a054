"""The hand-written reader of the wire format agrees with protobuf, on good bytes and on bad ones."""

import numpy as np
import onnx
import pytest
from onnx import TensorProto, numpy_helper

from bnfold.model_io import Model, ModelError, load, to_proto, wire
from bnfold.model_io.wire import varint


def field(number: int, data: bytes) -> bytes:
    return varint(number << 3 | 2) + varint(len(data)) + data


def test_tables_are_those_of_onnx():
    """Every field that a tensor's bytes can lie in is in the tables, and no other."""
    seen: set[str] = set()

    def reaches(descriptor, passed=()) -> bool:
        return descriptor.name == "TensorProto" or any(
            reaches(field.message_type, (*passed, descriptor.name))
            for field in descriptor.fields
            if field.message_type and field.message_type.name not in (*passed, descriptor.name)
        )

    def compare(table: wire.Message, descriptor) -> None:
        if descriptor.name in seen:
            return
        seen.add(descriptor.name)
        if descriptor.name == "TensorProto":
            assert set(table) == {descriptor.fields_by_name["raw_data"].number}
            return
        inner = {field.number: field.message_type for field in descriptor.fields if field.message_type}
        assert set(table) == {number for number, message in inner.items() if reaches(message)}
        for number, message in table.items():
            compare(message, inner[number])

    compare(wire.MODEL, onnx.ModelProto.DESCRIPTOR)
    assert {"ModelProto", "TensorProto", "FunctionProto", "SparseTensorProto", "TrainingInfoProto"} <= seen


def test_a_message_that_occurs_twice_is_merged(model_of):
    """Two halves of a graph, each with a large tensor, are one graph."""
    whole = model_of(a=np.arange(2000, dtype=np.float32), b=np.ones(3000, np.float32))
    first, second = onnx.GraphProto(), onnx.GraphProto()
    first.CopyFrom(whole.graph)
    del first.initializer[1]
    second.initializer.append(whole.graph.initializer[1])
    halves = onnx.ModelProto()
    halves.CopyFrom(whole)
    halves.ClearField("graph")
    data = halves.SerializeToString()
    for part in (first, second):
        data += field(7, part.SerializeToString())
    assert to_proto(load(data)) == whole


@pytest.mark.parametrize("lengths", [(2000, 1500), (2000, 10), (10, 2000)])
def test_the_last_of_two_raw_data_counts(model_of, lengths):
    """As protobuf has it, whichever of them was long enough to be cut out."""
    proto = model_of(w=np.zeros(lengths[1], np.float32))
    tensor = proto.graph.initializer.pop()
    twice = tensor.SerializeToString() + b"".join(field(9, bytes([i]) * 4 * n) for i, n in enumerate(lengths, 1))
    data = proto.SerializeToString() + field(7, field(5, twice))
    model = load(data)
    read = model.array(model.proto.graph.initializer[0])
    assert read.tobytes() == b"\x02" * 4 * lengths[1]
    assert to_proto(model) == onnx.ModelProto.FromString(data)


def test_unknown_fields_are_kept(model_of):
    """Fields that this version of ONNX does not know come out as they went in."""
    data = (
        model_of(w=np.ones(3000, np.float32)).SerializeToString() + field(900, b"x" * 5000) + varint(901 << 3) + b"\x05"
    )
    assert b"".join(_flat(load(data))) == data


def test_every_truncation_is_refused(model_of):
    """A model that ends early is refused or, where it ends between two fields, is what protobuf takes it for."""
    data = model_of(w=np.ones(1100, np.float32), b=np.ones(2, np.float32)).SerializeToString()
    for stop in [*range(120), *range(120, len(data), 97), *range(len(data) - 120, len(data))]:
        try:
            model = load(data[:stop])
        except ModelError:
            continue
        assert to_proto(model) == onnx.ModelProto.FromString(data[:stop])


@pytest.mark.parametrize(
    "junk",
    [
        pytest.param(varint(7 << 3 | 3), id="group"),
        pytest.param(b"\xff" * 11, id="key-too-long"),
        pytest.param(b"\x3a" + b"\xff" * 11, id="length-too-long"),
        pytest.param(b"\x08" + b"\x80" * 11, id="number-too-long"),
        pytest.param(b"\x3a" + varint(1 << 40), id="length-past-the-end"),
        pytest.param(b"\x3a" + varint(1 << 63), id="length-of-63-bits"),
        pytest.param(b"\x09abc", id="short-fixed64"),
        pytest.param(b"\x0dab", id="short-fixed32"),
        pytest.param(b"\x08", id="no-number"),
        pytest.param(b"\x07", id="wire-type-7"),
        pytest.param(b"<html>404 Not Found</html>", id="html"),
    ],
)
def test_junk_is_refused(model_of, junk):
    """What is no field is refused, alone and after a model."""
    for data in (junk, model_of(w=np.ones(4, np.float32)).SerializeToString() + junk):
        with pytest.raises(ModelError, match=r"damaged|truncated"):
            load(data)


@pytest.mark.parametrize("depth", [30, 300, 20_000])
def test_depth_is_bounded(depth):
    """Subgraphs in subgraphs are refused where protobuf would refuse them, without running out of stack."""
    tensor = numpy_helper.from_array(np.zeros(2000, np.float32), "w").SerializeToString()
    data = field(5, tensor)
    for _ in range(depth):
        data = field(1, field(4, b"If") + field(5, field(6, data)))
    if depth < 33:
        assert to_proto(load(field(7, data))) == onnx.ModelProto.FromString(field(7, data))
    else:
        with pytest.raises(ModelError, match="nested"):
            load(field(7, data))


def test_a_marker_cannot_be_smuggled_in(model_of):
    """The marker of a tensor, where no tensor's bytes can be or in another model, is an error and no wrong bytes."""
    model = load(model_of(w=np.ones(2000, np.float32)))
    marker = model.proto.graph.initializer[0].raw_data
    other = load(model_of(w=np.ones(2, np.float32)))
    other.proto.graph.initializer[0].raw_data = marker
    with pytest.raises(ModelError, match="another model"):
        other.payload(other.proto.graph.initializer[0])
    model.proto.graph.node[0].attribute.add(name="s", s=marker)
    with pytest.raises(ModelError, match="where no tensor"):
        model.pieces()


def test_a_copied_tensor_shares_its_bytes(model_of):
    """A tensor that is copied inside its model has the same values, and both are written."""
    model = load(model_of(w=np.arange(2000, dtype=np.float32)))
    twin = TensorProto()
    twin.CopyFrom(model.proto.graph.initializer[0])
    twin.name = "twin"
    model.proto.graph.initializer.append(twin)
    first, second = to_proto(model).graph.initializer
    assert first.raw_data == second.raw_data == np.arange(2000, dtype=np.float32).tobytes()


def _flat(model: Model) -> list[bytes]:
    return [
        bytes(chunk) for piece in model.pieces() for chunk in ([piece] if isinstance(piece, bytes) else piece.chunks())
    ]
