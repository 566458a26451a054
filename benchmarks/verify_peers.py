"""What `bnfold verify` says of what other tools make of real models, beside a referee that is independent of it.

    python benchmarks/verify_peers.py --peers PYTHON [--log FILE] [--seconds N] [--trained FOLDER] MODEL.onnx ...

PYTHON is that of an environment with onnxslim, onnxsim, onnxoptimizer, onnxscript and onnxruntime (those that it lacks
are left out). Every tool runs in a process of its own on every model, small ones first; then bnfold's own fold is given
some faults (tests/wrong_folds). `bnfold verify` compares region by region, and runs the models where that
leaves the verdict open. Nothing may take longer than a minute; no pair is begun once the time is over.
What is known stands in the log, one line for each pair; a second run goes on where the first ended. Pairs on which
verifier and referee disagree are kept beside the log. The table is printed at the end.
"""

from __future__ import annotations

import argparse
import json
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

import onnx
from wrong_folds.faults import mutants

from bnfold.folding import plan
from bnfold.model_io import load, to_proto

ROOT = Path(__file__).resolve().parents[1]
SHARE = 3  # of the faults, one in so many is tried: others in other models
MINUTE = 60
SLOW = 150  # seconds for the referee in float64, which is asked seldom
SAME, APART = 1e-5, 1e-2  # of max |y| under ONNX Runtime: sure to be rounding, and sure to be none
SAME_64, APART_64 = 2e-5, 1e-3  # the same in float64
BNFOLD = [sys.executable, str(ROOT / "cli.py")]
ORT = """import sys, onnxruntime as ort
options = ort.SessionOptions()
options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_{}
options.optimized_model_filepath = sys.argv[2]
options.log_severity_level = 4
ort.InferenceSession(sys.argv[1], options, providers=["CPUExecutionProvider"])
"""
PEERS = {
    "onnxslim": "import sys, onnx, onnxslim\nonnx.save(onnxslim.slim(sys.argv[1]), sys.argv[2])",
    "onnxsim": "import sys, onnx, onnxsim\nonnx.save(onnxsim.simplify(onnx.load(sys.argv[1]))[0], sys.argv[2])",
    "onnxoptimizer": "import sys, onnx, onnxoptimizer as tool\n"
    "onnx.save(tool.optimize(onnx.load(sys.argv[1]), tool.get_fuse_and_elimination_passes()), sys.argv[2])",
    "onnxscript": "import sys, onnx, onnxscript.optimizer as tool\n"
    "onnx.save(tool.optimize(onnx.load(sys.argv[1])), sys.argv[2])",
    "onnxruntime basic": ORT.format("BASIC"),
    "onnxruntime extended": ORT.format("EXTENDED"),
}
LATE = {"verdict": "late", "reasons": ["no answer in time"]}
COLUMNS = ("pairs", "agree", "false alarms", "misses", "not verified", "referee undecided", "CPU s", "largest")


@dataclass(frozen=True)
class Entry:
    """One pair.

    Attributes:
        tool: What made AFTER.
        model: BEFORE, by its file name.
        verdict: Of `bnfold verify`; `late` if there was none in time.
        cpu: What that took, in seconds.
        truth: `same`, `apart` or `undecided`.
        measured: By how much the outputs differ, relative to max |y|; that in float64 if it was asked.
        told: The first line of the verification.
    """

    tool: str
    model: str
    verdict: str
    cpu: float
    truth: str
    measured: float
    told: str

    @property
    def column(self) -> str:
        if self.verdict not in ("equivalent", "different"):
            return "not verified"
        if self.truth == "undecided":
            return "referee undecided"
        if (self.verdict == "equivalent") == (self.truth == "same"):
            return "agree"
        return "misses" if self.verdict == "equivalent" else "false alarms"


def ran(command: Sequence[object], seconds: float = MINUTE) -> tuple[str | None, float]:
    """What a command prints, None if it fails or takes too long; and the seconds of processor that it took."""
    start = resource.getrusage(resource.RUSAGE_CHILDREN)
    try:
        done = subprocess.run(list(map(str, command)), capture_output=True, text=True, timeout=seconds, check=False)
        said = done.stdout if done.returncode in (0, 1) and done.stdout else None
    except subprocess.TimeoutExpired:
        said = None
    end = resource.getrusage(resource.RUSAGE_CHILDREN)
    return said, end.ru_utime + end.ru_stime - start.ru_utime - start.ru_stime


def made(tool: str, peers: str, model: Path, out: Path) -> bool:
    """Whether the tool made something of the model."""
    if tool == "bnfold":
        ran([*BNFOLD, "optimize", "--no-verify", "-q", model, "-o", out])
    else:
        ran([peers, "-c", PEERS[tool], model, out])
    return out.exists()


def measured(before: Path, after: Path, *, float64: bool = False) -> float | None:
    said, _ = ran(
        [sys.executable, ROOT / "benchmarks" / "referee.py", before, after, *(["--float64"] * float64)],
        SLOW if float64 else MINUTE,
    )
    return None if said is None else float(said)


