"""The first ten minutes of users: each script ends with what its user wanted, or with an exit code that is not 0."""

import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
from networks import copy_to

HERE = Path(__file__).parent
NEEDS = {"pytorch": ("torch", "onnxscript")}
JOURNEYS = sorted(path.stem for path in HERE.glob("*.sh") if path.stem != "common")


@pytest.mark.parametrize("journey", JOURNEYS)
def test_journey(journey, tmp_path):
    """The user arrives."""
    if missing := [name for name in NEEDS.get(journey, ()) if find_spec(name) is None]:
        pytest.skip(f"needs {', '.join(missing)}")
    copy_to(tmp_path)
    result = subprocess.run(
        ["bash", str(HERE / f"{journey}.sh"), str(tmp_path)],
        env={**os.environ, "PYTHON": sys.executable, "PYTHONIOENCODING": "utf-8"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
        timeout=300,
    )
    assert result.returncode == 0, result.stdout
