"""Killed before every system call that changes a file, and a full disk at each of them: is every model still whole?

    python benchmarks/kills.py [SCENARIO...] > benchmarks/results/kills.md        # Linux, with strace

A scenario is a command and the folder that it works in. It runs once to see which system calls change files, and to
know the right end. Then, for each of those calls and in a fresh copy of the folder, it is killed right before the call,
and once more the call fails for want of space; and files may not grow beyond a number of sizes. Each time the old
output must be there with all its data, or the new one; and when the command is repeated, all must be as if nothing had
happened, with no temporary file left. Ten minutes for all; exits with 1 if anything is wrong.
"""

from __future__ import annotations

import json
import os
import re
import resource
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import onnx

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.generate import Network
from bnfold.model_io import load, staged

_ROOT = Path(__file__).resolve().parent.parent
_CLI = [sys.executable, str(_ROOT / "cli.py")]
_CHANGES = [
    *("openat", "creat", "write", "writev", "pwrite64", "pwritev", "copy_file_range", "sendfile", "ftruncate"),
    *("truncate", "fallocate", "rename", "renameat", "renameat2", "link", "linkat", "symlink", "symlinkat"),
    *("unlink", "unlinkat", "mkdir", "mkdirat", "rmdir", "chmod", "fchmod", "fchmodat"),
]
_WRITES = re.compile(r"O_(WRONLY|RDWR|CREAT|TRUNC)")
_KILLED = -9

Contents = dict[str, bytes]


# --- what is done ----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Scenario:
    """A command, and what is in its folder before."""

    arguments: Sequence[str]
    prepare: Sequence[Callable[[Path], None]]


def inline(folder: Path) -> None:
    """A model with two layers to fold, and a large weight that stays as it is and can be copied by the system."""
    net = Network(["N", 3, 8, 8])
    net.conv_bn(3, 64, 3)
    net.add("Relu")
    net.conv_bn(64, 64, 3)
    net.add("Flatten")
    net.add("Gemm", np.full((4096, 128), 0.001, np.float32), np.zeros(128, np.float32))
    net.save(str(folder / "model.onnx"), ["N", 128])


def outside(folder: Path) -> None:
    """The same with a data file of the user's."""
    inline(folder)
    proto = onnx.load(folder / "model.onnx")
    onnx.save(proto, folder / "model.onnx", save_as_external_data=True, location="weights.bin", size_threshold=512)


def ours(folder: Path) -> None:
    """The same with a data file that bnfold made."""
    outside(folder)
    with staged(load(folder / "model.onnx"), folder / "model.onnx"):
        pass
    (folder / "weights.bin").unlink()


def existing(folder: Path) -> None:
    """An output of an earlier run, of another model."""
    with staged(load(folder / "model.onnx"), folder / "out.onnx"):
        pass


def samples(folder: Path) -> None:
    """Data to calibrate on."""
    np.save(folder / "data.npy", np.random.default_rng(0).normal(size=(8, 3, 8, 8)).astype(np.float32))


_TO_OUT = ("optimize", "model.onnx", "-o", "out.onnx")
_IN_PLACE = ("optimize", "model.onnx", "--in-place", "--no-verify")
SCENARIOS = {
    "inline": Scenario((*_TO_OUT, "--no-verify"), [inline]),
    "inline-existing": Scenario((*_TO_OUT, "--no-verify"), [inline, existing]),
    "inline-in-place": Scenario(_IN_PLACE, [inline]),
    "inline-verified": Scenario(_TO_OUT, [inline, existing]),
    "data": Scenario((*_TO_OUT, "--no-verify"), [outside]),
    "data-existing": Scenario((*_TO_OUT, "--no-verify"), [outside, existing]),
    "data-in-place": Scenario(_IN_PLACE, [outside]),
    "data-ours-in-place": Scenario(_IN_PLACE, [ours]),
    "data-verified": Scenario(_TO_OUT, [outside, existing]),
    "certificate": Scenario((*_TO_OUT, "--no-verify", "--certificate", "out.json"), [inline]),
    "calibrate": Scenario(("calibrate", "model.onnx", "--data", "data.npy", "-o", "out.onnx"), [outside, samples]),
}


# --- what becomes of it ----------------------------------------------------------------------------------------


@dataclass
class Tally:
    """What was seen of a scenario."""

    calls: int = 0
    killed: int = 0
    failed: int = 0
    limited: int = 0
    old: int = 0
    new: int = 0
    swept: int = 0
    wrong: list[str] = field(default_factory=list)

    def row(self, name: str) -> str:
        """A row of the table."""
        counts = (self.calls, self.killed, self.failed, self.limited, self.old, self.new, self.swept, len(self.wrong))
        return f"| {name} | {' | '.join(map(str, counts))} |"


