"""The files of models/ that tests use: listed, and as they were committed, whatever is done in that folder."""

from __future__ import annotations

import atexit
import shutil
import subprocess
import tempfile
from pathlib import Path

ROOT = Path(__file__).parents[1]
NETWORKS = ("digits_resnet", "digits_mlp", "digits_preact")
FORMS = ("", ".train", ".decomposed")
FILES = tuple(f"{name}{form}.onnx" for name in NETWORKS for form in FORMS)
DATA = ("digits_train.npz", "digits_test.npz", "digits_labels.npz")
LISTED = (*FILES, *DATA, "README.md")


def committed(root: Path) -> Path:
    """The models/ of a checkout; where a listed file has changed or is gone, a copy from the last commit.

    Outside of git, and where nothing was committed, it is the folder itself.
    """
    folder = root / "models"
    paths = [f"models/{name}" for name in LISTED]
    if _git(root, "diff", "--quiet", "HEAD", "--", *paths).returncode != 1:
        return folder
    copy = Path(tempfile.mkdtemp(prefix="models-"))
    atexit.register(shutil.rmtree, copy, ignore_errors=True)
    for name in LISTED:
        content = _git(root, "show", f"HEAD:models/{name}")
        if content.returncode == 0:
            (copy / name).write_bytes(content.stdout)
    return copy


def _git(root: Path, *args: str) -> subprocess.CompletedProcess[bytes]:
    try:
        return subprocess.run(["git", "-C", str(root), *args], capture_output=True, check=False)
    except OSError:  # there is no git
        return subprocess.CompletedProcess(args, 127)


MODELS = committed(ROOT)


def copy_to(folder: Path) -> None:
    """Puts the listed files into `folder`/models, and no others."""
    (folder / "models").mkdir()
    for name in LISTED:
        shutil.copy(MODELS / name, folder / "models" / name)
