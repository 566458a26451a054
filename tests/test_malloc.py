"""What malloc is told reaches it."""

import os
import platform
import subprocess
import sys
from pathlib import Path

import pytest

from bnfold import malloc

HUGE = Path("/sys/kernel/mm/transparent_hugepage/enabled")
ASKS = """
kept = bytearray(1 << 26)
regions = open("/proc/self/smaps").read().split("VmFlags:")
print(any("[heap]" in before and " hg" in after.splitlines()[0] for before, after in zip(regions, regions[1:])))
"""


def glibc() -> tuple[int, ...]:
    name, version = platform.libc_ver()
    return tuple(map(int, version.split("."))) if name == "glibc" else ()


@pytest.mark.skipif(glibc() < (2, 35), reason="huge pages are asked for from glibc 2.35 on")
@pytest.mark.skipif(not HUGE.exists() or "[madvise]" not in HUGE.read_text(), reason="they come unasked, or never")
def test_large_arrays_are_on_the_heap_and_ask_for_huge_pages():
    """By default they would be in a mapping of their own, over small pages."""
    found = [
        subprocess.run([sys.executable, "-c", ASKS], env=env, capture_output=True, text=True, check=True).stdout
        for env in (os.environ | malloc.ENVIRONMENT, os.environ | {"GLIBC_TUNABLES": ""})
    ]
    assert found == ["True\n", "False\n"]
