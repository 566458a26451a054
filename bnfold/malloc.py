"""glibc's malloc, told to keep what is freed.

By default it gives each large array fresh pages, and gives them back. The kernel clears every page first, which takes
as long as some layers of a network take to compute. Elsewhere than on glibc none of this does anything.
"""

from __future__ import annotations

import ctypes
import sys

_TRIM = 1 << 30
_PAD = 1 << 26  # grow by that much at a time
_PARAMETERS = {"TRIM_THRESHOLD": (-1, _TRIM), "TOP_PAD": (-2, _PAD), "MMAP_MAX": (-4, 0)}  # numbers from malloc.h

ENVIRONMENT = {f"MALLOC_{name}_": str(value) for name, (_, value) in _PARAMETERS.items()}
"""For a process that is to be started."""


def keep_freed_memory() -> None:
    """The same for this process."""
    if sys.platform != "linux" or not hasattr(library := ctypes.CDLL(None), "mallopt"):
        return
    for parameter, value in _PARAMETERS.values():
        library.mallopt(parameter, value)
