"""Every kind of source gives the same samples, in batches, spread over all when only some are wanted."""

import io
import os
import tracemalloc
import zipfile
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from bnfold.data import DataError, Dataset, open_data

COUNT = 15


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for number in range(3):
        rows = np.arange(5, dtype=np.float32)[:, None] + 5 * number
        np.save(tmp_path / f"{number}.npy", rows)
        np.savez(tmp_path / f"{number}.npz", x=rows, labels=np.arange(5))
        test = tmp_path / f"test_data_set_{number}"
        test.mkdir()
        (test / "input_0.pb").write_bytes(numpy_helper.from_array(rows, "x").SerializeToString())
    (tmp_path / "script.py").write_text(
        "import numpy as np\n"
        "def batches():\n    for k in range(5): yield np.arange(3, dtype=np.float32)[:, None] + 3 * k\n"
        "def endless():\n    while True: yield {'x': np.zeros((2, 1), np.float32)}\n"
        "def broken():\n    raise KeyError('no')\n"
        "def leaving():\n    raise SystemExit(3)\n"
    )
    return tmp_path


def values(dataset: Dataset, size: int, **options) -> list[list[int]]:
    return [batch["x"][:, 0].astype(int).tolist() for batch in dataset.batches(size, **options)]


@pytest.mark.parametrize("source", ["*.npy", "*.npz", "test_data_set_*", "script.py:batches"])
def test_every_source_gives_the_same(folder, source):
    """Batches go over the borders of files, and only the last may be smaller."""
    dataset = open_data([folder / source], ["x"])
    assert len(dataset) == COUNT
    assert values(dataset, 4) == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9, 10, 11], [12, 13, 14]]
    assert values(dataset, 4, start=3, stop=8) == [[3, 4, 5, 6], [7]]


@pytest.mark.parametrize("source", ["*.npz", "script.py:batches"])
def test_some_samples_are_spread_over_all(folder, source):
    """Never the head: at even distances, or drawn with a seed, the same each time."""
    dataset = open_data([folder / source], ["x"])
    assert values(dataset, 10, max_samples=5) == [[1, 4, 7, 10, 13]]
    drawn = values(dataset, 10, max_samples=5, seed=1)
    assert drawn == values(dataset, 10, max_samples=5, seed=1)
    assert sorted(drawn[0]) == drawn[0]
    assert drawn != values(dataset, 10, max_samples=5, seed=2)


def test_the_order_of_bytes_is_this_machines(tmp_path):
    """Whatever machine the file was written on."""
    np.save(tmp_path / "x.npy", np.arange(3, dtype=">f4")[:, None])
    (batch,) = open_data([tmp_path / "x.npy"], ["x"]).batches(3)
    assert batch["x"].dtype == np.dtype(np.float32)
    assert batch["x"][:, 0].tolist() == [0, 1, 2]


def test_an_endless_script_can_be_cut_short(folder):
    """A script is not run to its end if nobody asks how long it is."""
    assert len(values(open_data([folder / "script.py:endless"], ["x"]), 4, stop=8)) == 2


def test_a_folder_of_files(tmp_path):
    """All data files in it, in the order of their names."""
    np.save(tmp_path / "b.npy", np.ones((2, 1)))
    np.save(tmp_path / "a.npy", np.zeros((2, 1)))
    assert values(open_data([tmp_path], ["x"]), 4) == [[0, 0, 1, 1]]


@pytest.mark.parametrize("save", [np.save, lambda path, array: np.savez(path.with_suffix(".npz"), x=array)])
def test_a_scalar_is_a_sample(save, tmp_path):
    """An array without axes, as an input of the model may be."""
    save(tmp_path / "x.npy", np.float32(3))
    (feed,) = open_data([tmp_path], ["x"]).batches(4)
    assert feed["x"].shape == ()
    assert feed["x"] == 3


@pytest.mark.parametrize(
    ("source", "names", "message"),
    [
        ("missing.npy", ["x"], "no such file"),
        ("*.npq", ["x"], "nothing matches"),
        ("empty", ["x"], "nothing in it is data"),
        ("0.npy", ["x", "y"], "use .npz"),
        ("0.npz", ["z"], "no array for input 'z'"),
        ("bad.npz", ["x"], "damaged"),
        ("pickled.npy", ["x"], "pickled"),
        ("text.npy", ["x"], "no array"),
        ("script.py:broken", ["x"], "KeyError"),
        ("script.py:leaving", ["x"], "SystemExit"),
        ("script.py:nothing", ["x"], "no function"),
        ("model.onnx", ["x"], "neither"),
    ],
)
def test_what_is_wrong_is_said_in_one_line(folder, source, names, message):
    """Errors name the source."""
    (folder / "empty").mkdir()
    (folder / "bad.npz").write_bytes(b"PK\x03\x04 nothing")
    np.save(folder / "pickled.npy", np.array([{}], dtype=object))
    (folder / "text.npy").write_text("no array")
    onnx.save(onnx.ModelProto(), folder / "model.onnx")
    with pytest.raises(DataError, match=message) as error:
        list(open_data([folder / source], names).batches(4))
    assert "\n" not in str(error.value)
    assert source.partition(":")[0] in str(error.value)


@pytest.mark.parametrize("name", ["x.npy", "x.npz", "set/input_0.pb"])
@pytest.mark.parametrize("special", ["/dev/zero", "pipe"])
def test_only_regular_files_are_data(tmp_path, name, special):
    """A device never ends, and a pipe may never begin."""
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "set").mkdir()
    (tmp_path / name).symlink_to(tmp_path / special)  # the last absolute path counts
    with pytest.raises(DataError, match="is not a regular file"):
        open_data([(tmp_path / name).parent if name.endswith(".pb") else tmp_path / name], ["x"])


