"""Is the training-mode BatchNormalization of this ONNX Runtime right? Asked on a tiny graph, before it is relied on.

Versions have crashed when an output was omitted, and computed a wrong Y when one was not read. The form that is used
here avoids both; should a version have a third fault, this shows it (or dies in a child process, which is a message).
"""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
import onnxruntime as ort
from onnx import TensorProto, ValueInfoProto, helper

from bnfold.calibration.error import CalibrationError
from bnfold.model_io.protobuf import encoded

_TOLERANCE = 1e-5
_OPSETS: tuple[tuple[int, int, dict[str, Any]], ...] = ((9, 5, {}), (15, 3, {"training_mode": 1}))


@cache
def check_runtime() -> None:
    """Runs once in a process.

    Raises:
        CalibrationError: the statistics, or the output beside them, are wrong.
    """
    x = np.random.default_rng(0).normal(3, 2, (4, 3, 5, 5)).astype(np.float32)
    mean, var = x.mean((0, 2, 3)), x.var((0, 2, 3))
    y = (x - mean[:, None, None]) / np.sqrt(var[:, None, None] + np.float32(1e-5))
    for opset, outputs, attributes in _OPSETS:
        found = _graph(opset, outputs, attributes).run(["y", "mean", "var"], {"x": x})
        for name, is_, should in zip(("output", "mean", "variance"), found, (np.maximum(y, 0), mean, var), strict=True):
            if not np.allclose(is_, should, rtol=_TOLERANCE, atol=_TOLERANCE):
                raise CalibrationError(
                    f"training-mode BatchNormalization of ONNX Runtime {ort.__version__} computes a wrong {name} "
                    f"(opset {opset}): use another version, or --arithmetic"
                )


def _graph(opset: int, outputs: int, attributes: dict[str, Any]) -> ort.InferenceSession:
    """A Relu behind the node, since optimisations around it are where Y went wrong."""
    names = ["raw", "mean", "var", "saved_mean", "saved_var"][:outputs]
    inputs = [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 3, 5, 5])]
    parameters = [helper.make_tensor(n, TensorProto.FLOAT, [3], [v] * 3) for n, v in (("one", 1.0), ("zero", 0.0))]
    nodes = [
        helper.make_node("BatchNormalization", ["x", "one", "zero", "zero", "one"], names, momentum=0.0, **attributes),
        helper.make_node("Relu", ["raw"], ["y"]),
    ]
    results = [ValueInfoProto(name=name) for name in ("y", "mean", "var")]
    graph = helper.make_graph(nodes, "selftest", inputs, results, parameters)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)
    options = ort.SessionOptions()
    options.log_severity_level = 3
    return ort.InferenceSession(encoded(model), options, providers=["CPUExecutionProvider"])
