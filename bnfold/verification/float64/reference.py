"""Operators that are left to ONNX's reference implementation, one at a time."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
from onnx import helper

from bnfold.graph import Op
from bnfold.verification.float64.kernel import NotComputed, as_real

if TYPE_CHECKING:
    from onnx.reference import ReferenceEvaluator

_GATES = {"LSTM": [b"Sigmoid", b"Tanh", b"Tanh"], "GRU": [b"Sigmoid", b"Tanh"], "RNN": [b"Tanh"]}
_PASSED_OVER = ("activation_alpha", "activation_beta", "clip", "input_forget")
_OLD_MODES = {b"bilinear": b"linear", b"bicubic": b"cubic"}  # which onnx.reference knows by the new names only


def refuse_passed_over(op: Op, inputs: Sequence[Any]) -> None:
    """Refuses the forms of recurrent operators that onnx.reference takes for the usual one."""
    if (usual := _GATES.get(op.type)) is None:
        return
    gates = list(op.attribute("activations") or usual)
    if gates != usual * (len(gates) // len(usual)) or any(op.attribute(name) for name in _PASSED_OVER):
        raise NotComputed("other activations, clip or input_forget")
    if len(inputs) > 4 and inputs[4] is not None:
        raise NotComputed("sequence lengths")


def cropped(op: Op, inputs: Sequence[Any]) -> Sequence[Any]:
    """The inputs of a Pad that takes something away, which onnx.reference knows nothing of: that is gone already."""
    if op.type != "Pad" or op.opset < 11 or op.attribute("mode", b"constant") != b"constant" or min(inputs[1]) >= 0:
        return inputs
    x, pads, *others = inputs
    axes = others[1] if len(others) > 1 and others[1] is not None else range(np.ndim(x))
    for axis, low, high in zip(axes, *np.minimum(pads, 0).reshape(2, -1), strict=True):
        x = np.swapaxes(np.swapaxes(x, 0, axis)[-low : x.shape[axis] + high], 0, axis)
    return [x, np.maximum(pads, 0), *others]


def one_node(op: Op, inputs: Sequence[Any]) -> ReferenceEvaluator:
    from onnx.reference import ReferenceEvaluator  # noqa: PLC0415 -- takes long, and most networks do without

    node = onnx.NodeProto()
    node.CopyFrom(op.node)
    del node.input[:], node.output[:]
    node.input.extend("" if value is None else f"i{number}" for number, value in enumerate(inputs))
    node.output.extend("" if value is None else f"o{number}" for number, value in enumerate(op.outputs))
    for attribute in node.attribute:
        if op.type == "GridSample" and attribute.s in _OLD_MODES:
            attribute.s = _OLD_MODES[attribute.s]
        if attribute.name == "dtype":
            attribute.i = helper.np_dtype_to_tensor_dtype(as_real(helper.tensor_dtype_to_np_dtype(attribute.i)))
    entries = [
        helper.make_tensor_value_info(f"i{number}", _elem_type(value), None)
        for number, value in enumerate(inputs)
        if value is not None
    ]
    outputs = [helper.make_empty_tensor_value_info(name) for name in node.output if name]
    opsets = [helper.make_opsetid(domain, version) for domain, version in op.scope.opsets.items()]
    graph = helper.make_graph([node], "one", entries, outputs)
    return ReferenceEvaluator(helper.make_model(graph, opset_imports=opsets))


def _elem_type(value: Any) -> int:
    if isinstance(value, np.ndarray | np.generic) and value.dtype.kind not in "UO":
        return int(helper.np_dtype_to_tensor_dtype(value.dtype))
    return int(onnx.TensorProto.STRING)
