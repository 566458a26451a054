"""How many multiply-adds one run of a model takes, in the operators that folding changes.

An affine operator is one for each element that it makes. What is neither an affine nor an absorbing operator (an
activation, a pooling, a Softmax) counts nothing: folding does not change it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from math import prod

import onnx
from onnx import NodeProto

from bnfold.graph.inference import inferable
from bnfold.model_io.protobuf import copied, parse
from bnfold.model_io.tensors import STANDARD_DOMAINS, bodies

Sizes = Mapping[str, tuple[int, ...]]
MOST_NODES = 200_000
"""Shapes are inferred on a copy of the model: a figure in a table is not worth more than that."""


def macs(model: onnx.ModelProto) -> int | None:
    """For a batch of one, where the model leaves it open; None where a shape is not known, or the model is huge."""
    if model.functions or len(model.graph.node) > MOST_NODES:
        return None
    try:
        sizes = _sizes(model)
        return sum(_of(node, sizes) for node in model.graph.node)
    except (IndexError, KeyError):
        return None


def _of(node: NodeProto, sizes: Sizes) -> int:
    if node.domain not in STANDARD_DOMAINS:
        return 0
    if any(inner.op_type in _COUNTED for body in bodies(node) for inner in body.node):
        raise KeyError(node.op_type)  # how often a body runs is not known
    counted = _COUNTED.get(node.op_type)
    return counted(node, sizes) if counted is not None else 0


def _elements(node: NodeProto, sizes: Sizes) -> int:
    return prod(sizes[node.output[0]])


def _convolution(node: NodeProto, sizes: Sizes) -> int:
    """Each output channel has a kernel over the channels of its group."""
    return _elements(node, sizes) * prod(sizes[node.input[1]][1:])


def _transposed(node: NodeProto, sizes: Sizes) -> int:
    """Each input element is spread by a kernel."""
    return prod(sizes[node.input[0]]) * prod(sizes[node.input[1]][1:])


def _product(node: NodeProto, sizes: Sizes) -> int:
    return _elements(node, sizes) * sizes[node.input[0]][-1]


def _gemm(node: NodeProto, sizes: Sizes) -> int:
    transposed = any(attribute.name == "transA" and attribute.i for attribute in node.attribute)
    return _elements(node, sizes) * sizes[node.input[0]][0 if transposed else -1]


_COUNTED: dict[str, Callable[[NodeProto, Sizes], int]] = {
    "Conv": _convolution,
    "ConvTranspose": _transposed,
    "MatMul": _product,
    "Gemm": _gemm,
    **dict.fromkeys(("BatchNormalization", "Mul", "Add", "Sub", "Div"), _elements),
}


def _sizes(model: onnx.ModelProto) -> Sizes:
    """The shapes of all values that are known whole."""
    asked = inferable(_for_one_sample(copied(model)))
    try:
        graph = asked.inferred().graph
    except Exception:  # it has many, for what it finds invalid
        graph = parse(asked.data).graph
    sizes = {tensor.name: tuple(tensor.dims) for tensor in graph.initializer}
    for entry in (*graph.input, *graph.output, *graph.value_info):
        dims = entry.type.tensor_type.shape.dim
        if entry.type.tensor_type.HasField("shape") and all(dim.HasField("dim_value") for dim in dims):
            sizes.setdefault(entry.name, tuple(dim.dim_value for dim in dims))
    return sizes


def _for_one_sample(model: onnx.ModelProto) -> onnx.ModelProto:
    """Takes an open first size of an input for the batch, and forgets what the file says of inner values."""
    graph = model.graph
    del graph.value_info[:]
    for entry in graph.input:
        dims = entry.type.tensor_type.shape.dim
        if dims and not dims[0].HasField("dim_value"):
            dims[0].dim_value = 1
    for entry in graph.output:
        tensor = entry.type.tensor_type
        if not all(dim.HasField("dim_value") for dim in tensor.shape.dim):
            tensor.ClearField("shape")
    return model
