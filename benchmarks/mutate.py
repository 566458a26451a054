"""Many models that are wrong in some way, given to bnfold: each must be read or refused, in time and without a crash.

    python benchmarks/mutate.py --count 100000 --seed 7
    python benchmarks/mutate.py --count 2000 --depth run     runs the model and the folded one as well
    python benchmarks/mutate.py --write 1234                 writes the model of that number to model_1234.onnx

The originals are models/*.onnx and those of tests/cases; tests/mutants says how they are changed. A mutant runs in a
process that the system ends after --seconds, whatever it is doing then. Exit status 1 if there is any fault; one found
here belongs in tests/mutants.
"""

from __future__ import annotations

import argparse
import collections
import mmap
import os
import pickle
import resource
import signal
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import chain
from pathlib import Path
from typing import BinaryIO

sys.path.insert(0, str(Path(__file__).parents[1]))
sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from mutants.examine import Depth, examine
from mutants.mutations import mutant
from mutants.originals import originals

_MEMORY = 4 << 30  # bytes of a process
_SHOWN = 5  # models of each kind

Made = Callable[[int], bytes]
Target = Callable[[bytes], str]


def main() -> int:
    """Exit status 1 if there is any fault."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--depth", choices=[depth.value for depth in Depth], default="fold", help="what is done with it"
    )
    options = with_options(parser).parse_args()
    models = originals()
    made, target = partial(mutant, models), partial(examine, depth=Depth(options.depth))
    return run(options, made, target, f"mutants of {len(models)} models")


def with_options(parser: argparse.ArgumentParser) -> argparse.ArgumentParser:
    """Those of `run`."""
    parser.add_argument("--count", type=int, default=5000, help="how many models")
    parser.add_argument("--seed", type=int, default=0, help="which of them: another number, others")
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--seconds", type=float, default=10.0, help="for one of them")
    parser.add_argument("--write", type=int, nargs="+", help="models, by the numbers that a run has printed")
    return parser


def run(options: argparse.Namespace, made: Made, target: Target, what: str) -> int:
    """Makes models by their numbers and gives them to a target; 1 if it says anything but `ok: …`, or does not end."""
    if options.write:
        for number in options.write:
            Path(f"model_{number}.onnx").write_bytes(made(number))
        return 0
    start = time.perf_counter()
    first = options.seed * 10_000_000
    numbers = range(first, first + options.count)
    shares = [_Share(made, target, numbers[k :: options.workers], options.seconds) for k in range(options.workers)]
    with ThreadPoolExecutor(options.workers) as threads:  # a process waits while nobody reads what it has found
        found = _merged(chain.from_iterable(threads.map(lambda share: list(share.outcomes()), shares)))
    print(f"{options.count} {what} in {time.perf_counter() - start:.0f} s")
    for kind, those in sorted(found.items(), key=lambda item: -len(item[1])):
        print(f"{len(those):8} {kind}" if kind.startswith("ok: ") else f"{len(those):8} {kind}: {those[:_SHOWN]}")
    return int(any(not kind.startswith("ok: ") for kind in found))


def _merged(outcomes: Iterable[tuple[str, int]]) -> dict[str, list[int]]:
    found = collections.defaultdict(list)
    for kind, number in outcomes:
        found[kind].append(number)
    return found


class _Share:
    """Some models, one after the other, in a process that is started anew where it ends early."""

    def __init__(self, made: Made, target: Target, numbers: range, seconds: float) -> None:
        self._made, self._target = made, target
        self._numbers, self._seconds = numbers, seconds
        self._at = mmap.mmap(-1, 8)  # shared with the process: how many it has begun
        self._start(0)

    def outcomes(self) -> Iterator[tuple[str, int]]:
        """What came of each."""
        while True:
            try:
                yield pickle.load(self._results)
            except EOFError:
                _, status = os.waitpid(self._process, 0)
                self._results.close()
                begun = int.from_bytes(self._at[:], "little")
                if os.WIFSIGNALED(status):
                    name = signal.Signals(os.WTERMSIG(status)).name
                    what = f"more than {self._seconds:g} s" if name == "SIGALRM" else name
                    yield what, self._numbers[begun - 1]
                if begun == len(self._numbers):
                    return
                self._start(begun)

    def _start(self, begun: int) -> None:
        reading, writing = os.pipe()
        self._process = os.fork()
        if not self._process:
            os.close(reading)
            with open(writing, "wb") as results:
                self._work(begun, results)
            os._exit(0)
        os.close(writing)
        self._results = open(reading, "rb")  # noqa: SIM115 -- until the process ends

    def _work(self, begun: int, results: BinaryIO) -> None:
        resource.setrlimit(resource.RLIMIT_AS, (_MEMORY, _MEMORY))
        signal.signal(signal.SIGALRM, signal.SIG_DFL)  # the system ends the process, wherever it is
        for position in range(begun, len(self._numbers)):
            number = self._numbers[position]
            self._at[:] = (position + 1).to_bytes(8, "little")
            signal.setitimer(signal.ITIMER_REAL, self._seconds)
            outcome = self._target(self._made(number))
            signal.setitimer(signal.ITIMER_REAL, 0)
            pickle.dump((outcome, number), results)
            results.flush()


if __name__ == "__main__":
    raise SystemExit(main())
