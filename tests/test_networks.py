"""What somebody does in models/ is nothing to the tests."""

import subprocess

import pytest
from networks import LISTED, MODELS, ROOT, committed, copy_to


@pytest.fixture
def checkout(tmp_path):
    """A project with the listed files, all committed."""
    copy_to(tmp_path)
    for command in (["init", "-q"], ["add", "."], ["commit", "-q", "-m", "models"]):
        who = ["-c", "user.name=a", "-c", "user.email=a@b"]
        subprocess.run(["git", *who, *command], cwd=tmp_path, check=True)
    return tmp_path


def test_an_untouched_folder_is_used_itself(checkout):
    """Further files in it do not count."""
    (checkout / "models" / "digits_resnet.folded.onnx").write_bytes(b"more")
    assert committed(checkout) == checkout / "models"


def test_changed_and_deleted_files_are_used_as_committed(checkout):
    """Also if that has been staged."""
    models = checkout / "models"
    before = {name: (models / name).read_bytes() for name in LISTED}
    (models / "digits_mlp.onnx").write_bytes(b"folded in place")
    (models / "digits_resnet.onnx").unlink()
    subprocess.run(["git", "add", "."], cwd=checkout, check=True)
    folder = committed(checkout)
    assert folder != models
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


def test_without_git_the_folder_is_used_itself(tmp_path):
    """As in an archive of the sources."""
    assert committed(tmp_path) == tmp_path / "models"


def test_all_listed_files_are_there():
    """In the folder that tests use, and in this project, unless somebody has been at work there."""
    assert all((MODELS / name).is_file() for name in LISTED)
    assert MODELS != ROOT / "models" or committed(ROOT) == MODELS
