"""What is read, and what is refused."""

import contextlib
import os
import random
import socket
import threading
from collections.abc import Callable
from pathlib import Path

import ml_dtypes
import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from bnfold.model_io import ModelError, load, to_proto

LARGE = np.arange(3000, dtype=np.float32)


def branch(*, large: np.ndarray = LARGE) -> onnx.GraphProto:
    """A body that reads an outer value and has a tensor of its own."""
    out = helper.make_tensor_value_info("z", TensorProto.FLOAT, None)
    return helper.make_graph(
        [helper.make_node("Add", ["x", "bw"], ["z"])], "branch", [], [out], [numpy_helper.from_array(large, "bw")]
    )


@pytest.fixture
def everywhere() -> onnx.ModelProto:
    """A model with large tensors wherever there can be one."""
    value = numpy_helper.from_array(LARGE, "k")
    nodes = [
        helper.make_node("Constant", [], ["c"], value=value),
        helper.make_node("Constant", [], ["yes"], value=numpy_helper.from_array(np.array(True))),
        helper.make_node("If", ["yes"], ["i"], then_branch=branch(), else_branch=branch()),
        helper.make_node("Add", ["i", "w"], ["s"]),
        helper.make_node("Custom", ["s"], ["y"], domain="own"),
    ]
    body = [helper.make_node("Constant", [], ["c"], value=value), helper.make_node("Add", ["a", "c"], ["b"])]
    function = helper.make_function("own", "Custom", ["a"], ["b"], body, [helper.make_opsetid("", 17)])
    graph = helper.make_graph(
        nodes,
        "graph",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n"])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n"])],
        [numpy_helper.from_array(LARGE, "w"), helper.make_tensor("typed", TensorProto.FLOAT, [3000], LARGE)],
    )
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("own", 1)]
    return helper.make_model(graph, functions=[function], opset_imports=opsets, ir_version=9)


def test_large_tensors_stay_in_the_file(everywhere, tmp_path):
    """Whether of a graph, a Constant, a subgraph or a function; their values are there when asked for."""
    path = tmp_path / "model.onnx"
    onnx.save(everywhere, path)
    model = load(path)
    graph = model.proto.graph
    cut = [
        graph.initializer[0],
        graph.node[0].attribute[0].t,
        *(attribute.g.initializer[0] for attribute in graph.node[2].attribute),
        model.proto.functions[0].node[0].attribute[0].t,
    ]
    for tensor in cut:
        assert len(tensor.raw_data) < 100
        assert model.payload(tensor).nbytes == LARGE.nbytes
        np.testing.assert_array_equal(model.array(tensor), LARGE)
    assert model.path == path
    assert to_proto(model) == everywhere


def test_an_array_is_the_callers_own(everywhere):
    """It can be written to, and that changes no model."""
    model = load(everywhere)
    for tensor in model.proto.graph.initializer:
        model.array(tensor)[:] = 0
        np.testing.assert_array_equal(model.array(tensor), LARGE)


@pytest.mark.parametrize(
    "kind", [kind for kind in TensorProto.DataType.values() if kind not in (TensorProto.UNDEFINED, TensorProto.STRING)]
)
@pytest.mark.parametrize("count", [7, 20_001], ids=["small", "large"])
def test_every_type_is_read(model_of, kind, count):
    """An array has the dtype and the values that onnx reads from the same tensor, in either form."""
    dtype = helper.tensor_dtype_to_np_dtype(kind)
    values = (np.arange(count) % 2).astype(np.float32).astype(dtype)
    tensors = [numpy_helper.from_array(values, "raw")]
    if kind not in (TensorProto.COMPLEX64, TensorProto.COMPLEX128):
        tensors.append(helper.make_tensor("typed", kind, [count], values.astype(np.float32)))
    proto = model_of()
    proto.graph.initializer.extend(tensors)
    model = load(proto)
    for tensor, original in zip(model.proto.graph.initializer, tensors, strict=True):
        read, expected = model.array(tensor), numpy_helper.to_array(original)
        assert read.dtype == expected.dtype
        assert read.tobytes() == expected.tobytes()
        assert read.shape == (count,)


def test_bfloat16_is_of_ml_dtypes(model_of):
    """The dtype is the one that computes with it."""
    model = load(model_of(w=np.ones(4096, ml_dtypes.bfloat16)))
    assert model.array(model.proto.graph.initializer[0]).dtype == ml_dtypes.bfloat16


def test_strings_are_read(model_of):
    """Strings come as an array of objects."""
    proto = model_of()
    proto.graph.initializer.append(helper.make_tensor("s", TensorProto.STRING, [2], ["a", "ß"]))
    model = load(proto)
    assert model.array(model.proto.graph.initializer[0]).tolist() == ["a", "ß"]


def test_a_proto_is_not_changed(everywhere):
    """A model in memory is copied, by `load` and by `copy`."""
    before = everywhere.SerializeToString()
    model = load(everywhere)
    model.proto.graph.name = "changed"
    twin = model.copy()
    twin.proto.graph.initializer[0].name = "changed"
    assert everywhere.SerializeToString() == before
    assert model.proto.graph.initializer[0].name == "w"
    assert model.path is None


