"""Data files: where they may lie, what is refused, and what becomes of them in an output."""

import os
import re
import resource
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import numpy_helper

from bnfold.model_io import ModelError, load, staged, to_proto

A = np.arange(2000, dtype=np.float32)
B = np.arange(5000, dtype=np.float32) * 2
SMALL = np.arange(3, dtype=np.float32)


@pytest.fixture
def pair(tmp_path, model_of, external):
    """A model with tensors in two data files, at offsets, in a folder of its own."""
    (tmp_path / "in").mkdir()
    return external(
        tmp_path / "in" / "model.onnx",
        model_of(a=A, b=B, s=SMALL, inline=A),
        a={"location": "one.bin", "offset": 4096, "length": A.nbytes, "checksum": "c0ffee"},
        b={"location": "sub/two.bin", "length": B.nbytes, "checksum": "decade"},
        s={"location": "one.bin"},
    )


def values(path: Path) -> dict[str, np.ndarray]:
    model = load(path)
    return {tensor.name: model.array(tensor) for tensor in model.proto.graph.initializer}


def assert_original(arrays: dict[str, np.ndarray]) -> None:
    for name, expected in {"a": A, "b": B, "s": SMALL, "inline": A}.items():
        np.testing.assert_array_equal(arrays[name], expected)


def test_values_are_read_from_their_files(pair):
    """Several files, offsets, and a length that is left out."""
    assert_original(values(pair))


def test_a_proto_in_memory_holds_everything(pair):
    """`to_proto` brings the data in, so that the model needs no files."""
    proto = to_proto(load(pair))
    assert not any(tensor.external_data for tensor in proto.graph.initializer)
    assert_original({tensor.name: numpy_helper.to_array(tensor) for tensor in proto.graph.initializer})


def test_the_output_has_one_data_file(pair, tmp_path, data):
    """Named by its content; what was not changed keeps all else that was said of it, what was does not."""
    model = load(pair)
    b = model.proto.graph.initializer[1]
    model.attach(b, data((B + 1).tobytes()))
    out = tmp_path / "out" / "model.onnx"
    out.parent.mkdir()
    with staged(model, out):
        pass
    (file,) = set(os.listdir(out.parent)) - {"model.onnx"}
    assert re.fullmatch(r"model-[0-9a-f]{16}\.data", file)
    entries = [
        {entry.key: entry.value for entry in tensor.external_data}
        for tensor in onnx.load(out, load_external_data=False).graph.initializer
    ]
    assert {entry["location"] for entry in entries[:3]} == {file}
    assert all(int(entry["offset"]) % 8 == 0 for entry in entries[:3])
    assert entries[0]["checksum"] == "c0ffee"
    assert "checksum" not in entries[1]
    assert not entries[3]
    assert np.array_equal(values(out)["b"], B + 1)
    assert np.array_equal(values(out)["a"], A)
    session = onnxruntime.InferenceSession(out, providers=["CPUExecutionProvider"])
    assert session.get_outputs()[0].name == "inline_out"


def test_large_tensors_start_at_a_page(external, model_of, tmp_path):
    """And small ones do not: a data file with many of them would be mostly empty."""
    arrays = {f"s{number}": np.full(4, number, np.float32) for number in range(50)}
    arrays |= {f"l{number}": np.full(1 << 14, number, np.float32) for number in range(3)} | {"s": SMALL}
    path = external(tmp_path / "in.onnx", model_of(**arrays), **{name: {"location": f"{name}.bin"} for name in arrays})
    with staged(load(path), tmp_path / "out.onnx"):
        pass
    tensors = onnx.load(tmp_path / "out.onnx", load_external_data=False).graph.initializer
    offsets = {
        tensor.name: int(entry.value) for tensor in tensors for entry in tensor.external_data if entry.key == "offset"
    }
    assert all(offset % (4096 if name.startswith("l") else 8) == 0 for name, offset in offsets.items())
    (file,) = tmp_path.glob("*.data")
    assert file.stat().st_size < sum(array.nbytes for array in arrays.values()) + 2 * 4096
    for name, array in values(tmp_path / "out.onnx").items():
        np.testing.assert_array_equal(array, arrays[name])


def test_unknown_entries_are_kept(pair, tmp_path):
    """What others say of an unchanged tensor's data stays; of two entries of one key, the last counts."""
    point(pair, own="value")
    proto = onnx.ModelProto.FromString(pair.read_bytes())
    proto.graph.initializer[1].external_data.insert(0, onnx.StringStringEntryProto(key="location", value="lost"))
    pair.write_bytes(proto.SerializeToString())
    with staged(load(pair), tmp_path / "out.onnx"):
        pass
    entries = load(tmp_path / "out.onnx").proto.graph.initializer[0].external_data
    assert {entry.key: entry.value for entry in entries}["own"] == "value"
    assert_original(values(tmp_path / "out.onnx"))


