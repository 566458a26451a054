"""An output exists whole or not at all, and the old one is there until the new one counts."""

import errno
import fcntl
import os
import signal
import stat
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from bnfold.model_io import Model, ModelError, check_output, destination_of, files_of, load, staged
from bnfold.model_io import lock as locks

OLD, NEW = np.zeros(3000, np.float32), np.ones(3000, np.float32)


@pytest.fixture
def inline(tmp_path, model_of) -> Path:
    """A model with its weights inside."""
    path = tmp_path / "model.onnx"
    path.write_bytes(model_of(w=OLD).SerializeToString())
    return path


@pytest.fixture
def apart(tmp_path, model_of, external) -> Path:
    """A model with its weights in a data file of ours."""
    path = external(tmp_path / "model.onnx", model_of(w=OLD), w={"location": "weights.bin"})
    with staged(load(path), path):
        pass
    return path


@pytest.fixture(params=["inline", "apart"])
def old(request) -> Path:
    """A model that is about to be replaced."""
    return request.getfixturevalue(request.param)


def weights(path: Path) -> np.ndarray:
    model = load(path)
    return model.array(model.proto.graph.initializer[0])


def edited(path: Path, data, midway=lambda: None) -> Model:
    model = load(path)
    model.attach(model.proto.graph.initializer[0], data(NEW.tobytes(), midway))
    return model


def files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}


def test_the_old_stays_until_the_block_ends(old, data):
    """Inside the block the new model is complete beside the old one; after it, there is only the new."""
    with staged(edited(old, data), old) as new:
        assert new.parent == old.parent
        assert new.name.startswith(".")
        assert new.suffix == ".onnx"
        np.testing.assert_array_equal(weights(old), OLD)
        np.testing.assert_array_equal(weights(new), NEW)
    np.testing.assert_array_equal(weights(old), NEW)
    assert not new.exists()
    assert len(list(old.parent.glob("model-*.data"))) <= 1


def test_a_model_outlives_its_file(inline, data):
    """What was read from a file can be read on after that file was replaced."""
    model = load(inline)
    with staged(edited(inline, data), inline):
        pass
    np.testing.assert_array_equal(model.array(model.proto.graph.initializer[0]), OLD)


@pytest.mark.parametrize("error", [ModelError("no"), OSError(5, "no"), KeyboardInterrupt(), ZeroDivisionError()])
def test_a_failure_in_the_block_leaves_all_as_it_was(old, data, error):
    """The error comes out as it is, and nothing is left of the new model."""
    before = files(old.parent)
    with pytest.raises(type(error)) as raised, staged(edited(old, data), old):
        raise error
    assert raised.value is error
    assert files(old.parent) == before


@pytest.mark.parametrize("error", [ModelError("no"), KeyboardInterrupt()])
def test_a_failure_of_a_payload_leaves_all_as_it_was(old, data, error):
    """Half way through a tensor."""

    def fail() -> None:
        raise error

    before = files(old.parent)
    with pytest.raises(type(error)), staged(edited(old, data, fail), old):
        pytest.fail("the model is not complete")
    assert files(old.parent) == before


@pytest.mark.parametrize("call", ["fsync", "replace", "open", "fchmod", "copy_file_range"])
@pytest.mark.parametrize("after", range(4))
def test_a_failing_system_call_leaves_old_or_new(old, data, monkeypatch, call, after):
    """Whichever fails: the model under the final name loads, and is the old or the new one, and nothing lies about."""
    model = edited(old, data)
    names = set(files(old.parent))
    real, count = getattr(os, call), iter(range(100))

    def fail(*args, **kwargs):
        if next(count) == after:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return real(*args, **kwargs)

    failed = False
    with monkeypatch.context() as patch:
        patch.setattr(os, call, fail)
        try:
            with staged(model, old):
                pass
        except ModelError as error:
            failed = "No space left on device" in str(error)
    if failed:
        np.testing.assert_array_equal(weights(old), OLD)
        assert set(files(old.parent)) == names
    else:
        np.testing.assert_array_equal(weights(old), NEW)
        assert not list(old.parent.glob(".*"))