def truth_of(before: Path, after: Path, verdict: str) -> tuple[str, float]:
    """What is so, as outputs tell; float64 is asked where ONNX Runtime does not settle it, or the verdict differs."""
    found = measured(before, after)
    at_once = "undecided" if found is None else "same" if found <= SAME else "apart" if found >= APART else "undecided"
    if {"equivalent": "same", "different": "apart"}.get(verdict, at_once) == at_once != "undecided":
        return at_once, found or 0.0
    exact = measured(before, after, float64=True)
    if exact is None:
        return "undecided", -1.0 if found is None else found
    return ("same" if exact <= SAME_64 else "apart" if exact >= APART_64 else "undecided"), exact


def verified(tool: str, before: Path, after: Path, name: str, *, is_fault: bool) -> Entry:
    command = [*BNFOLD, "verify", before, after, "--format", "json", "--timeout", MINUTE]
    said, cpu = ran([*command, "--no-run"], 2 * MINUTE)
    report: dict[str, Any] = json.loads(said) if said else LATE
    if report["verdict"] == "not verified" and not is_fault:
        said, more = ran(command, 3 * MINUTE)
        report, cpu = json.loads(said) if said else LATE, cpu + more
    verdict = report["verdict"]
    truth, difference = ("apart", -1.0) if is_fault else truth_of(before, after, verdict)
    return Entry(tool, name, verdict, round(cpu, 2), truth, difference, "; ".join(report["reasons"])[:300])


def pairs(model: Path, peers: str, work: Path, kind: str, done: set[tuple[str, str]]) -> Iterator[Entry]:
    """All pairs of a model that are not known yet."""
    for tool in (*PEERS, "bnfold"):
        out = work / "after.onnx"
        if (tool, model.name) not in done and made(tool, peers, model, out):
            yield verified(tool, model, out, model.name, is_fault=False)
        out.unlink(missing_ok=True)
    if (kind, model.name) in done:
        return
    loaded = load(model)
    before = to_proto(loaded)
    folded = plan(loaded)
    if not folded.changes:
        return
    faults = list(mutants(before, to_proto(folded.model), 1))
    for mutant in faults[model.stat().st_size % SHARE :: SHARE]:
        onnx.save(mutant.before, work / "before.onnx")
        onnx.save(mutant.model, work / "after.onnx")
        yield verified(kind, work / "before.onnx", work / "after.onnx", model.name, is_fault=True)
        (work / "before.onnx").unlink()


def main(options: argparse.Namespace) -> None:
    end = time.monotonic() + options.seconds
    entries = (
        [Entry(**json.loads(line)) for line in options.log.read_text().splitlines()] if options.log.exists() else []
    )
    done = {(entry.tool, entry.model) for entry in entries}
    with tempfile.TemporaryDirectory() as folder, options.log.open("a") as log:
        for model in sorted(options.models, key=lambda path: path.stat().st_size):
            kind = f"faults in {'trained' if model.parent == options.trained else 'random'} models"
            for entry in pairs(model, options.peers, Path(folder), kind, done) if time.monotonic() < end else ():
                entries.append(entry)
                print(json.dumps(asdict(entry)), file=log, flush=True)
                if entry.column not in ("agree", "referee undecided"):
                    keep(options.log.parent / f"pair{len(entries)}", Path(folder), model, entry)
                if time.monotonic() > end:
                    break
    print(table(entries))


def keep(target: Path, work: Path, model: Path, entry: Entry) -> None:
    target.mkdir()
    for name in ("before.onnx", "after.onnx"):
        source = work / name if (work / name).exists() else model
        shutil.copy(source, target / name)
    (target / "entry.json").write_text(json.dumps(asdict(entry), indent=2))


def table(entries: Sequence[Entry]) -> str:
    """A row for each tool, as Markdown."""
    rows: dict[str, list[Entry]] = defaultdict(list)
    for entry in entries:
        rows[entry.tool].append(entry)
        rows["**all**"].append(entry)
    rows["**all**"] = rows.pop("**all**", [])
    lines = [f"| tool | {' | '.join(COLUMNS)} |", "| --- " * (len(COLUMNS) + 1) + "|"]
    for tool, group in rows.items():
        counts = [str(sum(entry.column == column for entry in group)) for column in COLUMNS[1:6]]
        seconds = [f"{sum(entry.cpu for entry in group):.0f}", f"{max((entry.cpu for entry in group), default=0):.1f}"]
        lines.append(f"| {' | '.join([tool, str(len(group)), *counts, *seconds])} |")
    return "\n".join(lines)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="+", type=Path)
    parser.add_argument("--peers", required=True)
    parser.add_argument("--trained", type=Path, help="the folder of those that are trained")
    parser.add_argument("--log", type=Path, default=Path("peers/log.jsonl"))
    parser.add_argument("--seconds", type=float, default=1e9)
    main(parser.parse_args())
