"""`bnfold optimize --no-verify` beside the tools that people use today: CPU time, peak memory, what is left.

    python benchmarks/optimize.py [--models FOLDER] [--work FOLDER] [--rounds N] > benchmarks/results/optimize.md

Every tool runs as a process of its own, round after round (A B C A B C), and the figures are medians. So what a
busy machine adds, it adds to all of them, and the *ratios* mean something where seconds do not. This process imports
nothing large on purpose: a child's peak memory, as the system counts it, is never less than its parent's.
"""

from __future__ import annotations

import argparse
import compileall
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from statistics import median

_ROOT = Path(__file__).resolve().parent.parent
_MEGA = 1e6
_LARGEST_INLINE = 9 * 1024**2 * 4  # bytes of the largest tensor in generate.py's inline model
_SLOW = 30  # seconds; a tool that takes longer runs once
_ORT = """import sys, onnxruntime as ort
options = ort.SessionOptions()
options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
options.optimized_model_filepath = sys.argv[2]
options.log_severity_level = 4
ort.InferenceSession(sys.argv[1], options, providers=["CPUExecutionProvider"])
"""


@dataclass(frozen=True)
class Usage:
    """What a process took: seconds of processor and of clock, and bytes of memory at its peak."""

    cpu: float
    wall: float
    peak: float


def tools() -> dict[str, list[str]]:
    """The command of each tool that is installed, to be followed by a model and an output."""
    python = sys.executable
    found = {"cp": ["cp"], "bnfold": [python, str(_ROOT / "cli.py"), "optimize", "--no-verify", "-q"]}
    peers = {
        "onnxslim": [python, "-m", "onnxslim"],
        "onnxsim": [python, "-m", "onnxsim"],
        "onnxruntime": [python, "-c", _ORT],
    }
    return found | {name: command for name, command in peers.items() if _version(name)}


