"""Models of a few bytes that ask for any amount of work: does every verb end in time, within its memory?

    python benchmarks/bombs.py                       all of them, a quarter of an hour; Linux
    python benchmarks/bombs.py loops tile --verbs check,verify
    python benchmarks/bombs.py --write FOLDER        only makes the models

Each bomb stands behind a Conv and a BatchNormalization that fold, and has such a pair behind it. The verbs get
--timeout and --memory. They have failed if they take a second more than that beyond what they take for a model without
a bomb (for `optimize` three times the time: it decides, compares and runs; for `verify` twice); if any of their
processes takes a tenth more memory; if they end with another code than 0, 1 or 2, or with more than a line of error; or
if the first BatchNormalization is not folded. Exit status 1 if any failed.

Reading and writing a file is no part of what --timeout bounds: a second for each 10 MB is allowed beside it. On a
machine with other work wall time says little, so what is late by wall time has failed only if it is so by CPU time,
too. What hangs is ended after --patience.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

_ROOT = Path(__file__).resolve().parent.parent
_CLI = [sys.executable, str(_ROOT / "cli.py")]
_ASKED = {"check": 1, "optimize": 3, "fold": 1, "verify": 2, "calibrate": 1, "drift": 1}  # times --timeout
_READING = 1e7  # bytes a second
_LOOK = 0.02  # seconds between two looks at the processes


@dataclass(frozen=True)
class Ended:
    """How a command ended.

    Attributes:
        code: Its exit code.
        seconds: How long it took.
        busy: CPU seconds of all its processes.
        largest: Megabytes of the largest of its processes.
        together: Megabytes of all its processes together, pages that they share counted once.
        said: Standard output.
        lines: Of standard error.
    """

    code: int
    seconds: float
    busy: float
    largest: float
    together: float
    said: str
    lines: list[str]


def main() -> int:
    """Exit status 1 if any limit was broken."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bombs", nargs="*", metavar="BOMB", help="beginnings of names; all by default")
    parser.add_argument("--verbs", default=",".join(_ASKED))
    parser.add_argument("--timeout", type=float, default=5.0)
    parser.add_argument("--memory", type=float, default=1.0, help="gigabytes")
    parser.add_argument("--patience", type=float, default=300.0, help="seconds, then a command is ended")
    parser.add_argument("--write", type=Path, metavar="FOLDER", help="make the models there, and nothing else")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = options.write or Path(temporary)
        with get_context("fork").Pool(1) as pool:  # what a child takes at most is never less than what its parent has
            names = pool.apply(_made, (folder, options.bombs))
        if options.write:
            return 0
        limits = _Limits(options.timeout, options.memory, options.patience)
        verbs = [verb for verb in _ASKED if verb in options.verbs.split(",")]
        return _campaign(folder, ["nothing", *(name for name in names if name != "nothing")], verbs, limits)


@dataclass(frozen=True)
class _Limits:
    timeout: float
    memory: float
    patience: float


def _campaign(folder: Path, names: Sequence[str], verbs: Sequence[str], limits: _Limits) -> int:
    usual: dict[str, Ended] = {}
    faults = 0
    print("| bomb | " + " | ".join(verbs) + " |\n" + "| --- " * (len(verbs) + 1) + "|")
    for name in names:
        cells = []
        for verb in verbs:
            ended, wrong = _tried(folder, name, verb, usual, limits)
            usual.setdefault(verb, ended)
            faults += bool(wrong)
            cell = (
                f"{ended.code}, {ended.seconds:.1f} ({ended.busy:.1f}) s, {ended.largest:.0f} / {ended.together:.0f} MB"
            )
            cells.append(f"{cell} **{'; '.join(wrong)}**" if wrong else cell)
        print(f"| {name} | {' | '.join(cells)} |", flush=True)
    print(f"\n{len(names)} bombs, {faults} faults")
    return int(faults > 0)