def zipped(path, members, compression=zipfile.ZIP_DEFLATED):
    """A `.npz` of `.npy` members, each a number of bytes of zeros behind a header, which may lie."""
    with zipfile.ZipFile(path, "w", compression, compresslevel=1) as archive:
        for name, (shape, nbytes) in members.items():
            with archive.open(f"{name}.npy", "w", force_zip64=True) as stream:
                header = io.BytesIO()
                np.lib.format.write_array_header_1_0(header, {"descr": "<f4", "fortran_order": False, "shape": shape})
                stream.write(header.getvalue())
                for at in range(0, nbytes, 1 << 22):
                    stream.write(bytes(min(1 << 22, nbytes - at)))


def peak(function):
    """The most that Python and numpy held at a time, in MB."""
    tracemalloc.start()
    try:
        function()
        return tracemalloc.get_traced_memory()[1] / 2**20
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("compression", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
@pytest.mark.parametrize("options", [{}, {"max_samples": 8}])
def test_a_zipped_array_is_read_in_pieces(compression, options, tmp_path):
    """Nor is another in the file read at all, whatever it would unpack to."""
    rows = 1 << 14
    members = {"x": ((rows, 1024), rows * 4096), "other": ((rows, 1024), rows * 4096)}
    zipped(tmp_path / "x.npz", members, compression)
    dataset = open_data([tmp_path / "x.npz"], ["x"])
    assert peak(lambda: [batch["x"].shape for batch in dataset.batches(32, **options)]) < 16
    assert sum(len(batch["x"]) for batch in dataset.batches(32, **options)) == options.get("max_samples", rows)


def test_rows_of_a_zipped_array_are_those_of_the_array(tmp_path):
    """In any order in memory, of any type, beside a scalar and an array that belongs together."""
    rng = np.random.default_rng(0)
    arrays = {
        "c": rng.normal(size=(50, 3, 4)),
        "fortran": np.asfortranarray(rng.normal(size=(50, 3, 4)).astype(np.float16)),
        "swapped": rng.integers(0, 9, 50).astype(">i4"),
        "nothing": np.zeros((50, 0, 2), np.float32),
        "scalar": np.float32(3),
    }
    for save in (np.savez, np.savez_compressed):
        save(tmp_path / "x.npz", **arrays)
        dataset = open_data([tmp_path / "x.npz"], list(arrays))
        chosen = (np.arange(7) * 50 + 25) // 7
        (batch,) = dataset.batches(16, max_samples=7)
        for name, array in arrays.items():
            np.testing.assert_array_equal(batch[name], array[chosen] if array.ndim else array)
    np.savez(tmp_path / "x.npz", a=np.arange(3), b=np.arange(4))
    (whole,) = open_data([tmp_path / "x.npz"], ["a", "b"]).batches(2)
    assert [len(array) for array in whole.values()] == [3, 4]


@pytest.mark.parametrize(
    "head", ["(" * 100, "{'descr': '<f4', 'fortran_order': False, 'shape': (-1, 4)}", "'", "{", "1_"]
)
def test_a_head_that_makes_no_sense_is_one_line(head, tmp_path):
    """It is Python, and wrong in as many ways."""
    path = tmp_path / "x.npy"
    path.write_bytes(b"\x93NUMPY\x01\x00" + (118).to_bytes(2, "little") + head.ljust(117).encode() + b"\n" + bytes(64))
    with pytest.raises(DataError, match="damaged or no array"):
        open_data([path], ["x"])


def test_what_is_wrong_with_a_zipped_array_is_one_line(tmp_path):
    """A header that promises more than there is, bytes that were damaged, pickles."""
    path = tmp_path / "x.npz"
    zipped(path, {"x": ((100, 4), 160)})
    with pytest.raises(DataError, match="damaged or no array"):
        list(open_data([path], ["x"]).batches(8))
    np.savez_compressed(path, x=np.random.default_rng(0).normal(size=(100, 40)))
    data = bytearray(path.read_bytes())
    data[3000:3100] = bytes(100)
    path.write_bytes(data)
    with pytest.raises(DataError, match="damaged or no array"):
        list(open_data([path], ["x"]).batches(8))
    np.savez(path, x=np.array([{}], object))
    with pytest.raises(DataError, match="pickled objects, which are not read"):
        open_data([path], ["x"])


@pytest.mark.parametrize("options", [{}, {"max_samples": 8}])
def test_samples_of_nothing_are_not_counted_out(options, tmp_path):
    """As many as a head says, which costs no byte of the file."""
    zipped(tmp_path / "x.npz", {"x": ((1 << 40, 0), 0)})
    with zipfile.ZipFile(tmp_path / "x.npz") as archive:
        archive.extract("x.npy", tmp_path)
    for name in ("x.npy", "x.npz"):
        dataset = open_data([tmp_path / name], ["x"])
        assert peak(lambda dataset=dataset: next(dataset.batches(8, **options))) < 16
        assert dataset.where(7, **options).startswith(f"{tmp_path / name}, row ")


def test_more_samples_than_there_can_be(tmp_path):
    """Are told as what a file says."""
    zipped(tmp_path / "x.npz", {"x": (((1 << 40) + 1, 0), 0)})
    with pytest.raises(DataError, match="says that it has 1099511627777 samples"):
        open_data([tmp_path / "x.npz"], ["x"])