class Trial:
    """A scenario in a folder of its own, with another for temporary files."""

    def __init__(self, scenario: Scenario, work: Path) -> None:
        self._arguments = scenario.arguments
        self._work = work
        self._template = work / "template"
        self._template.mkdir()
        for step in scenario.prepare:
            step(self._template)
        self.before = contents(self._template)
        self.reset()
        assert self.run() == 0, "the command itself fails"
        self.after = contents(self.folder)

    @property
    def folder(self) -> Path:
        """Where the command works."""
        return self._work / "folder"

    @property
    def temporary(self) -> Path:
        """Where its temporary files go."""
        return self._work / "tmp"

    def reset(self) -> None:
        """Everything as it was before."""
        for path in (self.folder, self.temporary):
            shutil.rmtree(path, ignore_errors=True)
        shutil.copytree(self._template, self.folder)
        self.temporary.mkdir()

    def run(self, *wrapper: str, limit: int | None = None) -> int:
        """The exit code of the command, perhaps with a limit on the size of files."""
        environment = os.environ | {"TMPDIR": str(self.temporary), "PYTHONDONTWRITEBYTECODE": "1"}
        command = [*wrapper, *_CLI, *self._arguments, "--quiet"]
        done = subprocess.run(
            command,
            cwd=self.folder,
            env=environment,
            stderr=subprocess.PIPE,
            check=False,
            preexec_fn=None if limit is None else lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit)),
        )
        lines = [line for line in done.stderr.decode().splitlines() if line != "+++ killed by SIGKILL +++"]
        assert done.returncode in (0, 2, _KILLED), lines
        assert len(lines) == (done.returncode == 2), lines
        return done.returncode

    def calls(self) -> Iterator[tuple[str, int]]:
        """Each system call that changes a file here, by its name and its number among all of that name."""
        self.reset()
        log = self._work / "log"
        self.run("strace", "-y", "-s", "500", "-o", str(log), "-e", f"trace={','.join(_known())}")
        seen: dict[str, int] = {}
        for line in log.read_text(errors="replace").splitlines():
            name = line.partition("(")[0]
            seen[name] = seen.get(name, 0) + 1
            here = str(self.folder) in line or str(self.temporary) in line
            if here and (name != "openat" or _WRITES.search(line)):
                yield name, seen[name]

    def look(self, tally: Tally, what: str) -> None:
        """Judges what is left after something went wrong, repeats the command, and judges what is left then."""
        left = contents(self.folder)
        is_new = all(left.get(name) == content for name, content in self.after.items() if name.endswith(".onnx"))
        tally.new += is_new
        tally.old += not is_new
        whole = self.after if is_new and not self._lacks_only_certificate(left) else self.before
        tally.wrong += [f"{what}: {name} is not whole" for name in whole if left.get(name) != whole[name]]
        tally.swept += bool(set(left) - set(self.before) - set(self.after) or list(self.temporary.glob("bnfold-*")))
        if self.run() != 0:
            tally.wrong.append(f"{what}: the next run fails")
        if (end := contents(self.folder)) != self.after:
            tally.wrong.append(f"{what}: the next run leaves {sorted(set(end) ^ set(self.after)) or 'other contents'}")
        if left_over := [path.name for path in self.temporary.glob("bnfold-*")]:
            tally.wrong.append(f"{what}: the next run leaves {left_over} among temporary files")

    def _lacks_only_certificate(self, left: Contents) -> bool:
        """It is written when the model counts."""
        return {name for name in self.after if name not in left} == {"out.json"}


def campaign(scenario: Scenario, work: Path) -> Tally:
    """All that can go wrong, one by one."""
    tally, trial = Tally(), Trial(scenario, work)
    calls = list(trial.calls())
    tally.calls = len(calls)
    for name, number in calls:
        for effect in ("signal=SIGKILL", "error=ENOSPC"):
            trial.reset()
            trace = ("strace", "-qq", "-o", "/dev/null", "-e", f"trace={name}")
            code = trial.run(*trace, "-e", f"inject={name}:{effect}:when={number}")
            tally.killed += code == _KILLED and effect == "signal=SIGKILL"
            tally.failed += code == 2
            trial.look(tally, f"{name} number {number}, {effect}")
    for limit in _sizes(trial.after):
        trial.reset()
        tally.limited += trial.run(limit=limit) == 2
        trial.look(tally, f"no file over {limit} bytes")
    return tally


def contents(folder: Path) -> Contents:
    """The files of a folder; a certificate as the JSON that it must be."""
    found = {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}
    whole = {name for name in found if name.endswith(".json") and not name.startswith(".")}  # not what a kill left
    return {name: _parsed(data) if name in whole else data for name, data in found.items()}


def _parsed(data: bytes) -> bytes:
    return json.dumps(sorted(json.loads(data))).encode()


def _sizes(after: Contents) -> list[int]:
    most = max(map(len, after.values()))
    return [0, 1, 1000, 10_000, *(most * part // 4 for part in range(1, 4)), most - 1]


def _known() -> list[str]:
    """Those of the calls that this machine has: others have no `rename`, but a `renameat`."""
    probes = ((name, ["strace", "-o", "/dev/null", "-e", f"trace={name}", "true"]) for name in _CHANGES)
    run = {name: subprocess.run(probe, stderr=subprocess.DEVNULL, check=False) for name, probe in probes}
    return [name for name, done in run.items() if done.returncode == 0]


def main() -> None:
    """Runs the scenarios, and prints a table in Markdown."""
    print("| scenario | calls | killed | no space | too large | old | new | swept | wrong |\n" + "| --- " * 9 + "|")
    wrong = []
    for name in sys.argv[1:] or SCENARIOS:
        with tempfile.TemporaryDirectory() as work:
            tally = campaign(SCENARIOS[name], Path(work))
        print(tally.row(name), flush=True)
        wrong += [f"{name}: {line}" for line in tally.wrong]
    print("\n".join(wrong), file=sys.stderr)
    sys.exit(bool(wrong))


if __name__ == "__main__":
    main()