def child(script: str, *args: object) -> subprocess.Popen[str]:
    """A process that has `model`, loaded from its first argument, with a weight to be replaced by `NEW` of 4 MiB."""
    start = """
import os, resource, sys, time
from pathlib import Path
from bnfold.model_io import ModelError, load, staged
path = Path(sys.argv[1])
model = load(path)
class Slow:
    nbytes = 4 << 20
    def chunks(self):
        yield bytes(2 << 20)
        print("half", flush=True)
        time.sleep(float(sys.argv[2]))
        yield bytes(2 << 20)
tensor = model.proto.graph.initializer[0]
tensor.dims[:] = [1 << 20]
model.attach(tensor, Slow())
"""
    command = [sys.executable, "-c", start + script, *map(str, args)]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment)


@pytest.mark.parametrize("final", [False, True], ids=["while-writing", "while-checking"])
def test_killed(old, data, final):
    """The old model is intact, and what the dead process left is swept away by the next one."""
    before = files(old.parent)
    script = "with staged(model, path) as new:\n    print('staged', flush=True)\n    time.sleep(60)\n"
    with child(script, old, 0 if final else 60) as process:
        for line in process.stdout:
            if line.strip() == ("staged" if final else "half"):
                break
        process.send_signal(signal.SIGKILL)
        process.wait()
    left = files(old.parent)
    assert before.items() < left.items()
    assert any(name.startswith(".bnfold-") for name in left)
    with staged(edited(old, data), old):
        pass
    np.testing.assert_array_equal(weights(old), NEW)
    assert not list(old.parent.glob(".bnfold-*"))


def test_killed_at_each_step(old):
    """The old or the new model is whole, and the next run leaves nothing but its own: no data file without a model."""
    script = Path(__file__).with_name("kill_at_each_step.py")
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path), "OPENBLAS_NUM_THREADS": "1"}
    command = [sys.executable, script, old.parent]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) > 10


def test_the_data_of_others_outlives_our_leftovers(apart, data):
    """A data file that was left over may have been taken up since: by a model, or by another file of that name."""
    script = "with staged(model, path) as new:\n    print('staged', flush=True)\n    time.sleep(60)\n"
    for taken_up in ("model", "file", None):
        with child(script, apart, 0) as process:
            for line in process.stdout:
                if line.strip() == "staged":
                    break
            process.send_signal(signal.SIGKILL)
            process.wait()
        (left,) = apart.parent.glob(".bnfold-*.onnx")
        (made,) = (path for path in apart.parent.glob("model-*.data") if path.stat().st_size == 4 << 20)
        if taken_up == "model":
            other = apart.with_name("other.onnx")
            other.write_bytes(left.read_bytes())
        elif taken_up == "file":
            made.write_bytes(made.read_bytes())
        with staged(load(apart), apart.with_name("new.onnx"), unchanged=True):
            pass
        assert not left.exists()
        assert made.exists() == (taken_up is not None)
        apart.with_name("other.onnx").unlink(missing_ok=True)
        made.unlink(missing_ok=True)


@pytest.mark.parametrize("busy", [False, True])
def test_what_cannot_be_removed_now_is_removed_later(apart, data, monkeypatch, busy):
    """Because the system does not let us, or another run is at the data files of the folder."""
    (before,) = apart.parent.glob("model-*.data")
    unlink = os.unlink

    def fail(path, *args, **kwargs):
        if Path(path) == before:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        unlink(path, *args, **kwargs)

    with monkeypatch.context() as patch:
        patch.setattr(locks, "_PATIENCE", 0.0)
        with staged(edited(apart, data), apart):
            if busy:
                held = os.open(apart.parent, os.O_RDONLY)
                fcntl.flock(held, fcntl.LOCK_EX)
            else:
                patch.setattr(os, "unlink", fail)
    if busy:
        os.close(held)
    np.testing.assert_array_equal(weights(apart), NEW)
    assert before.exists()
    with staged(load(apart), apart.with_name("other.onnx"), unchanged=True):
        assert not before.exists()
    assert len(list(apart.parent.glob("model-*.data"))) == 1
    assert not list(apart.parent.glob(".bnfold-*"))


