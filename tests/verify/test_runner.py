"""The child processes that models run in."""

from importlib import import_module

import numpy as np
import onnx

from bnfold.model_io import load
from bnfold.verify.running.runner import Job, Limits, Runner

runner = import_module("bnfold.verify.running.runner")  # the attribute `bnfold.verify` is the verb


def test_a_large_model_has_a_process_for_itself(tmp_path, monkeypatch):
    """One after the other, so that all memory of one session is free before the next; the results are the same."""
    path, weights = tmp_path / "model.onnx", np.ones((64, 64), np.float32)
    model = onnx.parser.parse_model(
        '<ir_version: 8, opset_import: ["": 17]> n (float[N,64] x) => (float[N,64] y) { y = MatMul(x, w) }'
    )
    model.graph.initializer.append(onnx.numpy_helper.from_array(weights, "w"))
    onnx.save(model, path)
    job = Job(path, [{"x": np.ones((1, 64), np.float32)}])
    starts: list[object] = []
    spawn = runner._spawn
    monkeypatch.setattr(runner, "_spawn", lambda *arguments: starts.append(arguments) or spawn(*arguments))
    for limit, processes in ((weights.nbytes, 1), (weights.nbytes - 1, 3)):
        monkeypatch.setattr(runner, "_LARGE", limit)
        starts.clear()
        with Runner(Limits()) as child:
            results = child.run([Job(child.file_of(path, load(path)), job.feeds)] * 3)
        assert [run.arrays["y"][0, 0] for (run,) in results] == [64.0] * 3
        assert len(starts) == processes
