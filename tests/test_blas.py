"""How many threads numpy's products take."""

import os
import subprocess
import sys

import pytest

ASK = """
import ctypes
import numpy
from bnfold import blas
from bnfold.limits import Limits
from bnfold.confined import confined
paths = {line.split()[-1] for line in open("/proc/self/maps") if "openblas" in line}
names = [name.replace("_set_", "_get_") for name in blas._SETTERS]
ask = [getattr(ctypes.CDLL(path), name) for path in paths for name in names if hasattr(ctypes.CDLL(path), name)]
print(*(get() for get in ask), *confined(lambda _: [get() for get in ask], Limits(), print), *(get() for get in ask))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="nothing is done elsewhere")
def test_a_comparison_takes_one_thread_and_the_caller_keeps_its_own():
    """Whatever the process has that asks for it."""
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path), "OPENBLAS_NUM_THREADS": "2"}
    done = subprocess.run([sys.executable, "-c", ASK], env=environment, capture_output=True, text=True, check=True)
    if not done.stdout.strip():
        pytest.skip("numpy has another library")
    assert done.stdout.split() == ["2", "1", "2"]
