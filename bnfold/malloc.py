"""glibc's malloc, told to keep what is freed, and to ask for huge pages.

By default it gives each large array fresh pages, and gives them back. The kernel clears every page first, which takes
as long as some layers of a network take to compute. Over pages of 4 KiB, a pass through a network takes a tenth longer
than over huge ones. Elsewhere than on glibc none of this does anything.
"""

from __future__ import annotations

import ctypes
import os
import sys

_TRIM = 1 << 30
_PAD = 1 << 26  # grow by that much at a time
_PARAMETERS = {"TRIM_THRESHOLD": (-1, _TRIM), "TOP_PAD": (-2, _PAD), "MMAP_MAX": (-4, 0)}  # numbers from malloc.h

_HUGE_PAGES = "glibc.malloc.hugetlb=1"  # from glibc 2.35 on

ENVIRONMENT = {f"MALLOC_{name}_": str(value) for name, (_, value) in _PARAMETERS.items()} | {
    "GLIBC_TUNABLES": ":".join(filter(None, [_HUGE_PAGES, os.environ.get("GLIBC_TUNABLES")]))  # the user's come last
}
"""For a process that is to be started."""


def keep_freed_memory() -> None:
    """The same for this process, but for huge pages."""
    if sys.platform != "linux" or not hasattr(library := ctypes.CDLL(None), "mallopt"):
        return
    for parameter, value in _PARAMETERS.values():
        library.mallopt(parameter, value)
