"""Temporary files of a calibration."""

import signal
import subprocess
import sys

import numpy as np
import pytest

from bnfold.calibration.running.scratch import save

ARRAY = np.arange(1536, dtype=np.float32)
SAVED = """
import resource, signal, sys
from pathlib import Path
import numpy as np
from bnfold.calibration.error import CalibrationError
from bnfold.calibration.running.scratch import save
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[2]), resource.RLIM_INFINITY))
try:
    save(Path(sys.argv[1]), np.arange(1536, dtype=np.float32))
except CalibrationError as error:
    print(error)
"""


def test_an_array_is_what_it_was(tmp_path):
    """Also one that is stored by columns, and one without axes."""
    for array in (ARRAY, np.asfortranarray(ARRAY.reshape(2, 768)), np.float32(3) * np.ones(())):
        save(tmp_path / "array.npy", array)
        np.testing.assert_array_equal(np.load(tmp_path / "array.npy"), array)


@pytest.mark.skipif(not hasattr(signal, "SIGXFSZ"), reason="limits the size of files")
@pytest.mark.parametrize("size", [0, 128, 128 + 4096, 128 + ARRAY.nbytes - 1])
def test_an_array_is_whole_or_an_error(size, tmp_path):
    """Wherever the disk is full; the end of what stays in C's buffers would get lost in silence."""
    command = [sys.executable, "-B", "-c", SAVED, str(tmp_path / "array.npy"), str(size)]
    ended = subprocess.run(command, capture_output=True, text=True, check=True)
    assert ended.stdout.startswith(f"temporary files cannot be written to {tmp_path}: File too large;")
