"""Several results in one line."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from bnfold.optimization.results import Checked, Failed, Told, sizes
from bnfold.page import plural


def checked(results: Sequence[Checked | Failed]) -> str:
    """How many pass."""
    found = sum(isinstance(result, Checked) and not result.ok for result in results)
    failed = sum(isinstance(result, Failed) for result in results)
    parts = [f"{found} with findings"] if found else []
    parts += [f"{failed} failed"] if failed else []
    passed = len(results) - found - failed
    parts += [f"{passed} clean" if parts else "all clean"] if passed else []
    return f"{plural(len(results), 'model')} checked: {', '.join(parts)}"


def optimized(results: Sequence[Told | Failed]) -> str:
    """What came of those that were written, and how many were not."""
    written: list[dict[str, Any]] = [result.to_dict() for result in results if result.ok]
    would = any(model["dry_run"] for model in written)
    line = f"{plural(len(results), 'model')}, {len(written)} {'would be ' if would else ''}written"
    if written:
        folded = sum(model["batchnorms"]["folded"] for model in written)
        batchnorms = sum(sum(model["batchnorms"].values()) for model in written)
        nodes = [sum(model["nodes"][when] for model in written) for when in ("before", "after")]
        size = [sum(model["bytes"][when] for model in written) for when in ("before", "after")]
        line += (
            f": {folded} of {plural(batchnorms, 'BatchNormalization')} folded; {nodes[0]} → {nodes[1]} nodes; "
            f"{sizes(*size)}"
        )
    failed = len(results) - len(written)
    return f"{line}; {failed} failed" if failed else line