def test_what_is_attached_to_a_copy_does_not_show(everywhere, data):
    """Nor the other way round."""
    model = load(everywhere)
    twin = model.copy()
    twin.attach(twin.proto.graph.initializer[0], data(bytes(LARGE.nbytes)))
    assert not twin.array(twin.proto.graph.initializer[0]).any()
    np.testing.assert_array_equal(model.array(model.proto.graph.initializer[0]), LARGE)


def test_attach_replaces_any_other_data(everywhere, data):
    """The typed field is gone, and the new bytes are the values."""
    model = load(everywhere)
    typed = model.proto.graph.initializer[1]
    model.attach(typed, data((LARGE + 1).tobytes()))
    assert not typed.float_data
    np.testing.assert_array_equal(numpy_helper.to_array(to_proto(model).graph.initializer[1]), LARGE + 1)


def test_a_payload_must_keep_its_promise(everywhere, data):
    """One that gives another number of bytes than it says is an error: it would shift all that follows."""

    class Liar(data):
        nbytes = LARGE.nbytes

    model = load(everywhere)
    model.attach(model.proto.graph.initializer[0], Liar(b"short"))
    with pytest.raises(ModelError, match="was given 5"):
        to_proto(model)


def test_a_pipe_that_we_are_handed_is_read_whole(everywhere):
    """As of `<(zcat model.onnx.gz)`, which the shell calls by its descriptor; it is a model without a path."""
    source, sink = os.pipe()

    def write() -> None:
        with open(sink, "wb") as stream:
            stream.write(everywhere.SerializeToString())

    writer = threading.Thread(target=write)
    writer.start()
    model = load(f"/dev/fd/{source}")
    writer.join()
    os.close(source)
    assert model.path is None
    assert to_proto(model) == everywhere


def test_a_descriptor_that_is_not_open(tmp_path):
    """One line, as of a file that is not there."""
    with pytest.raises(ModelError, match="/dev/fd/123456: Bad file descriptor"):
        load("/dev/fd/123456")


@pytest.mark.parametrize("special", ["fifo", "socket", "/dev/zero", "/dev/tty", "handed over"])
def test_only_regular_files_are_models(tmp_path, special):
    """The rest might never answer, or never end: a repository may hold a link to /dev/zero that is called a model."""
    path, ends = tmp_path / "special", os.pipe()
    if special == "fifo":
        os.mkfifo(path)
    elif special == "socket":
        with socket.socket(socket.AF_UNIX) as bound:
            bound.bind(str(path))
    else:
        path = Path(f"/dev/fd/{ends[0]}" if special == "handed over" else special)
    link = tmp_path / "model.onnx"
    link.symlink_to(path)
    for name in (link, path) if special != "handed over" else (link,):
        with pytest.raises(ModelError, match=r"is not a regular file|No such device"):
            load(name)
    for end in ends:
        os.close(end)


def test_a_file_of_zeros_is_refused_at_its_start(tmp_path):
    """A hole of an exabyte takes no disk, and must take no time."""
    path = tmp_path / "hole.onnx"
    with path.open("wb") as stream, contextlib.suppress(OSError):  # file systems differ in what they allow
        for exponent in range(30, 60):
            os.truncate(stream.fileno(), 1 << exponent)
    with pytest.raises(ModelError, match="not an ONNX model"):
        load(path)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        pytest.param(lambda path: None, "No such file", id="missing"),
        pytest.param(lambda path: path.mkdir(), "is a folder", id="folder"),
        pytest.param(lambda path: path.touch(), "is empty", id="empty"),
        pytest.param(lambda path: path.write_text("version https://git-lfs.github.com/spec/v1\n"), "Git LFS", id="lfs"),
        pytest.param(lambda path: path.write_bytes(b"\x08\x09"), "no graph", id="no-graph"),
        pytest.param(lambda path: path.write_text("hello, world"), "not an ONNX model", id="text"),
    ],
)
def test_what_is_no_model_is_refused(tmp_path, make, message):
    """In one line that names the file."""
    path = tmp_path / "model.onnx"
    make(path)
    with pytest.raises(ModelError, match=message) as refused:
        load(path)
    assert str(path) in str(refused.value)
    assert "\n" not in str(refused.value)


def _set_dims(model: onnx.ModelProto) -> None:
    model.graph.initializer[0].dims[:] = [2999]


def _swap_nodes(model: onnx.ModelProto) -> None:
    nodes = list(model.graph.node)
    del model.graph.node[:]
    model.graph.node.extend([nodes[0], nodes[1], nodes[3], nodes[2], nodes[4]])