def test_a_changed_small_tensor_comes_inside(pair, tmp_path, data):
    """New tensors go to the data file from 1 KiB on."""
    model = load(pair)
    model.attach(model.proto.graph.initializer[2], data(SMALL.tobytes()))
    with staged(model, tmp_path / "out.onnx"):
        pass
    assert not onnx.load(tmp_path / "out.onnx", load_external_data=False).graph.initializer[2].external_data
    assert_original(values(tmp_path / "out.onnx"))


def test_same_input_same_bytes(pair, tmp_path):
    """There is no time, no number of a process and no chance in an output."""
    outputs = []
    for name in ("first", "second"):
        (tmp_path / name).mkdir()
        with staged(load(pair), tmp_path / name / "model.onnx"):
            pass
        outputs.append({path.name: path.read_bytes() for path in (tmp_path / name).iterdir()})
    assert outputs[0] == outputs[1]


def test_unchanged_beside_the_input_keeps_its_data(pair):
    """The same bytes, and no data file is written."""
    before = set(pair.parent.rglob("*"))
    out = pair.with_name("copy.onnx")
    with staged(load(pair), out, unchanged=True):
        pass
    assert out.read_bytes() == pair.read_bytes()
    assert set(pair.parent.rglob("*")) == before | {out}


def test_unchanged_elsewhere_takes_its_data_along(pair, tmp_path):
    """The model is whole in the new folder."""
    out = tmp_path / "out" / "model.onnx"
    out.parent.mkdir()
    with staged(load(pair), out, unchanged=True):
        pass
    for path in (pair.parent / "sub" / "two.bin", pair.parent / "one.bin"):
        path.unlink()
    assert_original(values(out))


def test_tensors_that_share_bytes_go_on_sharing(tmp_path, model_of, external):
    """Tied weights are written once."""
    where = {"location": "w.bin", "length": A.nbytes}
    path = external(tmp_path / "model.onnx", model_of(a=A, b=A), a=where, b=where)
    with staged(load(path), tmp_path / "out.onnx"):
        pass
    (file,) = tmp_path.glob("out-*.data")
    assert file.stat().st_size == A.nbytes


def test_many_data_files_need_few_descriptors(tmp_path, model_of, external):
    """One data file per tensor, as older exporters write them, and more than a process may open."""
    names = [f"w{number}" for number in range(200)]
    arrays = {name: np.full(300, number, np.float32) for number, name in enumerate(names)}
    path = external(tmp_path / "model.onnx", model_of(**arrays), **{name: {"location": name} for name in names})
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(120, limits[1]), limits[1]))
    try:
        with staged(load(path), tmp_path / "out.onnx"):
            pass
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
    for name, array in values(tmp_path / "out.onnx").items():
        np.testing.assert_array_equal(array, arrays[name])


def test_our_earlier_data_file_is_removed(pair, data):
    """In place, twice: only the newest data file of ours is left, and the user's own stay."""
    users = {path for path in pair.parent.rglob("*") if path.is_file()}
    for shift in (1, 2):
        model = load(pair)
        model.attach(model.proto.graph.initializer[1], data((B + shift).tobytes()))
        with staged(model, pair):
            pass
        assert np.array_equal(values(pair)["b"], B + shift)
    files = {path for path in pair.parent.rglob("*") if path.is_file()}
    assert users < files
    assert len(files - users) == 1


def test_data_that_another_model_uses_is_kept(pair, data):
    """A copy of the old output still loads after the output was replaced."""
    for shift in (1, 2):
        model = load(pair)
        model.attach(model.proto.graph.initializer[1], data((B + shift).tobytes()))
        with staged(model, pair):
            pass
        if shift == 1:
            pair.with_name("other.onnx").write_bytes(pair.read_bytes())
    assert np.array_equal(values(pair.with_name("other.onnx"))["b"], B + 1)
    assert np.array_equal(values(pair)["b"], B + 2)


def test_in_place_unchanged_keeps_our_data(pair):
    """The data file that the new model still names is not an earlier one."""
    with staged(load(pair), pair):
        pass
    for unchanged in (True, False):
        with staged(load(pair), pair, unchanged=unchanged):
            pass
        assert_original(values(pair))


def test_a_link_into_another_folder_is_refused(pair, tmp_path):
    """The data would stand beside the link's target, where a reader of the link would not look."""
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "link.onnx").symlink_to(tmp_path / "elsewhere" / "out.onnx")
    with pytest.raises(ModelError, match="link"), staged(load(pair), tmp_path / "link.onnx"):
        pass


