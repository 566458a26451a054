"""Nothing leaves this machine, and nothing is left in the user's home, whichever process does the work."""

import ast
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "bnfold"
MODEL, FOLDED, TRAIN = ROOT / "models/digits_mlp.onnx", "folded.onnx", ROOT / "models/digits_mlp.train.onnx"
DATA = ["--data", ROOT / "models/digits_test.npz", "--max-samples", "64"]
NETWORK = re.compile(r"AF_INET|AF_NETLINK|nscd")  # addresses, and how names are resolved


def works(*command: str) -> bool:
    return shutil.which(command[0]) is not None and subprocess.run(command, check=False).returncode == 0


@pytest.fixture(scope="module")
def watched() -> list[str]:
    """What a command is started with so that there is no network, and every try to reach one is seen."""
    alone = ["unshare", "--map-root-user", "--net"]
    strace = ["strace", "-f", "-qq", "-e", "trace=network", "-o", "trace"]
    return [*(alone if works(*alone, "true") else []), *(strace if works("strace", "-qq", "true") else [])]


@pytest.mark.parametrize(
    "args",
    [
        pytest.param(["optimize", MODEL, "-o", FOLDED], id="optimize"),
        pytest.param(["verify", MODEL, MODEL], id="verify"),
        pytest.param(["check", MODEL, "-q", "--keep", "*"], id="check"),
        pytest.param(["calibrate", TRAIN, *DATA, "-o", FOLDED, "--workers", "2"], id="calibrate"),
        pytest.param(["drift", MODEL, *DATA], id="drift"),
    ],
)
def test_nothing_phones_home(args, watched, tmp_path):
    """No socket is opened to anywhere, a machine without a network does as well, and HOME stays empty."""
    home = tmp_path / "home"
    home.mkdir()
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("XDG_", "ORT_"))}
    command = [*watched, sys.executable, ROOT / "cli.py", *args]
    subprocess.run(command, cwd=tmp_path, env={**environment, "HOME": str(home)}, check=True, capture_output=True)
    assert list(home.rglob("*")) == []
    if "strace" in watched:
        assert [line for line in (tmp_path / "trace").read_text().splitlines() if NETWORK.search(line)] == []


def imported(path: Path) -> set[str]:
    """Names that a file imports, from anywhere."""
    nodes = list(ast.walk(ast.parse(path.read_text(encoding="utf-8"))))
    names = {alias.name for node in nodes if isinstance(node, ast.Import | ast.ImportFrom) for alias in node.names}
    return names | {str(node.module) for node in nodes if isinstance(node, ast.ImportFrom)}


def test_every_process_is_told():
    """Who starts a process imports what turns telemetry off; ONNX Runtime is imported only where that was done."""
    files = {path.relative_to(PACKAGE).as_posix(): imported(path) for path in PACKAGE.rglob("*.py")}
    assert [name for name, names in files.items() if "subprocess" in names and "telemetry" not in names] == []
    children = {"verification/running/child.py", "verification/running/probe.py"}
    children.add("verification/replay.py")  # a script of its own, beside counterexamples
    importing = {name for name, names in files.items() if "onnxruntime" in names}
    assert {name for name in importing - children if not name.startswith("calibration/")} == set()
    assert "telemetry" in files["calibration/__init__.py"]
