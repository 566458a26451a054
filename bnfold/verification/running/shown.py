"""Of runs of both models, what shows that they are different."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from bnfold.verification.evidence import Evidence, is_written
from bnfold.verification.running.outputs import Run

_UNWRITTEN = "the inputs or outputs are of types that numpy's files do not know"


def of_run(run: Run, names: Mapping[str, str]) -> Evidence | str:
    """The inputs of a run of the whole models in which they differ, or why there are none.

    Args:
        run: Both models as a whole.
        names: Each output of BEFORE with its name in AFTER.
    """
    if run.failed_on is not None:
        feed, outputs = run.failed_on.feed, [(name, renamed, None, None) for name, renamed in names.items()]
        facts: dict[str, Any] = {"inputs": run.failed_on.name, "failure": run.failure}
        return Evidence(feed, outputs, facts) if is_written(feed) else _UNWRITTEN
    worst = max(run.disputes, key=lambda dispute: max(output.max_rel for output in dispute.figures), default=None)
    if worst is None:
        return "no values are known that tell them apart"
    made = [
        (name, renamed, worst.before[name], worst.after[name])
        for name, renamed in names.items()
        if name in worst.before and {worst.before[name].dtype.kind, worst.after[name].dtype.kind} <= set("biuf")
    ]
    facts = {"inputs": worst.sample.name, "how": run.how}
    return Evidence(worst.sample.feed, made, facts) if made and is_written(worst.sample.feed) else _UNWRITTEN