def test_a_file_that_cannot_be_read_may_name_the_data(apart, data):
    """So the earlier data file stays, however long nobody needs it."""
    (apart.parent / "damaged.onnx").write_text("hello, world")
    os.mkfifo(apart.parent / "pipe.onnx")  # while this can name nothing
    with staged(edited(apart, data), apart):
        pass
    assert len(list(apart.parent.glob("model-*.data"))) == 2


def test_a_lock_from_a_stranger_removes_nothing(tmp_path, apart):
    """A folder may come with a lock that lists data files."""
    (data,) = tmp_path.glob("model-*.data")
    apart.rename(tmp_path / "model.of.another.kind")
    stem = f".bnfold-{'0' * 32}"
    (tmp_path / f"{stem}.onnx").touch()
    found = data.stat()
    listed = (data.name, f"../{tmp_path.name}/{data.name}", "..", ".", "model.of.another.kind", data.name)
    inodes = (found.st_ino + 1, *[found.st_ino] * 4, 10**30)
    lines = [
        f"new {inode} {found.st_size} {found.st_mtime_ns} {name}\n" for name, inode in zip(listed, inodes, strict=True)
    ]
    (tmp_path / f"{stem}.lock").write_text("".join(lines) + "\0[[[[ new 1 2")
    before = {name: content for name, content in files(tmp_path).items() if not name.startswith(".")}
    with staged(load(tmp_path / "model.of.another.kind"), tmp_path / "new.onnx", unchanged=True):
        pass
    (tmp_path / "new.onnx").unlink()
    assert files(tmp_path) == before


def test_the_same_content_again_is_left_where_it_is(apart):
    """Another run may be reading it."""
    (file,) = apart.parent.glob("model-*.data")
    inode = file.stat().st_ino
    with staged(load(apart), apart):
        pass
    assert file.stat().st_ino == inode
    content = file.read_bytes()
    file.write_bytes(content[::-1])
    twin = apart.with_name("twin.bin")
    twin.write_bytes(content)
    onnx_model = apart.read_bytes().replace(file.name.encode(), b"twin.bin".ljust(len(file.name), b"_"))
    twin.rename(apart.with_name("twin.bin".ljust(len(file.name), "_")))
    apart.with_name("other.onnx").write_bytes(onnx_model)
    with staged(load(apart.with_name("other.onnx")), apart):
        pass
    assert file.read_bytes() == content


def test_a_living_process_is_not_swept(inline, data, tmp_path):
    """Two processes may write into one folder at a time."""
    with staged(edited(inline, data), tmp_path / "first.onnx") as first:
        with child("with staged(model, path.with_name('second.onnx')): pass", inline, 0) as process:
            assert process.wait() == 0, process.stderr.read()
        assert first.exists()
    np.testing.assert_array_equal(weights(tmp_path / "first.onnx"), NEW)
    assert weights(tmp_path / "second.onnx").size == 1 << 20


def test_disk_full(old):
    """One line, nothing left, and the old model intact."""
    before = files(old.parent)
    script = """
resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, resource.RLIM_INFINITY))
try:
    with staged(model, path):
        pass
except ModelError as error:
    print(error)
"""
    with child(script, old, 0) as process:
        output, errors = process.communicate()
    assert "model.onnx: cannot be written: File too large" in output, errors
    assert files(old.parent) == before


def test_mode_bits(tmp_path, inline, data):
    """A new file gets what the umask leaves, a replaced one keeps what it had."""
    out = tmp_path / "out.onnx"
    previous = os.umask(0o027)
    try:
        with staged(load(inline), out):
            pass
    finally:
        os.umask(previous)
    assert stat.S_IMODE(out.stat().st_mode) == 0o640
    out.chmod(0o604)
    with staged(edited(inline, data), out):
        pass
    assert stat.S_IMODE(out.stat().st_mode) == 0o604


