"""Small models, and what is true of them by numpy's account."""

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Executor, Future
from typing import Any, ParamSpec, TypeVar

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime
from networks import MODELS
from onnx import helper, numpy_helper

TRAIN, TEST, LABELS = (MODELS / f"digits_{name}.npz" for name in ("train", "test", "labels"))

Array = npt.NDArray[Any]
X = np.random.default_rng(0).normal(size=(8, 3, 4, 4)).astype(np.float32)  # samples of three channels
Nodes = Sequence[tuple[str, Mapping[str, Any]]]  # operators and their attributes
_P = ParamSpec("_P")
_T = TypeVar("_T")


def session(model: onnx.ModelProto | str) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    data = model if isinstance(model, str) else model.SerializeToString()
    return onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])


def bn_model(
    channels: int = 3,
    rank: int = 4,
    opset: int = 17,
    kind: npt.DTypeLike = np.float32,
    before: Nodes = (),
    after: Nodes = (),
    *,
    training: bool = False,
    batch: int | None = None,
    **extra: Array,
) -> onnx.ModelProto:
    """`x`, nodes, one BatchNormalization, nodes, `y`; nodes are (op_type, attributes) and chain."""
    number = helper.np_dtype_to_tensor_dtype(np.dtype(kind))
    rng = np.random.default_rng(channels)
    parameters = {
        "gamma": rng.uniform(0.5, 2, channels),
        "beta": rng.normal(size=channels),
        "mean": np.zeros(channels),
        "var": np.ones(channels),
    } | extra
    nodes, value = list[onnx.NodeProto](), "x"
    for index, (op_type, attributes) in enumerate(before):
        nodes.append(helper.make_node(op_type, [value], [f"before_{index}"], **attributes))
        value = f"before_{index}"
    outputs = ["normal"]
    own: dict[str, Any] = {"epsilon": 1e-5}
    if training:
        outputs = ["normal", "new_mean", "new_var"] + ["saved_mean", "saved_var"] * (opset < 14)
        own |= {"training_mode": 1} if opset >= 14 else {}
    nodes.append(helper.make_node("BatchNormalization", [value, "gamma", "beta", "mean", "var"], outputs, "bn", **own))
    value = "normal"
    for index, (op_type, attributes) in enumerate([*after, ("Identity", {})]):
        name = "y" if index == len(after) else f"after_{index}"
        nodes.append(helper.make_node(op_type, [value], [name], **attributes))
        value = name
    initializers = [numpy_helper.from_array(array.astype(kind), name) for name, array in parameters.items()]
    sizes = [batch or "N", channels, *(f"d{axis}" for axis in range(rank - 2))]
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", number, sizes)],
        [helper.make_tensor_value_info("y", number, [None] * rank)],
        initializers,
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)


def statistics_in(model: onnx.ModelProto, name: str = "bn") -> tuple[Array, Array]:
    """Mean and variance that a BatchNormalization of a model holds."""
    tensors = {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    node = next(node for node in model.graph.node if node.name == name)
    return tensors[node.input[3]], tensors[node.input[4]]


def moments(x: npt.ArrayLike) -> tuple[Array, Array]:
    """Mean and biased variance of each channel, in float64."""
    data = np.asarray(x, np.float64)
    axes = tuple(axis for axis in range(data.ndim) if axis != 1)
    return data.mean(axes), data.var(axes)


class Here(Executor):
    """Saves the half second that a child process takes to start."""

    def submit(self, fn: Callable[_P, _T], /, *args: _P.args, **kwargs: _P.kwargs) -> Future[_T]:
        future: Future[_T] = Future()
        try:
            future.set_result(fn(*args, **kwargs))
        except Exception as error:
            future.set_exception(error)
        return future