def point(path: Path, **entries: object) -> None:
    """Makes the first tensor of the model say something else of its data."""
    proto = onnx.load(path, load_external_data=False)
    tensor = proto.graph.initializer[0]
    said = {entry.key: entry.value for entry in tensor.external_data} | entries
    del tensor.external_data[:]
    for key, value in said.items():
        if value is not None:
            tensor.external_data.add(key=key, value=str(value))
    path.write_bytes(proto.SerializeToString())


@pytest.mark.parametrize(
    ("location", "message"),
    [
        ("../secret", "inside the model's folder"),
        ("sub/../../secret", "inside the model's folder"),
        ("{root}/secret", "inside the model's folder"),
        ("{root}/in/one.bin", "inside the model's folder"),
        ("link", "inside the model's folder"),
        ("folder-link/secret", "inside the model's folder"),
        ("", "inside the model's folder"),
        ("a\0b", "inside the model's folder"),
        ("missing", "No such file"),
        ("pipe", "not a regular file"),
        ("sub", "is a folder"),
        ("one.bin/x", "Not a directory"),
        ("loop", "symbolic links|inside"),
        ("/dev/zero", "inside the model's folder"),
    ],
)
def test_a_path_that_escapes_is_refused(pair, tmp_path, location, message):
    """By name or by links, and so is what is no file; nothing hangs."""
    (tmp_path / "secret").write_bytes(bytes(100_000))
    (pair.parent / "link").symlink_to(tmp_path / "secret")
    (pair.parent / "folder-link").symlink_to(tmp_path)
    (pair.parent / "loop").symlink_to("loop")
    os.mkfifo(pair.parent / "pipe")
    point(pair, location=location.format(root=tmp_path), offset=0)
    with pytest.raises(ModelError, match=message) as refused:
        load(pair)
    assert "tensor 'a'" in str(refused.value)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        ({"offset": -1}, "not a number"),
        ({"offset": "0x10"}, "not a number"),
        ({"offset": "１"}, "not a number"),
        ({"offset": ""}, "not a number"),
        ({"offset": "9" * 5000}, "not a number"),
        ({"length": "garbage"}, "not a number"),
        ({"length": -8000}, "not a number"),
        ({"offset": 2**63 - 1}, "too short"),
        ({"offset": 4097}, "too short: bytes 4097 to 12097 are wanted, it has 12096"),
        ({"length": 7999}, "has 7999 bytes in a data file, but its type and dims ask for 8000"),
        ({"length": 8001}, "ask for 8000"),
    ],
)
def test_a_range_that_does_not_fit_is_refused(pair, entries, message):
    """Before anything is done with the model."""
    point(pair, **entries)
    with pytest.raises(ModelError, match=message):
        load(pair)


def test_two_places_for_one_tensor_are_refused(pair):
    """Programs disagree about which counts."""
    proto = onnx.load(pair, load_external_data=False)
    proto.graph.initializer[0].raw_data = bytes(A.nbytes)
    pair.write_bytes(proto.SerializeToString())
    with pytest.raises(ModelError, match="its own and in a data file"):
        load(pair)


def test_links_inside_the_folder_are_followed(pair):
    """A symbolic or hard link to a file of the same folder is as good as the file."""
    os.link(pair.parent / "one.bin", pair.parent / "hard")
    (pair.parent / "soft").symlink_to("hard")
    point(pair, location="soft")
    assert_original(values(pair))


def test_the_hugging_face_cache_is_read(pair, tmp_path):
    """There model and data are links into a folder of blobs, which is not under the model's folder."""
    blobs, snapshot = tmp_path / "blobs", tmp_path / "snapshots" / "main"
    for folder in (blobs, snapshot / "sub"):
        folder.mkdir(parents=True)
    for number, name in enumerate(["model.onnx", "one.bin", "sub/two.bin"]):
        (pair.parent / name).rename(blobs / str(number))
        (snapshot / name).symlink_to(os.path.relpath(blobs / str(number), (snapshot / name).parent))
    assert_original(values(snapshot / "model.onnx"))
    with staged(load(snapshot / "model.onnx"), tmp_path / "out.onnx"):
        pass
    assert_original(values(tmp_path / "out.onnx"))


def test_a_bare_name_is_no_way_around(pair, tmp_path, monkeypatch):
    """A model that is opened by its name alone, in the current folder, is held to the same rules."""
    (tmp_path / "secret").write_bytes(bytes(100_000))
    monkeypatch.chdir(pair.parent)
    assert_original(values(Path("model.onnx")))
    point(pair, location="../secret")
    with pytest.raises(ModelError, match="inside the model's folder"):
        load("model.onnx")