def _edit(statement: str) -> Callable[[onnx.ModelProto], None]:
    return lambda model: exec(statement, {"g": model.graph, "f": model.functions[0], "T": TensorProto})


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        pytest.param(_set_dims, "12000 bytes, but its type and dims .2999. ask for 11996", id="raw-dims"),
        pytest.param(_edit("g.initializer[1].float_data.pop()"), "2999 entries of float_data", id="typed-dims"),
        pytest.param(_edit("g.initializer[0].data_type = 11"), "ask for 24000", id="type"),
        pytest.param(_edit("g.initializer[0].dims[:] = [-1, -3000]"), "negative", id="negative-dims"),
        pytest.param(_edit("g.initializer[0].dims[:] = [1 << 40, 1 << 40]"), "ask for", id="huge-dims"),
        pytest.param(_edit("g.initializer[1].name = 'w'"), "two initializers 'w'", id="same-initializer"),
        pytest.param(_edit("g.input.add(name='x')"), "two graph inputs 'x'", id="same-input"),
        pytest.param(_edit("g.node[1].output[0] = 'c'"), "'c', which has a value already", id="assigned-twice"),
        pytest.param(_edit("g.node[0].output[0] = 'w'"), "'w', which has a value already", id="assigns-initializer"),
        pytest.param(_swap_nodes, "not sorted or form a cycle: 'Add' node 's' reads 'i'", id="unsorted"),
        pytest.param(_edit("g.node[3].input[1] = 'y'"), "not sorted or form a cycle", id="cycle"),
        pytest.param(_edit("g.node[3].input[1] = 's'"), "not sorted or form a cycle", id="self-cycle"),
        pytest.param(_edit("g.node[3].input[1] = 'lost'"), "reads 'lost', which nothing defines", id="undefined"),
        pytest.param(_edit("g.output[0].name = 'lost'"), "graph output 'lost'", id="undefined-output"),
        pytest.param(_edit("g.node[2].attribute[0].g.node[0].input[0] = 's'"), "'s', which nothing", id="later-outer"),
        pytest.param(_edit("g.node[2].attribute[1].g.initializer[0].dims[0] = 2"), "tensor 'bw'", id="in-subgraph"),
        pytest.param(_edit("g.node[3].input[0] = 'z'"), "'z', which nothing defines", id="out-of-scope"),
        pytest.param(_edit("f.node[1].input[0] = 'x'"), "'x', which nothing defines", id="function-reads-graph"),
        pytest.param(_edit("f.node[0].attribute[0].t.dims[0] = 2"), "tensor 'k'", id="in-function"),
        pytest.param(_edit("g.initializer[0].data_location = T.EXTERNAL"), "folder unknown", id="external-in-memory"),
    ],
)
def test_a_contradiction_is_refused(everywhere, spoil, message):
    """Each case breaks one thing of a model that loads, and the message says which."""
    load(everywhere)
    spoil(everywhere)
    with pytest.raises(ModelError, match=message) as refused:
        load(everywhere)
    assert "\n" not in str(refused.value)


def test_optional_inputs_and_outputs_may_be_left_out(model_of):
    """An empty name is no value, however often it occurs."""
    proto = model_of()
    proto.graph.node.add(op_type="A", input=["x", "", ""], output=["", "", "o"])
    proto.graph.node.add(op_type="A", input=["", "o"], output=["", "p"])
    load(proto)


def test_an_initializer_may_be_an_input(model_of):
    """That makes it a default value, which is how old models have all of theirs."""
    proto = model_of(w=np.ones(3, np.float32))
    proto.graph.input.add(name="w")
    load(proto)


def test_byte_flips_are_harmless(everywhere):
    """Ten thousand damaged models load as what protobuf reads, or are refused; nothing else happens."""
    for tensor in (everywhere.graph.initializer[0], everywhere.graph.node[0].attribute[0].t):
        tensor.CopyFrom(numpy_helper.from_array(LARGE[:1030], tensor.name))
    everywhere.graph.initializer[1].CopyFrom(helper.make_tensor("typed", TensorProto.FLOAT16, [3], [1, 2, 3]))
    for attribute in everywhere.graph.node[2].attribute:
        attribute.g.CopyFrom(branch(large=LARGE[:2]))
    everywhere.functions[0].node[0].attribute[0].t.CopyFrom(numpy_helper.from_array(LARGE[:3], "k"))
    good = everywhere.SerializeToString()
    heads = [i for i in range(len(good)) if i < 200 or i % 4130 < 400 or i > len(good) - 1000]
    generator = random.Random(0)
    refusals = []
    for _ in range(10_000):
        bad = bytearray(good)
        for _ in range(generator.choice([1, 1, 3])):
            bad[generator.choice(heads)] ^= 1 << generator.randrange(8)
        try:
            model = load(bytes(bad))
            assert to_proto(model) == onnx.ModelProto.FromString(bytes(bad))
            for tensor in model.proto.graph.initializer:
                model.array(tensor)
        except ModelError as error:
            refusals.append(str(error))
    assert 1000 < len(refusals) < 9000
    assert not any("\n" in refusal for refusal in refusals)


@given(st.binary(max_size=200))
@settings(deadline=None, derandomize=True, max_examples=500)
def test_noise_is_refused(noise):
    """Random bytes are no model, and are never anything worse."""
    with pytest.raises(ModelError):
        load(noise)
