"""Fuzzing that follows coverage: inputs grow into whatever makes bnfold take another path.

    pip install atheris
    python benchmarks/fuzz.py plan --seconds 3600 --corpus corpus

A target is `wire` (the reader of the file format), `plan` (check, and optimize without verification) or `verify`
(comparing region by region); tests/mutants/targets.py says what each has to hold. It starts from the small models of
tests/cases, and from what an earlier run has left in --corpus; mutations are those of benchmarks/mutate.py and of
libFuzzer. At the first fault it ends with exit code 77, and the input is a file in tests/mutants/found, which a test
tries from then on. Inputs that take over 30 s or 4 GB are faults, too.
"""

from __future__ import annotations

import argparse
import importlib
import os
import pkgutil
import random
import sys
import tempfile
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from typing import NoReturn
from unittest.mock import patch

try:
    import atheris
except ImportError:
    sys.exit("fuzz.py needs atheris: pip install atheris")

_ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(_ROOT), str(_ROOT / "tests")]
_LONGEST = 1 << 13  # bytes of an input: a small model is as good as a large one, and faster
_SECONDS, _MEGABYTES = 30, 4096
# which no target uses
_WITHOUT = ("bnfold.calibration", "bnfold.verification.running.child", "bnfold.verification.replay")

with atheris.instrument_imports(include=["bnfold"], enable_loader_override=False):
    import bnfold
    from bnfold.verification import compare

    for module in pkgutil.walk_packages(bnfold.__path__, "bnfold."):
        if not module.name.startswith(_WITHOUT):
            importlib.import_module(module.name)

from google.protobuf.message import DecodeError  # noqa: E402
from mutants.mutations import changed  # noqa: E402
from mutants.originals import originals  # noqa: E402
from mutants.targets import FOUND, TARGETS  # noqa: E402


class Fault(Exception):
    """A target that did not hold."""


def main() -> None:
    """Runs until the time is over, or a fault is found."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("target", choices=TARGETS)
    parser.add_argument("--seconds", type=int, default=60)
    parser.add_argument("--corpus", type=Path, help="a folder to go on from, and to leave what was found in")
    parser.add_argument("--start", type=int, default=1000, metavar="N", help="from no more than N of the small models")
    parser.add_argument("--seed", type=int, default=0, help="0 for another one each time")
    options = parser.parse_args()
    # a copy of the process would hide its coverage
    at_once = patch.object(compare, "confined", lambda work, limits, progress: work(progress))
    with at_once, tempfile.TemporaryDirectory() as temporary:
        corpus = options.corpus or Path(temporary)
        plant(corpus, options.start)
        process = os.fork()  # libFuzzer ends the process that it runs in
        if not process:
            fuzz(options.target, corpus, options.seconds, options.seed)
        code = os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])
    sys.exit(code)


def fuzz(target: str, corpus: Path, seconds: int, seed: int) -> NoReturn:
    """Gives inputs to a target for so long, or until a fault is found."""
    arguments = {
        "max_total_time": seconds,
        "max_len": _LONGEST,
        "timeout": _SECONDS,
        "rss_limit_mb": _MEGABYTES,
        "seed": seed,
        "artifact_prefix": f"{FOUND}/{target}-",
        "print_final_stats": 1,
        "verbosity": 0,
    }
    flags = [f"-{name}={value}" for name, value in arguments.items()]
    atheris.Setup([sys.argv[0], *flags, str(corpus)], tried(target), custom_mutator=mutated)
    atheris.Fuzz()
    raise AssertionError("it never returns")


def plant(corpus: Path, most: int) -> None:
    """Writes some small models of all kinds, each under a name of its own."""
    corpus.mkdir(exist_ok=True)
    small = [model for model in originals() if len(model) <= _LONGEST]
    for model in small[:: -(-len(small) // most)]:
        (corpus / sha256(model).hexdigest()[:16]).write_bytes(model)


def tried(target: str) -> Callable[[bytes], None]:
    """What libFuzzer calls with each input."""

    def one(data: bytes) -> None:
        told = TARGETS[target](data)
        if not told.startswith("ok: "):
            raise Fault(told)

    return one


def mutated(data: bytes, most: int, seed: int) -> bytes:
    """An input changed as a model, where it is one, or else as bytes."""
    rng = random.Random(seed)
    try:
        model = changed(data, rng) if rng.random() < 0.7 else b""
    except (DecodeError, ValueError):  # of text that is no UTF-8
        model = b""
    return model if 0 < len(model) <= most else bytes(atheris.Mutate(data, most))


if __name__ == "__main__":
    main()
