"""What action.yml runs: `bnfold check` of the models that some patterns match.

The report goes to the log with annotations, to the summary of the job, and as JSON to a file; its counts are outputs.
"""

import json
import os
import shlex
import subprocess
import sys
from glob import glob
from pathlib import Path


def main() -> int:
    """The exit code of `bnfold check`; 2 if a pattern matches nothing."""
    patterns = [line.strip() for line in os.environ["MODELS"].splitlines() if line.strip()]
    found = {pattern: sorted(filter(os.path.isfile, glob(pattern, recursive=True))) for pattern in patterns}
    if missing := [pattern for pattern in patterns if not found[pattern]] or [""] * (not patterns):
        told = ascii(missing[0]).replace("%", "%25")
        print(f"::error title=bnfold::no model matches {told}; patterns stand one a line")
        return 2
    models = list(dict.fromkeys(model for paths in found.values() for model in paths))
    folder = Path(os.environ["RUNNER_TEMP"])
    reports = {form: folder / f"bnfold-report.{form}" for form in ("markdown", "github", "json")}
    for report in reports.values():
        report.unlink(missing_ok=True)
    also = [f"--also={form}={report}" for form, report in reports.items()]
    try:
        options = shlex.split(os.environ.get("OPTIONS", ""))
    except ValueError as error:
        print(f"::error title=bnfold::the options cannot be read: {error}")
        return 2
    done = subprocess.run([sys.executable, "-m", "bnfold", "check", *options, *also, "--", *models], check=False)
    if all(report.exists() for report in reports.values()):
        _tell(reports)
    return done.returncode


def _tell(reports: dict[str, Path]) -> None:
    annotations = reports["github"].read_text(encoding="utf-8").splitlines()
    print("\n".join(line for line in annotations if line.startswith("::")), flush=True)
    with open(os.environ["GITHUB_STEP_SUMMARY"], "a", encoding="utf-8") as summary:
        summary.write(f"{reports['markdown'].read_text(encoding='utf-8')}\n")
    models = json.loads(reports["json"].read_text(encoding="utf-8"))["models"]
    counts = [model["batchnorms"] for model in models if not model["error"]]
    outputs = {fate: sum(count[fate] for count in counts) for fate in ("folded", "reduced", "kept")}
    with open(os.environ["GITHUB_OUTPUT"], "a", encoding="utf-8") as stream:
        for name, value in {"models": len(models), **outputs, "report": reports["json"]}.items():
            stream.write(f"{name}={value}\n")


if __name__ == "__main__":
    raise SystemExit(main())