def test_a_link_stays_a_link(tmp_path, inline, data):
    """What it points to is replaced; another hard link to that still has the old bytes."""
    (tmp_path / "far").mkdir()
    target, link = tmp_path / "far" / "target.onnx", tmp_path / "link.onnx"
    target.write_bytes(b"old")
    os.link(target, tmp_path / "twin")
    link.symlink_to(target)
    with staged(edited(inline, data), link) as new:
        assert new.parent == target.parent
    assert link.is_symlink()
    np.testing.assert_array_equal(weights(target), NEW)
    assert (tmp_path / "twin").read_bytes() == b"old"


def test_a_relative_path(inline, data, monkeypatch):
    """A bare name is a file of the current folder."""
    monkeypatch.chdir(inline.parent)
    with staged(edited(Path("model.onnx"), data), Path("model.onnx")):
        pass
    np.testing.assert_array_equal(weights(inline), NEW)


def test_ten_thousand_small_changes(model_of, tmp_path, data):
    """Many changed tensors are written in time linear in their number."""
    model = load(model_of(**{f"w{number}": NEW[:1] for number in range(10_000)}))
    for tensor in model.proto.graph.initializer:
        model.attach(tensor, data(b"\0\0\0\0"))
    start = time.process_time()
    with staged(model, tmp_path / "out.onnx"):
        pass
    assert time.process_time() - start < 2
    assert not weights(tmp_path / "out.onnx").any()


@pytest.mark.parametrize(
    ("out", "options", "message"),
    [
        ("nowhere/out.onnx", {}, "there is no folder"),
        ("model.onnx/out.onnx", {}, "there is no folder"),
        ("folder", {}, "is a folder"),
        ("pipe", {}, "not a regular file"),
        ("/dev/null", {}, "not a regular file"),
        ("/dev/null", {"overwrite": True}, "not a regular file"),
        ("other.onnx", {}, "already exists"),
        ("other.onnx", {"in_place": True}, "already exists"),
        ("model.onnx", {}, "is the input itself"),
        ("model.onnx", {"overwrite": True}, "is the input itself"),
        ("link.onnx", {"overwrite": True}, "is the input itself"),
        ("hard.onnx", {"overwrite": True}, "is the input itself"),
        ("new.onnx", {}, None),
        ("dangling.onnx", {}, None),
        ("other.onnx", {"overwrite": True}, None),
        ("model.onnx", {"in_place": True}, None),
        ("link.onnx", {"in_place": True}, None),
    ],
)
def test_refused_before_any_work(inline, tmp_path, out, options, message):
    """All that can be known of the output without the model."""
    (tmp_path / "folder").mkdir()
    (tmp_path / "other.onnx").touch()
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "link.onnx").symlink_to(inline)
    (tmp_path / "dangling.onnx").symlink_to("target.onnx")
    os.link(inline, tmp_path / "hard.onnx")
    options = {"in_place": False, "overwrite": False} | options
    if message is None:
        check_output(tmp_path / out, inline, **options)
        return
    with pytest.raises(ModelError, match=message) as refused:
        check_output(tmp_path / out, inline, **options)
    assert str(tmp_path / out) in str(refused.value)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_that_is_read_only(tmp_path):
    """Is refused before any work."""
    tmp_path.chmod(0o500)
    with pytest.raises(ModelError, match="not writable"):
        check_output(tmp_path / "out.onnx", None, in_place=False, overwrite=False)


def test_a_data_file_is_no_place_for_an_output(apart):
    """Not by another path either: the model would be lost."""
    (data,) = apart.parent.glob("model-*.data")
    link = apart.with_name("link.bin")
    link.symlink_to(data)
    before = data.read_bytes()
    model = load(apart)
    for out in (data, link, apart.parent / "." / data.name):
        with pytest.raises(ModelError, match="holds data of"):
            destination_of(apart, model, out)
        assert data.read_bytes() == before
    assert files_of(str(apart)) == {str(apart), str(data)}
    assert files_of(str(data)) == {str(data)}


def test_no_data_file_where_none_is_needed(apart):
    """Of a model whose tensors have all become small, none is left beside it."""
    model = load(apart)
    del model.proto.graph.initializer[:]
    out = apart.with_name("out.onnx")
    with staged(model, out):
        pass
    assert not list(apart.parent.glob("out-*"))
