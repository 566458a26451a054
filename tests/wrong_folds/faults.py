"""Breaks a correct fold in the ways a folder can be wrong."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import numpy_helper

from wrong_folds.misfolds import MISFOLDS, label, misfolded

Array = npt.NDArray[Any]
WEIGHTED = ("Conv", "ConvTranspose", "Gemm", "MatMul")


@dataclass(frozen=True)
class Mutant:
    """A broken fold.

    Attributes:
        fault: What was done to it.
        operator: Name of the operator that it was done to.
        model: The broken model.
        before: The model that it is no fold of.
        alike: Operators that it may be laid to as well, as the model computes the same with the fault in them.
    """

    fault: str
    operator: str
    model: onnx.ModelProto
    before: onnx.ModelProto
    alike: tuple[str, ...] = ()

    def is_pinned_by(self, suspect: str) -> bool:
        """Whether an operator, as a result names it, is the one at fault."""
        return any(repr(name) in suspect for name in (self.operator, *self.alike))


def folded_operators(before: onnx.ModelProto, after: onnx.ModelProto) -> list[onnx.NodeProto]:
    """The operators of ``after`` with weights that ``before`` does not have."""
    old = {(tensor.data_type, content(tensor)) for tensor in before.graph.initializer}
    new = {tensor.name for tensor in after.graph.initializer if (tensor.data_type, content(tensor)) not in old}
    return [node for node in after.graph.node if node.op_type in WEIGHTED and new & set(node.input)]


def content(tensor: onnx.TensorProto) -> bytes:
    return numpy_helper.to_array(tensor).tobytes()


def mutants(before: onnx.ModelProto, after: onnx.ModelProto, operators: int, seed: int = 0) -> Iterator[Mutant]:
    """Every fault that applies, in turn, to some of the folded operators spread over the model."""
    folded = folded_operators(before, after)
    places = sorted({int(at) for at in np.linspace(0, len(folded) - 1, operators)}) if folded else []
    chosen = [folded[number] for number in places]
    random = np.random.default_rng(seed)
    for node in chosen:
        alike = tuple(added_to(after, node))
        for fault in FAULTS:
            if (model := broken(after, node, fault, random)) is not None:
                yield Mutant(fault, label(node), model, before, alike)
        for fault in MISFOLDS:
            if (pair := misfolded(before, after, node, fault, random)) is not None:
                yield Mutant(fault, label(node), pair[1], pair[0], alike)


def added_to(model: onnx.ModelProto, node: onnx.NodeProto) -> Iterator[str]:
    """Operators of the same kind on the same input, whose results go nowhere but into one sum with that of ``node``.

    Of A x + B x, nothing but A + B can be known.
    """
    for other in model.graph.node:
        outputs = {node.output[0], other.output[0]}
        readers = [reader for reader in model.graph.node if outputs & set(reader.input)]
        is_like = (other.op_type, other.input[:1], other.attribute) == (node.op_type, node.input[:1], node.attribute)
        is_sum = [reader.op_type for reader in readers] == ["Add"] and set(readers[0].input) == outputs
        if other is not node and is_like and is_sum and not outputs & {entry.name for entry in model.graph.output}:
            yield label(other)


def broken(
    after: onnx.ModelProto, node: onnx.NodeProto, fault: str, random: np.random.Generator
) -> onnx.ModelProto | None:
    """The model with one fault in one operator; None where the fault does not apply, or changes nothing."""
    tensors = {tensor.name: tensor for tensor in after.graph.initializer}
    if node.input[1] not in tensors:
        return None
    weight = numpy_helper.to_array(tensors[node.input[1]])
    name = node.input[2] if len(node.input) > 2 else ""
    bias = numpy_helper.to_array(tensors[name]) if name in tensors else None
    groups = next((attribute.i for attribute in node.attribute if attribute.name == "group"), 1)
    axis = _output_axis(node)
    made = FAULTS[fault](_Weights(weight, bias, axis, groups, random))
    if made is None:
        return None
    changed = {node.input[1]: made.weight.astype(weight.dtype)}
    if made.bias is not None and bias is not None:
        changed[name] = made.bias.astype(bias.dtype)
    if all(np.array_equal(numpy_helper.to_array(tensors[key]), array) for key, array in changed.items()):
        return None
    model = onnx.ModelProto()
    model.CopyFrom(after)
    for tensor in model.graph.initializer:
        if tensor.name in changed:
            tensor.CopyFrom(numpy_helper.from_array(changed[tensor.name], tensor.name))
    return model


@dataclass(frozen=True)
class _Weights:
    weight: Array
    bias: Array | None
    axis: int  # of the weight, along which outputs are told apart
    groups: int
    random: np.random.Generator

    @property
    def outputs(self) -> int:
        return int(self.weight.shape[self.axis])

    def with_weight(self, weight: Array) -> _Weights:
        return _Weights(weight, self.bias, self.axis, self.groups, self.random)

    def with_bias(self, bias: Array) -> _Weights | None:
        return None if self.bias is None else _Weights(self.weight, bias, self.axis, self.groups, self.random)

    def scaled(self, scale: Array) -> _Weights:
        shape = [1] * self.weight.ndim
        shape[self.axis] = -1
        return self.with_weight(self.weight.astype(np.float64) * scale.reshape(shape))

    def channel(self) -> int:
        """A channel whose weights are not all zero."""
        sizes = np.abs(self.weight.astype(np.float64)).sum(
            axis=tuple(k for k in range(self.weight.ndim) if k != self.axis)
        )
        alive = np.flatnonzero(sizes > 1e-3 * sizes.max())
        return int(self.random.choice(alive))


def _output_axis(node: onnx.NodeProto) -> int:
    if node.op_type == "Conv":
        return 0
    if node.op_type == "Gemm":
        return 0 if next((attribute.i for attribute in node.attribute if attribute.name == "transB"), 0) else 1
    return -1 if node.op_type == "MatMul" else 1


def _one_scale(w: _Weights) -> _Weights:
    scale = np.ones(w.outputs)
    scale[w.channel()] = 1.25
    return w.scaled(scale)


def _epsilon(w: _Weights) -> _Weights:
    """As if a variance of 1e-2 had been taken without its epsilon of 1e-5, in every channel."""
    return w.scaled(np.full(w.outputs, np.sqrt(1 + 1e-5 / 1e-2) + _ulps(w, 8)))


def _ulps(w: _Weights, count: float) -> float:
    """So many ulp, in the types in which a fault of 1e-3 would be less than that."""
    return count * float(np.finfo(w.weight.dtype).eps) if w.weight.dtype == np.float16 else 0.0


def _shift_lost(w: _Weights) -> _Weights | None:
    return None if w.bias is None else w.with_bias(np.zeros_like(w.bias))


def _bias_twice(w: _Weights) -> _Weights | None:
    return None if w.bias is None else w.with_bias(2 * w.bias)


def _swapped(w: _Weights) -> _Weights | None:
    """Two channels change places, in the weight and not in the bias."""
    if w.outputs < 2:
        return None
    first, second = w.random.choice(w.outputs, 2, replace=False)
    order = np.arange(w.outputs)
    order[[first, second]] = second, first
    return w.with_weight(np.take(w.weight, order, axis=w.axis))


def _group_order(w: _Weights) -> _Weights | None:
    """Channels counted group by group where they should be counted across groups."""
    if w.groups == 1 or w.weight.shape[0] % w.groups or w.weight.shape[0] == w.groups:
        return None
    order = np.arange(w.weight.shape[0]).reshape(w.groups, -1).T.reshape(-1)
    return w.with_weight(w.weight[order])


def _sign(w: _Weights) -> _Weights:
    scale = np.ones(w.outputs)
    scale[w.channel()] = -1
    return w.scaled(scale)


def _wrong_axis(w: _Weights) -> _Weights | None:
    """A scale that belongs to the outputs goes along the inputs."""
    inputs = w.weight.shape[1 if w.axis == 0 else 0]
    scale = 1 + 0.1 * w.random.standard_normal((inputs,))
    shape = [1] * w.weight.ndim
    shape[1 if w.axis == 0 else 0] = -1
    return None if scale.size == 1 else w.with_weight(w.weight * scale.reshape(shape))


def _one_weight(w: _Weights) -> _Weights:
    """One weight is off by 1e-3 of itself, in a channel that is in use."""
    weight = w.weight.astype(np.float64).copy()
    channel = np.moveaxis(weight, w.axis, 0)[w.channel()]
    small = 0.5 if w.weight.dtype == np.float16 else 0.05
    flat = np.flatnonzero(np.abs(channel) > small * np.abs(channel).max())
    place = np.unravel_index(int(w.random.choice(flat)), channel.shape)
    channel[place] *= 1 + 1e-3 + _ulps(w, 32)
    return w.with_weight(weight)


def _one_bias(w: _Weights) -> _Weights | None:
    if w.bias is None:
        return None
    bias = w.bias.astype(np.float64).copy()
    bias.reshape(-1)[int(np.abs(bias).argmax())] *= 1 + 1e-3 + _ulps(w, 32)
    return w.with_bias(bias)


def _bias_off_by_one(w: _Weights) -> _Weights | None:
    return None if w.bias is None or w.bias.size < 2 else w.with_bias(np.roll(w.bias, 1))


def _one_tap(w: _Weights) -> _Weights | None:
    """The kernel moves by one position, as when padding is put on the wrong side."""
    return None if w.weight.ndim < 3 or w.weight.shape[-1] == 1 else w.with_weight(np.roll(w.weight, 1, axis=-1))


FAULTS: dict[str, Callable[[_Weights], _Weights | None]] = {
    "scale of one channel": _one_scale,
    "epsilon forgotten": _epsilon,
    "shift lost": _shift_lost,
    "bias added twice": _bias_twice,
    "two channels swapped": _swapped,
    "wrong group order": _group_order,
    "sign of a scale": _sign,
    "wrong axis": _wrong_axis,
    "one weight off by 1e-3": _one_weight,
    "one bias off by 1e-3": _one_bias,
    "bias of the next channel": _bias_off_by_one,
    "kernel moved": _one_tap,
}
