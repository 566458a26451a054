"""What is temporary: told from what is left over by a lock, and swept by the next run in the same place."""

import errno
import fcntl
import os
import shutil
import signal
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest

from bnfold.model_io import Temporary, temporary_folder
from bnfold.model_io import lock as locks


def names(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*")}


def killed(script: str, *args: object) -> None:
    """Runs a script that makes something, and then kills itself."""
    head = "import os, signal, sys\nfrom pathlib import Path\nfrom bnfold.model_io import Temporary, temporary_folder\n"
    command = [sys.executable, "-c", f"{head}{script}\nos.kill(os.getpid(), signal.SIGKILL)", *map(str, args)]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    assert subprocess.run(command, env=environment, check=False).returncode == -signal.SIGKILL


LEAVES_FILES = """
temporary = Temporary(Path(sys.argv[1]))
for suffix in (".data", ".onnx", ".json"):
    temporary.path(suffix).touch()
"""
LEAVES_A_FOLDER = """
manager = temporary_folder(sys.argv[1])
folder = manager.__enter__()
(folder / "sub").mkdir()
(folder / "sub" / "file").touch()
"""


def test_what_a_killed_run_left_is_swept(tmp_path):
    """By the next one there, whatever it is for."""
    killed(LEAVES_FILES, tmp_path)
    assert len(names(tmp_path)) == 4
    with closing(Temporary(tmp_path)):
        assert len(names(tmp_path)) == 1
    assert not names(tmp_path)


def test_a_folder_of_a_killed_run_is_swept(tmp_path):
    """With all that is in it."""
    killed(LEAVES_A_FOLDER, tmp_path)
    (left,) = tmp_path.iterdir()
    with temporary_folder(tmp_path) as folder:
        assert not left.exists()
        assert folder.is_dir()
    assert not names(tmp_path)


def test_the_folder_is_nobody_elses(tmp_path):
    """What we are given to read may be secret."""
    with temporary_folder(tmp_path):
        (outer,) = tmp_path.iterdir()
        assert outer.stat().st_mode & 0o077 == 0


def test_neither_host_nor_process_tells_a_run(tmp_path, monkeypatch):
    """Two containers may have the same of both, and see none of the processes of the other."""

    def unseen(*_: object) -> None:
        raise ProcessLookupError

    monkeypatch.setattr(os, "getpid", lambda: 1)
    monkeypatch.setattr(os, "kill", unseen)
    with closing(Temporary(tmp_path)) as first, temporary_folder(tmp_path) as first_folder:
        first.path(".onnx").touch()
        with closing(Temporary(tmp_path)) as second, temporary_folder(tmp_path) as second_folder:
            assert first.path(".onnx").exists()
            assert first_folder.exists()
            assert first.path(".onnx") != second.path(".onnx")
            assert first_folder != second_folder
    assert not names(tmp_path)


@pytest.mark.parametrize(
    "name",
    ["bnfold-results", f"bnfold-{'0' * 32}", f"bnfold-{'0' * 32}x", f".bnfold-{'0' * 32}", ".bnfold-0.lock"],
)
def test_a_folder_of_the_user_is_not_ours(tmp_path, name):
    """However it is called: without our lock in it, only an empty one might go."""
    (tmp_path / name).mkdir()
    (tmp_path / name / "files").mkdir()
    (tmp_path / name / "files" / "file").touch()
    before = names(tmp_path)
    with closing(Temporary(tmp_path)), temporary_folder(tmp_path):
        pass
    assert names(tmp_path) == before


def test_links_are_not_followed(tmp_path):
    """Not by a lock, and not by a folder, under a name of ours."""
    (tmp_path / "far" / "files").mkdir(parents=True)
    (tmp_path / "far" / "lock").touch()
    (tmp_path / "far" / "files" / "file").touch()
    (tmp_path / "near").mkdir()
    (tmp_path / "near" / f"bnfold-{'0' * 32}").symlink_to(tmp_path / "far")
    (tmp_path / "near" / f".bnfold-{'0' * 32}.lock").symlink_to(tmp_path / "far" / "lock")
    (tmp_path / "near" / f".bnfold-{'0' * 32}.data").touch()
    before = names(tmp_path)
    with closing(Temporary(tmp_path / "near")), temporary_folder(tmp_path / "near"):
        pass
    assert names(tmp_path) == before


def test_a_pipe_in_the_place_of_a_lock(tmp_path):
    """Is not waited for."""
    os.mkfifo(tmp_path / f".bnfold-{'0' * 32}.lock")
    Temporary(tmp_path).close()


def test_a_file_system_without_locks(tmp_path, monkeypatch):
    """All goes its way, and what nobody can tell anything of stays."""
    killed(LEAVES_FILES, tmp_path)
    killed(LEAVES_A_FOLDER, tmp_path)
    before = names(tmp_path)

    def unsupported(*_: object) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(fcntl, "flock", unsupported)
    with closing(Temporary(tmp_path)), temporary_folder(tmp_path), locks.alone(tmp_path) as ours:
        assert ours
    assert names(tmp_path) == before


@pytest.mark.parametrize("moment", ["before-the-lock", "after-the-lock"])
def test_swept_away_before_it_was_locked(tmp_path, monkeypatch, moment):
    """A run that sweeps may find a lock in the moment between its making and its locking: another one is made."""
    real, pending = fcntl.flock, [True]

    def swept(descriptor: int, operation: int) -> None:
        if pending and pending.pop():
            for path in tmp_path.iterdir():
                path.unlink() if path.is_file() else shutil.rmtree(path)
            if moment == "before-the-lock":
                raise BlockingIOError
        real(descriptor, operation)

    monkeypatch.setattr(fcntl, "flock", swept)
    with closing(Temporary(tmp_path)):
        assert len(names(tmp_path)) == 1
    pending.append(True)
    with temporary_folder(tmp_path) as folder:
        assert folder.is_dir()
    assert not names(tmp_path)


def test_waiting_for_others_ends(tmp_path, monkeypatch):
    """Anybody who can read a folder can lock it, and keep it."""
    monkeypatch.setattr(locks, "_PATIENCE", 0.0)
    with locks.alone(tmp_path) as first, locks.alone(tmp_path) as second:
        assert first
        assert not second
    with locks.alone(tmp_path) as third:
        assert third


@pytest.mark.parametrize("error", [errno.ENOSPC, errno.EDQUOT, errno.EFBIG])
def test_a_full_folder_is_named(error, tmp_path):
    """A write that fails does not say where."""
    with pytest.raises(OSError, match=str(tmp_path)), temporary_folder(tmp_path):
        raise OSError(error, os.strerror(error))
