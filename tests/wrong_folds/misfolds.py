"""Folds that should not have been made, or not like this: faults that are not in the weights of one operator alone."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import helper, numpy_helper

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class Place:
    """A folded operator, in copies of both models.

    Attributes:
        before: The model that was folded.
        after: The model that came of it.
        old: The operator in ``before``.
        new: The same in ``after``.
        random: For what is made up.
    """

    before: onnx.ModelProto
    after: onnx.ModelProto
    old: onnx.NodeProto
    new: onnx.NodeProto
    random: np.random.Generator


def label(node: onnx.NodeProto) -> str:
    return node.name or node.output[0]


def misfolded(
    before: onnx.ModelProto, after: onnx.ModelProto, node: onnx.NodeProto, fault: str, random: np.random.Generator
) -> tuple[onnx.ModelProto, onnx.ModelProto] | None:
    """Two models of which one is no fold of the other, by one operator; None where the fault does not apply."""
    models = onnx.ModelProto(), onnx.ModelProto()
    for copy, model in zip(models, (before, after), strict=True):
        copy.CopyFrom(model)
    old, new = (_found(model, node) for model in models)
    if old is None or new is None or not MISFOLDS[fault](Place(*models, old, new, random)):
        return None
    return models


def _found(model: onnx.ModelProto, node: onnx.NodeProto) -> onnx.NodeProto | None:
    alike = (other for other in model.graph.node if other.op_type == node.op_type and label(other) == label(node))
    return next(alike, None)


def _tensor(model: onnx.ModelProto, node: onnx.NodeProto, index: int) -> onnx.TensorProto | None:
    name = node.input[index] if index < len(node.input) else ""
    return next((tensor for tensor in model.graph.initializer if tensor.name == name), None)


def _attribute(node: onnx.NodeProto, name: str, default: Any) -> Any:
    return next((helper.get_attribute_value(entry) for entry in node.attribute if entry.name == name), default)


def _add(tensor: onnx.TensorProto, values: Array) -> None:
    array = numpy_helper.to_array(tensor)
    tensor.CopyFrom(numpy_helper.from_array((array + values).astype(array.dtype), tensor.name))


def _beta_ignored(place: Place) -> bool:
    """The bias of a Gemm is folded as if it were added once: s * C, where s * beta * C is right."""
    beta = _attribute(place.old, "beta", 1.0)
    found = [_tensor(*side, index) for side in _sides(place) for index in (1, 2)]
    tensors = [tensor for tensor in found if tensor is not None]
    if place.old.op_type != "Gemm" or beta == 1 or len(tensors) < len(found):
        return False
    weight, bias, folded, _ = (numpy_helper.to_array(tensor).astype(np.float64) for tensor in tensors)
    inputs = 1 if _attribute(place.old, "transB", 0) else 0
    scale = (weight * folded).sum(axis=inputs) / (weight**2).sum(axis=inputs)
    _add(tensors[3], (1 - beta) * scale * bias)
    return True


def _shift_meets_padding(place: Place) -> bool:
    """W * (x + b) becomes W * x + sum(W b), also where W meets padding, which b was not added to."""
    weight, bias = (_tensor(place.after, place.new, index) for index in (1, 2))
    if place.new.op_type != "Conv" or place.old.input[0] != place.new.input[0] or not _is_padded(place.new):
        return False
    if weight is None or bias is None:
        return False
    kernel, groups = numpy_helper.to_array(weight), _attribute(place.new, "group", 1)
    shift = place.random.standard_normal(kernel.shape[1] * groups).astype(kernel.dtype)
    taps = kernel.astype(np.float64).sum(axis=tuple(range(2, kernel.ndim))).reshape(groups, -1, kernel.shape[1])
    _add(bias, (taps @ shift.reshape(groups, -1, 1)).reshape(-1))
    shape = (-1, *[1] * (kernel.ndim - 2))
    place.before.graph.initializer.append(numpy_helper.from_array(shift.reshape(shape), "the_shift"))
    addition = helper.make_node("Add", [place.old.input[0], "the_shift"], ["the_shifted"])
    place.old.input[0] = "the_shifted"
    place.before.graph.node.insert(list(place.before.graph.node).index(place.old), addition)
    return True


def _is_padded(node: onnx.NodeProto) -> bool:
    return any(_attribute(node, "pads", ())) or _attribute(node, "auto_pad", b"").startswith(b"SAME")


def _training_mode(place: Place) -> bool:
    """A BatchNormalization is folded that normalises with the statistics of its batch."""
    opset = next(entry.version for entry in place.before.opset_import if entry.domain == "")
    ends = place.old.output[0], place.new.output[0]
    folded = (
        node
        for node in place.before.graph.node
        if node.op_type == "BatchNormalization" and (node.input[0], node.output[0]) == ends
    )
    node = next(folded, None)
    if node is None or opset < 14:
        return False
    kept = [entry for entry in node.attribute if entry.name != "training_mode"]
    del node.attribute[:]
    node.attribute.extend([*kept, helper.make_attribute("training_mode", 1)])
    node.output.extend([f"{node.output[0]}_mean", f"{node.output[0]}_var"])
    return True


def _stale_weight(place: Place) -> bool:
    """Of two operators with one weight, one reads what was folded for the other."""
    sharing = (other for other in place.before.graph.node if other is not place.old and len(other.input) > 1)
    twins = [_found(place.after, other) for other in sharing if other.input[1] == place.old.input[1]]
    stale = next((twin.input[1] for twin in twins if twin is not None), place.new.input[1])
    if len(place.old.input) < 2 or stale == place.new.input[1]:
        return False
    place.new.input[1] = stale
    return True


def _bias_between_meets_padding(place: Place) -> bool:
    """V * (W * x + b) becomes (V W) * x + sum(V b), also where V meets padding, which b was not added to."""
    first = next((node for node in place.before.graph.node if place.old.input[0] in node.output), None)
    weight, bias = _tensor(place.before, place.old, 1), _tensor(place.after, place.new, 2)
    if first is None or first.op_type != "Conv" or len(first.input) > 2 or _found(place.after, first) is not None:
        return False
    if weight is None or bias is None or not _is_padded(place.old):
        return False
    kernel = numpy_helper.to_array(weight)
    shift = place.random.standard_normal((kernel.shape[1],)).astype(kernel.dtype)
    _add(bias, kernel.astype(np.float64).sum(axis=tuple(range(2, kernel.ndim))) @ shift)
    place.before.graph.initializer.append(numpy_helper.from_array(shift, "the_shift"))
    first.input.append("the_shift")
    return True


def _mean_of_fewer(place: Place) -> bool:
    """Means that leave padding out are folded as if they counted it."""
    source = place.old.input[0]
    pools = (node for node in place.before.graph.node if node.op_type == "AveragePool" and node.input[0] == source)
    pool = next(pools, None)
    if pool is None or place.new.input[0] != source or not _attribute(pool, "count_include_pad", 0):
        return False
    kept = [entry for entry in pool.attribute if entry.name != "count_include_pad"]
    del pool.attribute[:]
    pool.attribute.extend(kept)
    return True


def _sides(place: Place) -> tuple[tuple[onnx.ModelProto, onnx.NodeProto], ...]:
    return (place.before, place.old), (place.after, place.new)


MISFOLDS: dict[str, Callable[[Place], bool]] = {
    "beta of Gemm ignored": _beta_ignored,
    "shift meets padding": _shift_meets_padding,
    "training mode folded": _training_mode,
    "stale shared weight": _stale_weight,
    "bias between meets padding": _bias_between_meets_padding,
    "mean of fewer values": _mean_of_fewer,
}
