"""What fuzzing has found: an input that was wrong is a file in tests/mutants/found, and stays there."""

import pytest

from mutants.targets import FOUND, TARGETS

CASES = sorted(path for path in FOUND.iterdir() if path.suffix != ".md")


@pytest.mark.parametrize("case", CASES, ids=[case.name for case in CASES])
def test_found(case):
    """It is right now."""
    told = TARGETS[case.name.partition("-")[0]](case.read_bytes())
    assert told.startswith("ok: "), told


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("data", [b"", b"\x08", b"\x3a\x01", bytes(100)], ids=["empty", "cut", "truncated", "zeros"])
def test_hardly_anything(target, data):
    """What a fuzzer begins with."""
    assert TARGETS[target](data).startswith("ok: refused")