def main() -> None:
    """Measures and prints a report in Markdown."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--models", type=Path, help="a folder of models to compare on as well")
    parser.add_argument("--work", type=Path, help="where to keep the generated models (2 GB) for the next time")
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)  # an installed package is compiled, and so shall this one be
    compileall.compile_dir(_ROOT / "bnfold", quiet=2)
    with tempfile.TemporaryDirectory(dir=arguments.work) as folder:
        outputs = Path(folder) / "outputs"
        outputs.mkdir()
        for line in _report(arguments.work or Path(folder), outputs, arguments.models, arguments.rounds):
            print(line, flush=True)


def _report(work: Path, outputs: Path, models: Path | None, rounds: int) -> Iterator[str]:
    yield f"{_versions()}. Medians of {rounds} interleaved rounds (one, for a tool that takes over {_SLOW} s)."
    yield "Left: BatchNormalizations in the result."
    yield from _comparison("ResNet-50, 102 MB", _generated(work, "resnet50"), outputs, rounds)
    yield f"\nGoals: at most 0.35 CPU s and 80 MB where the reference machine's `cp` takes 0.03 ({_speed()})."
    yield from _comparison("Inline model, 1.5 GB", _generated(work, "inline"), outputs, rounds)
    limit = 100 + 2 * _LARGEST_INLINE / _MEGA
    yield f"\nGoals: at most 6 × `cp` and {limit:.0f} MB (100 MB and twice the largest tensor)."
    yield from _scaling(work, outputs, rounds)
    yield from _start_up(rounds * 4)
    if models is not None:
        yield from _left_over(models, outputs)


# --- tables --------------------------------------------------------------------------------------------------


def _comparison(title: str, model: Path, outputs: Path, rounds: int) -> Iterator[str]:
    yield f"\n## {title}\n"
    yield "| tool | CPU s | × cp | wall s | peak MB | left |"
    yield "| --- | --- | --- | --- | --- | --- |"
    taken: dict[str, list[Usage]] = {name: [] for name in tools()}
    left: dict[str, str] = {}
    for _ in range(rounds):
        for name, usages in taken.items():
            if any(usage.wall > _SLOW for usage in usages):
                continue
            usage, left[name] = _optimized(name, model, outputs)
            if usage is not None:
                usages.append(usage)
    base = _medians(taken["cp"])
    for name, usages in taken.items():
        if not usages:
            yield f"| {name} | failed | | | | |"
            continue
        usage = _medians(usages)
        figures = f"{usage.cpu:.2f} | {usage.cpu / base.cpu:.1f} | {usage.wall:.2f} | {usage.peak / _MEGA:.0f}"
        yield f"| {name} | {figures} | {left[name]} |"


def _scaling(work: Path, outputs: Path, rounds: int) -> Iterator[str]:
    yield "\n## Many nodes\n"
    yield "| nodes | CPU s | peak MB | left |"
    yield "| --- | --- | --- | --- |"
    models = {count: _generated(work, "nodes", count) for count in (100_000, 1_000_000)}
    medians = {}
    for count, model in models.items():
        results = [_optimized("bnfold", model, outputs) for _ in range(max(1, rounds // 2))]
        usages = [usage for usage, _ in results if usage is not None]
        if not usages:
            yield f"| {count:,} | failed | | |"
            return
        medians[count] = usage = _medians(usages)
        yield f"| {count:,} | {usage.cpu:.2f} | {usage.peak / _MEGA:.0f} | {results[0][1]} |"
    few, many = medians.values()
    ratio = many.cpu / few.cpu
    yield f"\nTen times the nodes take {ratio:.1f} times as long. Goals: 2 s for 100,000 nodes, at most 12 times."


def _start_up(rounds: int) -> Iterator[str]:
    yield "\n## Start-up\n"
    yield "| command | wall ms |"
    yield "| --- | --- |"
    commands = {
        "python -c pass": [sys.executable, "-c", "pass"],
        "python -c 'import click'": [sys.executable, "-c", "import click"],
        "bnfold --version": [sys.executable, str(_ROOT / "cli.py"), "--version"],
        "python -c 'import onnx'": [sys.executable, "-c", "import onnx"],
    }
    taken: dict[str, list[Usage]] = {name: [] for name in commands}
    for _ in range(rounds):
        for name, command in commands.items():
            if usage := run(command):
                taken[name].append(usage)
    for name, usages in taken.items():
        yield f"| `{name}` | {_medians(usages).wall * 1000:.0f} |"


def _left_over(models: Path, outputs: Path) -> Iterator[str]:
    names = [name for name in tools() if name != "cp"]
    yield f"\n## BatchNormalizations left\n\n| model | before | {' | '.join(names)} |"
    yield "| --- " * (len(names) + 2) + "|"
    for model in sorted(models.glob("*.onnx")):
        counts = [_optimized(name, model, outputs)[1] or "failed" for name in names]
        yield f"| {model.stem} | {_count(model)} | {' | '.join(counts)} |"


# --- measuring -----------------------------------------------------------------------------------------------


def run(command: Sequence[str]) -> Usage | None:
    """Runs a process to its end; None if it fails."""
    start = time.perf_counter()
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        _, status, used = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    wall = time.perf_counter() - start
    return Usage(used.ru_utime + used.ru_stime, wall, used.ru_maxrss * 1024) if process.returncode == 0 else None


def _optimized(name: str, model: Path, outputs: Path) -> tuple[Usage | None, str]:
    """What the tool takes for the model, and how many BatchNormalizations it leaves."""
    out = outputs / "out.onnx"
    command = tools()[name]
    arguments = [str(model), "-o", str(out)] if name == "bnfold" else [str(model), str(out)]
    usage = run([*command, *arguments])
    left = _count(out) if usage is not None and out.exists() else ""
    for path in outputs.iterdir():  # data files too
        path.unlink()
    return usage, left


def _medians(usages: Sequence[Usage]) -> Usage:
    return Usage(*(median(getattr(usage, field) for usage in usages) for field in ("cpu", "wall", "peak")))


def _generated(work: Path, kind: str, *arguments: int) -> Path:
    path = work / f"bench-{'-'.join(map(str, (kind, *arguments)))}.onnx"
    if not path.exists():
        _generate([kind, str(path), *map(str, arguments)])
    return path


def _count(model: Path) -> str:
    return _generate(["count", str(model)])


def _generate(arguments: Sequence[str]) -> str:
    command = [sys.executable, str(_ROOT / "benchmarks" / "generate.py"), *arguments]
    return subprocess.run(command, check=True, text=True, stdout=subprocess.PIPE).stdout.strip()


# --- what it ran on ------------------------------------------------------------------------------------------


def _speed() -> str:
    taken = [run([sys.executable, "-c", "import onnx"]) for _ in range(5)]
    here = median(usage.cpu for usage in taken if usage is not None)
    return f"importing numpy and onnx takes 0.143 s there, {here:.3f} s here"


def _versions() -> str:
    names = ("onnx", "onnxruntime", "numpy", "click", "onnxslim", "onnxsim")
    packages = ", ".join(f"{name} {_version(name) or 'missing'}" for name in names)
    command = [sys.executable, str(_ROOT / "cli.py"), "--version"]
    bnfold = subprocess.run(command, text=True, stdout=subprocess.PIPE, check=True)
    machine = f"{platform.system()} {platform.machine()}, {os.cpu_count()} processors"
    return f"{bnfold.stdout.strip()}; {packages}; Python {platform.python_version()}; {machine}"


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return ""


if __name__ == "__main__":
    main()
