"""OpenBLAS, told to use one thread.

With several, each of many small products wakes them all, and they wait for the next one spinning. Before numpy is
loaded an environment variable says so; this is for a process that has loaded it.
"""

from __future__ import annotations

import ctypes
from contextlib import suppress
from pathlib import Path

_SETTERS = [f"{prefix}openblas_set_num_threads{suffix}" for prefix in ("", "scipy_") for suffix in ("", "64_")]


def use_one_thread() -> None:
    """In this process; elsewhere than on Linux, and where numpy has another library, nothing is done."""
    with suppress(OSError):
        maps = Path("/proc/self/maps").read_text(encoding="utf-8", errors="replace").splitlines()
        for path in {line.split(maxsplit=5)[-1] for line in maps if "openblas" in line}:
            library = ctypes.CDLL(path)
            for name in _SETTERS:
                if hasattr(library, name):
                    getattr(library, name)(1)
