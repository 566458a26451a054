"""Runs both models on the inputs beside this file, and prints how far apart they are.

    python replay.py [BEFORE AFTER]

It needs numpy and onnxruntime; what ONNX Runtime cannot run is left to onnx.reference.
"""

import json
import os
import sys
from pathlib import Path
from typing import Any

import numpy as np

os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")  # from 1.32 on it sends events
HERE = Path(__file__).parent
NAMES = json.loads((HERE / "difference.json").read_text(encoding="utf-8"))["names"]


def run(model: str, side: int) -> Any:
    with np.load(HERE / "inputs.npz") as arrays:
        feed = {name: arrays[f"input_{number}"] for number, name in enumerate(NAMES["inputs"])}
    outputs = [names[side] for names in NAMES["outputs"]]
    try:
        import onnxruntime as ort  # noqa: PLC0415

        options = ort.SessionOptions()
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
        session = ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])
        return session.run(outputs, {port.name: feed[port.name] for port in session.get_inputs() if port.name in feed})
    except Exception as error:
        print("onnx.reference in the place of ONNX Runtime:", repr(str(error))[:200])
        from onnx.reference import ReferenceEvaluator  # noqa: PLC0415

        return ReferenceEvaluator(model).run(outputs, feed)


def furthest(old: Any, new: Any, now: tuple[Any, Any]) -> Any:
    """Where two arrays are furthest apart, if possible without overflow now; None if they have other shapes."""
    if old.shape != new.shape:
        return None
    old, new = old.astype(np.float64), new.astype(np.float64)
    with np.errstate(invalid="ignore"):  # infinities
        error = np.nan_to_num(np.abs(old - new), nan=np.inf, posinf=np.inf)
    error = np.where((old == new) | (np.isnan(old) & np.isnan(new)), 0, error)
    if now[0].shape == now[1].shape == old.shape:
        has_overflown = np.isfinite(error) & ~(np.isfinite(now[0]) & np.isfinite(now[1]))
        held = np.where(has_overflown, 0, error)
        error = held if held.any() else error
    return np.unravel_index(error.argmax(), error.shape)


def tell(what: str, old: Any, new: Any, at: Any) -> None:
    if at is None or old.shape != new.shape:
        print(f"{what}: shapes {list(old.shape)} and {list(new.shape)}")
        return
    share = abs(float(old[at]) - float(new[at])) / (float(np.abs(old[np.isfinite(old)]).max(initial=0)) or 1)
    print(f"{what}: {old[at]:.9g} and {new[at]:.9g} at {list(map(int, at))}, {share:.2g} of max |y| apart")


if __name__ == "__main__":
    models = sys.argv[1:] or [str(HERE / "before.onnx"), str(HERE / "after.onnx")]
    sides = [run(model, side) for side, model in enumerate(models)]
    with np.load(HERE / "outputs.npz") as recorded:
        for number, (name, _) in enumerate(NAMES["outputs"]):
            now = sides[0][number], sides[1][number]
            is_known = f"after_{number}" in recorded
            then = (recorded[f"before_{number}"], recorded[f"after_{number}"]) if is_known else now
            at = furthest(*then, now)
            tell(f"{name!r}, as recorded" if is_known else repr(name), *then, at)
            if is_known:
                tell(f"{name!r}, run now", *now, at)