def _tried(folder: Path, name: str, verb: str, usual: dict[str, Ended], limits: _Limits) -> tuple[Ended, list[str]]:
    """How a verb ended, and what is wrong with that."""
    ended = _run(_command(folder, name, verb, limits), folder, limits.patience)
    innocent = usual.get(verb, ended)
    files = (folder / f"{name}.onnx").stat().st_size * _ASKED[verb]
    late = min(ended.seconds - innocent.seconds, ended.busy - innocent.busy)
    wrong = ["late"] * (late > _ASKED[verb] * limits.timeout + 1 + files / _READING)
    wrong += ["memory"] * (ended.largest - innocent.largest > limits.memory * 1024 * 1.1)
    wrong += ["exit code"] * (ended.code not in (0, 1, 2))
    wrong += [f"{len(ended.lines)} lines of error"] * (len(ended.lines) > 1)
    is_busy = ended.seconds > 2 * ended.busy  # then time may have run out before anything was decided
    wrong += ["good part"] * (not wrong and not is_busy and verb == "check" and not _good_folds(ended))
    return ended, wrong


def _good_folds(ended: Ended) -> bool:
    if ended.code == 2:
        return True  # refused as a whole, and says so
    entries = json.loads(ended.said)["models"][0]["entries"]
    return any(entry["node"] == "good" and entry["outcome"] == "folded" for entry in entries)


def _command(folder: Path, name: str, verb: str, limits: _Limits) -> list[str]:
    model, folded = folder / f"{name}.onnx", folder / f"{name}.folded.onnx"
    data = ["--data", str(folder / f"{name}.npy")]
    rest = {
        "check": ["check", model, "--format", "json"],
        "optimize": ["optimize", model, "-o", folder / "out.onnx"],
        "fold": ["optimize", model, "-o", folded, "--no-verify"],
        "verify": ["verify", model, folded if folded.exists() else model],
        "calibrate": ["calibrate", model, "-o", folder / "out.onnx", *data],
        "drift": ["drift", model, *data],
    }
    return [*_CLI, *map(str, rest[verb]), "--timeout", str(limits.timeout), "--memory", str(limits.memory)]


def _run(command: Sequence[str], folder: Path, patience: float) -> Ended:
    """Runs a command and looks at its processes until it ends."""
    environment = os.environ | {"TMPDIR": str(folder)}
    with tempfile.TemporaryFile(dir=folder) as out, tempfile.TemporaryFile(dir=folder) as error:
        start = time.monotonic()
        process = subprocess.Popen(command, stdout=out, stderr=error, env=environment, start_new_session=True)
        together = 0.0
        while not (done := os.wait4(process.pid, os.WNOHANG))[0]:
            together = max(together, sum(map(_share, _tree(process.pid))))
            time.sleep(_LOOK)
            if time.monotonic() - start > patience:
                os.killpg(process.pid, signal.SIGKILL)
        seconds = time.monotonic() - start
        process.returncode = os.waitstatus_to_exitcode(done[1])
        said, lines = (_read(file.fileno()) for file in (out, error))
    busy = done[2].ru_utime + done[2].ru_stime
    return Ended(process.returncode, seconds, busy, done[2].ru_maxrss / 1024, together, said, lines.splitlines())


def _read(file: int) -> str:
    os.lseek(file, 0, os.SEEK_SET)
    with open(file, closefd=False, errors="replace") as text:
        return text.read()


def _tree(process: int) -> list[int]:
    """A process and all that descend from it."""
    found = [process]
    for each in found:
        try:
            found += map(int, Path(f"/proc/{each}/task/{each}/children").read_text().split())
        except OSError:  # it has ended
            continue
    return found


def _share(process: int) -> float:
    """Megabytes of a process; of pages that others have too its share."""
    try:
        lines = Path(f"/proc/{process}/smaps_rollup").read_text().splitlines()
    except OSError:
        return 0.0
    return next((int(line.split()[1]) / 1024 for line in lines if line.startswith("Pss:")), 0.0)


def _made(folder: Path, wanted: Sequence[str]) -> list[str]:
    from benchmarks.bomb_models import BOMBS, write  # noqa: PLC0415 -- in the process that makes them

    folder.mkdir(parents=True, exist_ok=True)
    names = [name for name in BOMBS if not wanted or name.startswith(tuple(wanted)) or name == "nothing"]
    for name in names:
        write(BOMBS[name], folder / name)
    return names


if __name__ == "__main__":
    raise SystemExit(main())
